"""Per-example arrays of one split under one model: all that metrics, attacks and plots ever see of a model."""

from dataclasses import dataclass

import numpy as np

from hf_unlearn.evaluation.said import Said


@dataclass
class SplitScores:
    """Arrays of length n in the order of the split's rows, float64.

    Args:
        loss: cross-entropy in nats (causal LMs: mean token NLL; sets of labels: mean binary cross-entropy).
        log_odds: φ = log(p / (1 − p)) of the label.
        correct: 1 or 0 (causal LMs: share of supervised tokens that are the argmax; sets of labels: 1 where all are
            right).
        confidence: probability of the most likely class.
        entropy: of the softmax, in nats.
        modified_entropy: Song and Mittal's, which knows the label: 0 where the model is sure and right.
        label: class id (-1 for rows without a class).
        true_labels, said_labels: `(n, labels)`, 1 where a label is true, and where the model says it; of tasks whose
            rows have sets of labels.
        said: of language models, all words in the places of a sample of tokens.

    From `modified_entropy` on they are `None` where a task has none, or scores were put together without them.
    """

    loss: np.ndarray
    log_odds: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    modified_entropy: np.ndarray | None = None
    label: np.ndarray | None = None
    true_labels: np.ndarray | None = None
    said_labels: np.ndarray | None = None
    said: Said | None = None

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())
