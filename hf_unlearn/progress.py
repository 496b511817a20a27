"""One progress line per stage, on stderr, that also reads well in a log file."""

import sys

from tqdm.auto import tqdm
from transformers import TrainerCallback


class ProgressBar(TrainerCallback):
    """A bar with a name: which model is being made, how far it is, and its last logged figures."""

    def __init__(self, title: str, shown: tuple[str, ...] = ("loss",)):
        self.title = title
        self.shown = shown
        self.bar = None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            # Without a terminal, a line every ten seconds instead of one per step.
            quiet = {} if sys.stderr.isatty() else {"mininterval": 10.0, "ncols": 88}
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=f"{self.title:<26}", unit="step", **quiet
            )

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.bar is not None and logs:
            figures = {name: f"{logs[name]:.3f}" for name in self.shown if name in logs}
            if figures:
                self.bar.set_postfix(figures, refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.close()
            self.bar = None
