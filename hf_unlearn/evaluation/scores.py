"""Per-example arrays of one split under one model: all that metrics, attacks and plots ever see of a model."""

from dataclasses import dataclass

import numpy as np


@dataclass
class SplitScores:
    """Arrays of length n in the order of the split's rows, float64.

    Args:
        loss: cross-entropy in nats (causal LMs: mean token NLL).
        log_odds: φ = log(p / (1 − p)) of the label.
        correct: 1 or 0 (causal LMs: share of supervised tokens that are the argmax).
        confidence: probability of the most likely class.
        entropy: of the softmax, in nats.
        modified_entropy: Song and Mittal's, which knows the label: 0 where the model is sure and right.
        label: class id (causal LMs: -1).

    The last two are `None` in scores that were put together by hand without them.
    """

    loss: np.ndarray
    log_odds: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    modified_entropy: np.ndarray | None = None
    label: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())
