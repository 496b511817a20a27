"""What a person sees while a run is under way. Light: commands that train nothing import it too."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

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
