"""What a method sees of one stream in one micro-batch."""

import torch

from hf_unlearn.tasks.predictions import Predictions


class SplitOutput:
    """Predictions for the forget or the retain rows of a micro-batch.

    Attributes:
        stream (`str`): `forget` or `retain`.
        index (`torch.Tensor`): `(size,)`, each row's place in its split.
        labels (`torch.Tensor`): `(rows,)`, class ids, or token ids of the supervised positions.
        logits (`torch.Tensor`): `(rows, classes)`.
        loss (`torch.Tensor`): `(size,)`, per-example cross-entropy in nats.
        log_odds (`torch.Tensor`): `(size,)`, log(p / (1 − p)) of the label.
    """

    def __init__(self, stream: str, predictions: Predictions, index: torch.Tensor, scale: float):
        self.stream = stream
        self.predictions = predictions
        self.index = index
        self._scale = scale

    def __len__(self) -> int:
        return self.predictions.size

    @property
    def labels(self) -> torch.Tensor:
        return self.predictions.labels

    @property
    def logits(self) -> torch.Tensor:
        return self.predictions.logits

    @property
    def loss(self) -> torch.Tensor:
        return self.predictions.loss

    @property
    def log_odds(self) -> torch.Tensor:
        return self.predictions.log_odds

    def loss_for(self, labels: torch.Tensor) -> torch.Tensor:
        """Per-example cross-entropy `(size,)` against other labels `(rows,)`."""
        return self.predictions.loss_for(labels)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """This micro-batch's share of the step's mean of per-example `values` `(size,)`: a scalar.

        Use it rather than `values.mean()`: after Trainer has averaged over micro-batches and processes, every example
        of a step weighs the same, and one of a smaller last batch no more than any other.
        """
        return values.sum() * self._scale
