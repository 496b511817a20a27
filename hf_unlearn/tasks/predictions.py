"""What a model said about a batch of examples, in the one form that methods, metrics and attacks understand."""

from dataclasses import dataclass, field

import torch

from hf_unlearn.tasks import row_figures
from hf_unlearn.tasks.mean_loss import log_odds_of_mean, losses
from hf_unlearn.tasks.row_chunks import RowFigure, by_rows, log_odds, wide_type


@dataclass
class Predictions:
    """Logits and labels of `size` examples.

    A classifier has one row of logits per example. A causal LM has one per supervised token, and `example` says which
    example a row belongs to; its per-example figures are means over the example's supervised tokens. Rows with sets of
    labels have one per label ([`LabelSetPredictions`](label_sets.py)).

    Args:
        logits (`torch.Tensor`): `(rows, classes)`, the classes being the vocabulary for a causal LM.
        labels (`torch.Tensor`): `(rows,)`, class or token ids.
        size (`int`): number of examples.
        example (`torch.Tensor`, *optional*): `(rows,)`, in `0 … size - 1`, ascending. `None`: row i is example i.
        counts (`list[int]`): rows of each example, `(size,)`, on the host. Where it is not given it is counted on the
            device, which waits for it.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    size: int
    example: torch.Tensor | None = None
    counts: list[int] = field(default_factory=list)
    _log_odds: torch.Tensor | None = field(default=None, repr=False)
    _uncertainty: dict[str, torch.Tensor] | None = field(default=None, repr=False)

    def __post_init__(self):
        if not self.counts and self.example is None:
            self.counts = [1] * self.size
        elif not self.counts and self.example is not None:
            self.counts = torch.bincount(self.example, minlength=self.size).tolist()

    def example_mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of `values` `(rows,)` over the rows of each example: `(size,)`."""
        if self.example is None:
            return values
        zeros = values.new_zeros(self.size)
        counts = zeros.index_add(0, self.example, torch.ones_like(values))
        return zeros.index_add(0, self.example, values) / counts.clamp(min=1)

    def by_rows(self, figure: RowFigure) -> torch.Tensor:
        """`figure(log_probs, labels)` of every row of logits, `(rows, …)`, a few rows at a time."""
        return by_rows(figure, self.logits, self.labels)

    def loss_for(self, labels: torch.Tensor) -> torch.Tensor:
        """Per-example cross-entropy in nats, `(size,)`, against other labels `(rows,)`."""
        return self.example_mean(self.losses_for(labels))

    def losses_for(self, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats of each row of logits, `(rows,)`, against other labels `(rows,)`."""
        return losses(log_odds(self.logits, labels))

    @property
    def loss(self) -> torch.Tensor:
        """Per-example cross-entropy in nats against the labels: `(size,)`; for causal LMs the mean token NLL."""
        return self.example_mean(losses(self.label_log_odds))

    @property
    def log_odds(self) -> torch.Tensor:
        """φ = log(p / (1 − p)), `(size,)`, with p the label's probability (causal LMs: exp of minus the mean NLL)."""
        if self.example is None:
            return self.label_log_odds
        return log_odds_of_mean(self.label_log_odds, self.example, self.size)

    @property
    def label_log_odds(self) -> torch.Tensor:
        """log(p / (1 − p)) of the label of each row of logits, `(rows,)`; for causal LMs of each supervised token.

        Losses and log-odds all come from it; it is computed once, and once more if only then gradients are wanted.
        """
        if self._log_odds is None or (self._wants_gradient and not self._log_odds.requires_grad):
            self._log_odds = log_odds(self.logits, self.labels)
        return self._log_odds

    @property
    def correct(self) -> torch.Tensor:
        """Per-example accuracy `(size,)`, float; for causal LMs the share of supervised tokens that are the argmax."""
        return self.example_mean(self.token_is_argmax)

    @property
    def entropy(self) -> torch.Tensor:
        """Per-example entropy of the softmax in nats, `(size,)` (mean over supervised tokens)."""
        return self.example_mean(-self.token_mean_log_prob)

    @property
    def confidence(self) -> torch.Tensor:
        """Per-example probability of the most likely class, `(size,)` (mean over supervised tokens)."""
        return self.example_mean(self._row_figure("confidence"))

    @property
    def modified_entropy(self) -> torch.Tensor:
        """−(1 − p_y) log p_y − Σ_{i≠y} p_i log(1 − p_i), `(size,)` (Song and Mittal 2021; mean over supervised
        tokens): 0 where the model is sure and right, large where it is sure and wrong."""
        return self.example_mean(self._row_figure("modified_entropy"))

    @property
    def token_log_prob(self) -> torch.Tensor:
        """Log-probability of the label of each row of logits, `(rows,)`, in nats."""
        return -losses(self.label_log_odds)

    @property
    def token_is_argmax(self) -> torch.Tensor:
        """Whether the label of each row of logits is the most likely class, `(rows,)`, 1 or 0."""
        return (self.logits.argmax(-1) == self.labels).to(wide_type(self.logits))

    @property
    def token_mean_log_prob(self) -> torch.Tensor:
        """E[log p(z)] for z drawn from each row's softmax, `(rows,)`: minus its entropy."""
        return self._row_figure("mean_log_prob")

    @property
    def token_sd_log_prob(self) -> torch.Tensor:
        """Standard deviation of log p(z) for z drawn from each row's softmax, `(rows,)`."""
        return self.by_rows(row_figures.sd_log_prob)

    @property
    def token_count(self) -> torch.Tensor:
        """Supervised tokens of each example, `(size,)`, where the logits are; 1 for classifiers."""
        return torch.tensor(self.counts).to(self.logits.device, non_blocking=True)

    @property
    def label(self) -> torch.Tensor:
        """Class of each example, `(size,)`; -1 for causal LMs, whose examples have none."""
        return self.labels if self.example is None else self.labels.new_full((self.size,), -1)

    def split(self, first: int) -> tuple["Predictions", "Predictions"]:
        """The first `first` examples, and the others. Their log-odds are parts of the whole's, so that one backward
        pass leaves one gradient of the logits rather than one for each part."""
        counts = self.counts[:first], self.counts[first:]
        cut, log_odds, halves = sum(counts[0]), self.label_log_odds, []
        for rows, start, mine in ((slice(0, cut), 0, counts[0]), (slice(cut, None), first, counts[1])):
            owner = None if self.example is None else self.example[rows] - start
            halves.append(type(self)(self.logits[rows], self.labels[rows], len(mine), owner, mine, log_odds[rows]))
        return halves[0], halves[1]

    @property
    def _wants_gradient(self) -> bool:
        return torch.is_grad_enabled() and self.logits.requires_grad

    def _row_figure(self, name: str) -> torch.Tensor:
        """One of `UNCERTAINTY`, `(rows,)`. A scoring pass asks for all of them, so the first one brings the others."""
        if self._wants_gradient:
            return self.by_rows(getattr(row_figures, name))
        if self._uncertainty is None:
            values = self.by_rows(row_figures.uncertainty).unbind(1)
            self._uncertainty = dict(zip(row_figures.UNCERTAINTY, values, strict=True))
        return self._uncertainty[name]
