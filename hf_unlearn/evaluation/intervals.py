"""95 % intervals for shares and means. Each is `[low, high]`, or `None` where nothing can be said."""

import numpy as np
from scipy.stats import beta, norm, t

LEVEL = 0.95
MIN_ROWS = 10  # below this many rows on a side, an interval of an average of rows would promise too much


def clopper_pearson(successes: float, trials: float, level: float = LEVEL) -> list[float] | None:
    """Exact interval of a share (Clopper and Pearson 1934). `None` without trials.

    Both counts may be fractional: with `trials` the effective sample size it is the interval of Korn and Graubard
    (1998) for rows that say less, or more, than so many independent ones.
    """
    if not trials > 0:
        return None
    tail = (1 - level) / 2
    low = beta.ppf(tail, successes, trials - successes + 1) if successes > 0 else 0.0
    high = beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return [float(low), float(high)]


def mean_share_interval(shares: np.ndarray, level: float = LEVEL) -> list[float] | None:
    """Interval of the mean of independent `(rows,)` shares in [0, 1], such as how often a row was called a member.

    Clopper-Pearson's at the effective sample size p(1 − p)/variance of the mean, times the square of the normal
    quantile over Student's, since that variance is measured (Korn and Graubard 1998); where all rows agree, at `rows`.
    """
    shares = np.asarray(shares, float)
    if not len(shares) or np.isnan(shares).any():
        return None
    mean = shares.mean()
    variance = shares.var(ddof=1) / len(shares) if len(shares) > 1 else 0.0
    effective = float(len(shares))
    if variance > 0:
        tail = (1 + level) / 2
        effective = mean * (1 - mean) / variance * (norm.ppf(tail) / t.ppf(tail, len(shares) - 1)) ** 2
    return clopper_pearson(mean * effective, effective, level)


def mean_interval(values: np.ndarray, level: float = LEVEL) -> list[float]:
    """Student's interval of the mean of two or more `(rows,)` values."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    half = float(t.ppf((1 + level) / 2, len(values) - 1) * error)
    return [float(values.mean()) - half, float(values.mean()) + half]


def normal_interval(
    value: float, standard_error: float, level: float = LEVEL, degrees: float | None = None
) -> list[float]:
    """value ± quantile · standard error, cut to [0, 1]; Student's quantile where `degrees` of freedom are given."""
    quantile = norm.ppf((1 + level) / 2) if degrees is None else t.ppf((1 + level) / 2, degrees)
    half = float(quantile * standard_error)
    return [max(0.0, value - half), min(1.0, value + half)]


def figure(value: float | None = None, interval: list[float] | None = None, null: float | None = None) -> dict:
    """A figure as it is stored: its value, its 95 % interval, and what it is where there is nothing to find."""
    return {
        "value": None if value is None else float(value),
        "interval": interval,
        "null": None if null is None else float(null),
    }
