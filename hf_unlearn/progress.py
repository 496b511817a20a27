"""What a person sees while a run is under way. Light: commands that train nothing import it too."""

import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

EVERY = 10.0  # seconds between two lines
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


def is_quiet() -> bool:
    """Whether the command that runs is silent."""
    return _quiet


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


def duration(seconds: float) -> str:
    """`seconds` for people: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class RowsDone:
    """Says every ten seconds how many rows are done, and nothing of what takes less.

    Args:
        title: what is done.
        rows: how many there are.
        processes: that share them; each counts its own.
    """

    def __init__(self, title: str, rows: int, processes: int = 1):
        self.title, self.rows, self.processes = title, rows, processes
        self.done = 0
        self.start = self.last = time.perf_counter()

    def __call__(self, count: int) -> None:
        """So many rows more went through this process."""
        self.done = min(self.rows, self.done + count * self.processes)
        now = time.perf_counter()
        if now - self.last > EVERY and self.done < self.rows:
            self.last, took = now, now - self.start
            left = duration(took / self.done * (self.rows - self.done))
            say(f"{self.title}: {self.done:,} of {self.rows:,} rows, {duration(took)}, about {left} left")
