"""What a person sees while a run is under way: a line per stage, and a bar or a few lines per training."""

import os
import sys
import time

from tqdm.auto import tqdm
from transformers import TrainerCallback

EVERY = 10.0  # seconds between two lines where there is no terminal


def say(line: str) -> None:
    """Print a line once, however many processes run."""
    if int(os.environ.get("RANK", 0)) == 0:
        print(line, flush=True)


def quiet_libraries() -> None:
    """No bars of `transformers` for loading and saving files; without a terminal none for downloads and rows either.

    `datasets` logs errors before it raises them, and quotes the rows in them: that goes too.
    """
    import datasets
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

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
    """

    def __init__(self, title: str, shown: tuple[str, ...] = ("loss",)):
        self.title = title
        self.shown = shown
        self.figures: dict[str, str] = {}
        self.bar = None
        self.speaks = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.speaks = state.is_world_process_zero
        self.start = self.last = time.perf_counter()
        if self.speaks and sys.stderr.isatty():
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.title, unit="step")

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
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
        steps = f"step {state.global_step:,} of {state.max_steps:,}"
        say(f"{self.title}: {steps}, {self.last - self.start:.0f} s{figures}")
