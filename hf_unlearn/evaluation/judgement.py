"""Could the unlearned model be one more retrained twin? Figure by figure: the evidence block `judged`.

A figure is a mean over rows, and two retrainings differ in it for two reasons. Single rows come out differently: of
that every row is a replicate, so that v = Σ s_i²/n², with s_i² the variance of row i between the twins, is known well
even from two of them. And all rows share something, which makes the figure vary by a factor more (or less): the design
effect D = Var(figure)/v. The twins' own figures alone say little about D, k − 1 degrees of freedom; so it has a prior,
which they update: (k − 1)·s²/(D·v) is χ² with k − 1 degrees of freedom. What n rows share adds n times its part of
their variance to D, so that the prior's tail follows n where they can share a level. One more twin then differs from
the mean of k by a scale mixture of normals of variance D·v·(1 + 1/k), and the unlearned model is held against that.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

DESIGN = np.geomspace(0.05, 2e6, 400)
# Medians and log-spreads of D. Rows that flip by themselves explain most figures (Jordan 2023, arXiv 2304.01910, found
# so for test accuracy); the tail is for what all rows share in, such as the log-odds of a class that was never seen.
CORE, TAIL, TAIL_SHARE = (1.2, 0.7), (12.0, 1.8), 0.35
SHARED = 0.3  # of the rows' variance, at the median of the tail, where there are enough rows to tell
LEVEL, POWER = 0.95, 0.80
STRICT = 0.03 / 6  # a figure in the verdict: Holm at 3 % over six or seven, which leaves room for what is not normal
MOST_TWINS = 32


@lru_cache
def _prior(shared: int) -> np.ndarray:
    """Weights of the grid `DESIGN`, where so many rows may share a level."""
    tail_median, tail_spread = max(TAIL[0], SHARED * shared), TAIL[1]
    core, tail = (
        np.exp(-(np.log(DESIGN / median) ** 2) / spread**2 / 2) / spread
        for median, spread in (CORE, (tail_median, tail_spread))
    )
    weights = (1 - TAIL_SHARE) * core + TAIL_SHARE * tail
    return weights / weights.sum()


@dataclass(frozen=True)
class Measured:
    """A figure under one model and under k twins.

    Args:
        value, twins: the figure; of the twins `(k,)`.
        row_variance: v, above 0.
        margin: how far from the twins still counts as good as they are.
        worse: `"both"`, `"lower"` or `"higher"`: in which direction a difference is a fault.
        replicates: another twin's difference has variance D·v·(1 + 1/replicates); k, but k − 1 where what is compared
            is itself a spread between twins.
        shared: rows that may share a level which differs from model to model, as the log-odds of a class that was
            never seen; 0 where rows come out by themselves.
    """

    value: float
    twins: np.ndarray
    row_variance: float
    margin: float
    worse: str = "both"
    replicates: int | None = None
    shared: int = 0


class AnotherTwin:
    """The difference of one more twin from the mean of k."""

    def __init__(self, twins: np.ndarray, row_variance: float, replicates: int | None = None, shared: int = 0):
        degrees, observed = len(twins) - 1, float(np.var(twins, ddof=1)) if len(twins) > 1 else 0.0
        likelihood = np.ones_like(DESIGN)
        if degrees and observed > 0:
            scaled = degrees * observed / (DESIGN * row_variance)
            log_chi2 = degrees / 2 * np.log(scaled) - scaled / 2  # density of `observed`, up to a constant
            likelihood = np.exp(log_chi2 - log_chi2.max())
        weights = _prior(shared) * likelihood
        self.weights = weights / weights.sum()
        self.variance = DESIGN * row_variance
        self.replicates = replicates or len(twins)

    def sd(self, replicates: int | None = None) -> float:
        """Standard deviation of the difference, or what it would be with another number of twins."""
        return float(np.sqrt((self.weights @ self.variance) * (1 + 1 / (replicates or self.replicates))))

    def tail(self, difference: float) -> float:
        """P(another twin's difference > `difference`)."""
        return float(self.weights @ ndtr(-difference / np.sqrt(self.variance * (1 + 1 / self.replicates))))

    def quantile(self, tail: float) -> float:
        """The difference that another twin exceeds with probability `tail` < 1/2; by bisection."""
        low, high = 0.0, self.sd()
        while self.tail(high) > tail:
            high *= 2
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.tail(middle) > tail else (low, middle)
        return high


def judge(figure: Measured) -> dict[str, float | int | str | list | None]:
    """JSON types only.

    Returns:
        - `difference` from the twins' mean; `interval`, in which it lies with 95 % confidence over the seeds of the
          twins and of the model itself;
        - `p`: how probable a difference as large is for one more twin, in the direction(s) of `worse`;
        - `margin`, `worse`;
        - `seen`: the difference that would have been told apart with 80 % probability;
        - `twins_needed`: about so many would settle it if the difference stays; `None` where more do not help, because
          the spread of a single model is too wide.
    """
    another = AnotherTwin(figure.twins, figure.row_variance, figure.replicates, figure.shared)
    difference = float(figure.value - figure.twins.mean())
    half = another.quantile((1 - LEVEL) / 2)
    tails = {"higher": another.tail(difference), "lower": another.tail(-difference)}
    p = min(1.0, 2 * min(tails.values())) if figure.worse == "both" else tails[figure.worse]
    sides = 2 if figure.worse == "both" else 1
    strict = another.quantile(STRICT / sides)
    return {
        "difference": difference,
        "interval": [difference - half, difference + half],
        "margin": figure.margin,
        "worse": figure.worse,
        "p": p,
        "seen": strict + float(ndtri(POWER)) * another.sd(),
        "twins_needed": _twins_needed(difference, figure, another, half, strict),
    }


def _twins_needed(difference: float, figure: Measured, another: AnotherTwin, half: float, strict: float) -> int | None:
    """The smallest number of twins at which the same difference would be inside the margin or told apart."""
    size = {"both": abs(difference), "higher": difference, "lower": -difference}[figure.worse]
    for twins in range(2, MOST_TWINS + 1):
        # The quantiles shrink with the mean's error, and towards a normal's with the knowledge of D.
        shrunk = another.sd(twins) / another.sd()
        known = 1 - len(figure.twins) / twins if twins > len(figure.twins) else 0.0
        inside = half + known * (ndtri((1 + LEVEL) / 2) * another.sd() - half)
        told = strict + known * (ndtri(1 - STRICT / 2) * another.sd() - strict)
        if size + inside * shrunk <= figure.margin or size >= told * shrunk:
            return twins
    return None
