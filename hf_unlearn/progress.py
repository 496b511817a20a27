"""What a person sees while a run is under way: a line per stage, and a bar or a few lines per training."""

import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tqdm.auto import tqdm
from transformers import TrainerCallback

EVERY = 10.0  # seconds between two lines where there is no terminal
_quiet = False  # of the command that runs


@contextmanager
def quietly(quiet: bool) -> Iterator[None]:
    """Around a command: [`say`] and bars are silent in it if `quiet`."""
    global _quiet
    before, _quiet = _quiet, quiet
    try:
        yield
    finally:
        _quiet = before


def say(line: str) -> None:
    """Print a line once, however many processes run; nothing with `--quiet`."""
    if not _quiet and int(os.environ.get("RANK", 0)) == 0:
        print(line, flush=True)


def quiet_libraries() -> None:
    """No bars of `transformers` for loading and saving files; without a terminal none for downloads and rows either.

    `datasets` logs errors before it raises them, and quotes the rows in them: that goes too.
    """
    import datasets
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

    warnings.filterwarnings("ignore", category=FutureWarning)  # between libraries; nobody at the screen can mend them
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    logging.disable_progress_bar()  # those of downloads too
    if sys.stderr.isatty():
        enable_progress_bars()
    else:
        datasets.disable_progress_bars()


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
        self.speaks = state.is_world_process_zero and not _quiet
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
        elif self.speaks and time.perf_counter() - self.last > EVERY:
            self._say_line(state)

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


def duration(seconds: float) -> str:
    """`seconds` for people: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
