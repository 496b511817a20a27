"""A bar or a few lines per training."""

import sys
import time
from collections.abc import Sequence

from tqdm.auto import tqdm
from transformers import TrainerCallback

from hf_unlearn.progress import EVERY, duration, is_quiet, say


class ProgressBar(TrainerCallback):
    """Which model is being made, how far it is, and its last logged figures: a bar on a terminal, else a line every
    ten seconds and one at the end.

    Args:
        title: names the model.
        shown: logged figures to show.
        phases: names and steps of what the training consists of, where there are several.
    """

    def __init__(self, title: str, shown: tuple[str, ...] = ("loss",), phases: Sequence[tuple[str, int]] = ()):
        self.title = title
        self.shown = shown
        self.phases = phases if len(phases) > 1 else ()
        self.figures: dict[str, str] = {}
        self.bar = None
        self.speaks = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.speaks = state.is_world_process_zero and not is_quiet()
        self.start = self.last = time.perf_counter()
        self.first = state.global_step
        if self.speaks and sys.stderr.isatty():
            name = self._name(state.global_step)
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=name, unit="step")

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.set_description(self._name(state.global_step), refresh=False)
            self.bar.total = state.max_steps  # a run may be prolonged
            self.bar.update(state.global_step - self.bar.n)
        elif self.speaks and state.global_step < state.max_steps and time.perf_counter() - self.last > EVERY:
            self._say_line(state)  # the end has a line of its own

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.figures |= {name: f"{logs[name]:.3f}" for name in self.shown if name in (logs or {})}
        if self.bar is not None:
            self.bar.set_postfix(self.figures, refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        elif self.speaks:
            self._say_line(state)

    def _say_line(self, state) -> None:
        self.last = time.perf_counter()
        figures = "".join(f", {name} {value}" for name, value in self.figures.items())
        done, all_ = state.global_step, state.max_steps
        took = self.last - self.start
        left = took / max(done - self.first, 1) * (all_ - done)
        more = f", about {duration(left)} left" if done < all_ else ""
        say(f"{self._name(done)}: step {done:,} of {all_:,}, {duration(took)}{more}{figures}")

    def _name(self, step: int) -> str:
        """The title, and the phase that the step belongs to where there are several."""
        for name, steps in self.phases:
            if step <= steps:
                return f"{self.title}, {name}"
            step -= steps
        return self.title
