"""Stopping once the forget rows look like unseen ones, and only if enough rows were seen to say so."""

from dataclasses import dataclass

import numpy as np

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.scores import SplitScores

Z = 1.96  # 95 %
FIGURES = {"accuracy": ("correct", 1), "loss": ("loss", -1)}


@dataclass(frozen=True)
class Reached:
    """One look: the mean of the forget rows less that of the validation rows, the half-width of its 95 % interval, and
    whether to stop."""

    difference: float
    half_width: float
    stop: bool


@dataclass(frozen=True)
class StopAtValidation:
    """Stop when the forget rows' accuracy has come down, or their loss has gone up, to that of the validation rows.

    The part of the validation rows that is meant for stopping is the target: test rows and twins only report. It
    stops when the difference is within `tolerance` (or beyond the target) *and* its 95 % interval is no wider than
    ± `tolerance`: with fewer rows than that takes, never.

    Args:
        figure: `accuracy`, or `loss` in nats.
        tolerance: in the figure's unit; of accuracy a fraction.
    """

    figure: str = "accuracy"
    tolerance: float = 0.05

    def __post_init__(self):
        if self.figure not in FIGURES:
            raise UserError(f"early stopping on '{self.figure}': choose {' or '.join(FIGURES)}")
        if not self.tolerance > 0:
            raise UserError(f"early stopping: the tolerance is {self.tolerance}; give a number above 0")

    def look(self, forget: SplitScores, validation: SplitScores) -> Reached:
        """`forget` and the validation rows meant for stopping, under the same model."""
        name, sign = FIGURES[self.figure]
        ours, theirs = (np.asarray(getattr(scores, name), float) for scores in (forget, validation))
        if not len(ours) or not len(theirs):
            return Reached(float("nan"), float("inf"), False)
        difference = float(ours.mean() - theirs.mean())
        half_width = float(Z * np.sqrt(_squared_error(ours) + _squared_error(theirs)))
        near = sign * difference <= self.tolerance
        return Reached(difference, half_width, bool(near and half_width <= self.tolerance))


def _squared_error(values: np.ndarray) -> float:
    """Of a mean. For right or wrong rows with Agresti and Coull's two extra rows of each kind, so that no share counts
    as known without error; a single other value says nothing about its spread."""
    n = len(values)
    if np.isin(values, (0, 1)).all():
        share = (values.sum() + 2) / (n + 4)
        return float(share * (1 - share) / (n + 4))
    return float(values.var(ddof=1) / n) if n > 1 else float("inf")
