"""What a model said of rows with any number of labels, each of which is true or not: K yes-or-no questions a row."""

from collections.abc import Sequence
from typing import Any

import torch

from hf_unlearn.tasks.predictions import Predictions


class LabelSetPredictions(Predictions):
    """Predictions about `size` rows of K labels: a row of logits for each label, `(size · K, 2)`, no and yes.

    A label's logit z becomes the pair (0, z): the pair's softmax is the sigmoid of z, its cross-entropy the binary
    cross-entropy, and the log-odds of what is true are z or −z. A row's figures are means over its K labels, as those
    of a text are means over its tokens; but a row is correct only where all its labels are.
    """

    @classmethod
    def of(cls, logits: torch.Tensor, labels: torch.Tensor) -> "LabelSetPredictions":
        """From `(size, K)` logits and `(size, K)` labels, 1 where a label is true, else 0."""
        size, count = logits.shape
        pairs = torch.stack([torch.zeros_like(logits), logits], 2).flatten(0, 1)
        owner = torch.arange(size, device=logits.device).repeat_interleave(count)
        return cls(pairs, labels.flatten().long(), size, owner, [count] * size)

    @property
    def correct(self) -> torch.Tensor:
        """1 where every label of a row is right at a probability of 0.5, else 0: `(size,)` float (subset accuracy)."""
        return (self.true_labels == self.said_labels).all(1).to(self.example_mean(self.label_log_odds).dtype)

    @property
    def true_labels(self) -> torch.Tensor:
        """Whether each label is true, `(size, K)`, bool."""
        return self._by_row(self.labels > 0)

    @property
    def said_labels(self) -> torch.Tensor:
        """Whether the model says each label, at a probability above 0.5, `(size, K)`, bool."""
        return self._by_row(self.logits[:, 1] > self.logits[:, 0])

    def _by_row(self, values: torch.Tensor) -> torch.Tensor:
        """`(size · K,)` values as `(size, K)`."""
        return values.view(self.size, self.counts[0] if self.counts else 0)


def label_vector(ids: Sequence[int], count: int) -> torch.Tensor:
    """`(count,)` float, 1 at the ids of a row's labels: what `BCEWithLogitsLoss` takes."""
    vector = torch.zeros(count)
    vector[list(ids)] = 1.0
    return vector


def is_label_set(feature: Any) -> bool:
    """Whether a feature of a data set is a list of single values: of ids, of names, of `ClassLabel`s, or of zeros and
    ones."""
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return type(inner).__name__ in ("ClassLabel", "Value")
