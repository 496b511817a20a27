"""A small search for a learning rate: how a candidate is valued, by forget rows and unseen validation rows alone."""

import numpy as np

from hf_unlearn.evaluation.metrics import loss_auc
from hf_unlearn.evaluation.scores import SplitScores

STEP = 10**0.5  # between two neighbouring rates


def rate_factors(count: int) -> list[float]:
    """The default, then by turns half a decade below and above it, and so on: 1, 0.32, 3.2, 0.1, 10, …"""
    exponents = [(i + 1) // 2 * (-1 if i % 2 else 1) for i in range(count)]
    return [STEP**exponent for exponent in exponents]


def validation_distance(
    forget: SplitScores, unseen: SplitScores, before: SplitScores, *, removes_classes: bool = False
) -> float:
    """How far a model is from what validation rows say a retrained one would be, in points; 0 is the best.

    Forgetting: |accuracy on forget rows − accuracy on unseen rows|, and how far the AUC of the attack by the loss
    between the two is from 50 %; their mean. For removed classes, of which validation has no row, the accuracy on
    forget rows alone, which a retrained model has at 0. To this the accuracy on unseen rows is added that the original
    had and the model lost. Neither test rows nor twins are among it. Infinite where a loss is not finite.

    Args:
        forget, unseen: forget rows, and the validation rows meant for stopping and tuning, under the candidate.
        before: the same validation rows under the original.
    """
    if not (np.isfinite(forget.loss).all() and np.isfinite(unseen.loss).all()):
        return float("inf")
    lost = max(0.0, before.accuracy - unseen.accuracy)
    if removes_classes:
        return 100 * (forget.accuracy + lost)
    parts = [abs(forget.accuracy - unseen.accuracy)]
    auc = loss_auc(forget.loss, unseen.loss).value
    if auc is not None:
        parts.append(abs(auc - 0.5))
    return 100 * (float(np.mean(parts)) + lost)
