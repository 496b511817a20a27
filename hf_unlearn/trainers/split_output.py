"""What a method sees of one stream in one micro-batch."""

from typing import TYPE_CHECKING

import torch

from hf_unlearn.tasks.predictions import Predictions

if TYPE_CHECKING:
    from hf_unlearn.trainers.originals import Pass


class SplitOutput:
    """Predictions for the forget or the retain rows of a micro-batch.

    Attributes:
        stream (`str`): `forget` or `retain`.
        index (`torch.Tensor`): `(size,)`, each row's place in its split.
        rows (`list[int]`): the same on the host, where reading it does not wait for the device.
        labels (`torch.Tensor`): `(rows,)`, class ids, or token ids of the supervised positions.
        logits (`torch.Tensor`): `(rows, classes)`.
        loss (`torch.Tensor`): `(size,)`, per-example cross-entropy in nats.
        log_odds (`torch.Tensor`): `(size,)`, log(p / (1 − p)) of the label.
        tokens (`torch.Tensor`): `(size,)`, supervised tokens; 1 for classifiers.
        log_prob (`torch.Tensor`): `(size,)`, summed log-probability of the supervised tokens.
        hidden (`dict[str, torch.Tensor]`): outputs `(size, seq, hidden)` of the layers that the method asks for.
        mask (`torch.Tensor`): with them, `(size, seq)` bool: a row's own positions.
        original (`Pass`): the original's predictions and hidden states for the same rows, if `asks_original`.
    """

    def __init__(
        self,
        stream: str,
        predictions: Predictions,
        index: torch.Tensor,
        scale: float,
        ran: "Pass | None" = None,
        original: "Pass | None" = None,
        rows: list[int] | None = None,
    ):
        self.stream = stream
        self.predictions = predictions
        self.index = index
        self.rows = index.tolist() if rows is None else rows
        self.hidden = ran.hidden if ran else {}
        self._mask = ran.mask if ran else None
        self._original = original
        self._scale = scale

    def __len__(self) -> int:
        return self.predictions.size

    @property
    def mask(self) -> torch.Tensor:
        if self._mask is None:
            raise AttributeError("no layer is watched: name some in `hidden_layers`")
        return self._mask

    @property
    def original(self) -> "Pass":
        if self._original is None:
            raise AttributeError("nobody asked the original: set `asks_original`")
        return self._original

    @original.setter
    def original(self, ran: "Pass") -> None:
        self._original = ran

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

    @property
    def tokens(self) -> torch.Tensor:
        return self.predictions.token_count

    @property
    def log_prob(self) -> torch.Tensor:
        return -self.loss * self.tokens

    def own(self, table: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The micro-batch's rows `(size, …)` of a `table` `(rows, …)` over the whole split that is kept on the host,
        as `like`: rows are taken there, so that no step moves the table."""
        return table[self.rows].to(like)

    def loss_for(self, labels: torch.Tensor) -> torch.Tensor:
        """Per-example cross-entropy `(size,)` against other labels `(rows,)`."""
        return self.predictions.loss_for(labels)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """This micro-batch's share of the step's mean of per-example `values` `(size,)`: a scalar. Of several for each
        example, `(size, figures)`, it is that of each.

        Use it rather than `values.mean()`: after Trainer has averaged over micro-batches and processes, every example
        of a step weighs the same, and one of a smaller last batch no more than any other.
        """
        return values.sum(0) * self._scale


def on_host(scalar: torch.Tensor) -> float:
    """The number in a tensor that is kept on the host. Raises `TypeError` for one on a device: a step would wait."""
    return float(scalar.numpy())
