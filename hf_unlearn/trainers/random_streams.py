"""The random numbers of a run. All of them come from its one seed; the table keeps what draws them apart."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What draws numbers of its own. A value never changes its meaning: a seed would give another run."""

    FORGET_ORDER = 1
    RETAIN_ORDER = 2
    WRONG_LABELS = 3
    KEPT_SUBSET = 4  # of a method that reads a few rows of each class
    NOISE_ORDER = 5
    CALIBRATION_ROWS = 6
    PROLONGING_ROWS = 7
    NOISE_TEMPLATES = 8
    PROBE_ROWS = 9
    REFUSALS = 10
    ALTERNATES = 11
    RELEARNED_ROWS = 12


def random_numbers(seed: int, stream: Stream, *which: int) -> np.random.Generator:
    """A generator that is a pure function of the run's seed, the stream, and what of it is drawn (epoch, row)."""
    return np.random.default_rng([seed, int(stream), *which])
