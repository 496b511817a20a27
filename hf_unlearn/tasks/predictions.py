"""What a model said about a batch of examples, in the one form that methods, metrics and attacks understand."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F


@dataclass
class Predictions:
    """Logits and labels of `size` examples.

    A classifier has one row of logits per example. A causal LM has one per supervised token, and `example` says which
    example a row belongs to; its per-example figures are means over the example's supervised tokens.

    Args:
        logits (`torch.Tensor`): `(rows, classes)`, the classes being the vocabulary for a causal LM.
        labels (`torch.Tensor`): `(rows,)`, class or token ids.
        size (`int`): number of examples.
        example (`torch.Tensor`, *optional*): `(rows,)`, in `0 … size - 1`, ascending. `None`: row i is example i.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    size: int
    example: torch.Tensor | None = None
    _loss: torch.Tensor | None = field(default=None, repr=False)

    def example_mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of `values` `(rows,)` over the rows of each example: `(size,)`."""
        if self.example is None:
            return values
        zeros = values.new_zeros(self.size)
        counts = zeros.index_add(0, self.example, torch.ones_like(values))
        return zeros.index_add(0, self.example, values) / counts.clamp(min=1)

    def loss_for(self, labels: torch.Tensor) -> torch.Tensor:
        """Per-example cross-entropy in nats, `(size,)`, against other labels `(rows,)`."""
        return self.example_mean(F.cross_entropy(self._wide(), labels, reduction="none"))

    @property
    def loss(self) -> torch.Tensor:
        """Per-example cross-entropy in nats against the labels: `(size,)`; for causal LMs the mean token NLL."""
        if self._loss is None:
            self._loss = self.loss_for(self.labels)
        return self._loss

    @property
    def log_odds(self) -> torch.Tensor:
        """φ = log(p / (1 − p)), `(size,)`, with p the label's probability (causal LMs: exp of minus the mean NLL).

        For classifiers it is the label's logit minus the log-sum-exp of the others, which stays exact where 1 − p
        underflows.
        """
        if self.example is None:
            logits = self._wide()
            label = logits.gather(1, self.labels[:, None]).squeeze(1)
            return label - logits.scatter(1, self.labels[:, None], float("-inf")).logsumexp(1)
        # log p − log(1 − p), with 1 − p taken by expm1: finite and with finite gradients for any NLL.
        nll = self.loss.clamp(min=torch.finfo(self.loss.dtype).eps)
        return -nll - torch.log(-torch.expm1(-nll))

    @property
    def correct(self) -> torch.Tensor:
        """Per-example accuracy `(size,)`, float; for causal LMs the share of supervised tokens that are the argmax."""
        return self.example_mean((self.logits.argmax(-1) == self.labels).to(self._wide().dtype))

    @property
    def entropy(self) -> torch.Tensor:
        """Per-example entropy of the softmax in nats, `(size,)` (mean over supervised tokens)."""
        log_probs = F.log_softmax(self._wide(), dim=-1)
        return self.example_mean(-(log_probs.exp() * log_probs).sum(-1))

    @property
    def confidence(self) -> torch.Tensor:
        """Per-example probability of the most likely class, `(size,)` (mean over supervised tokens)."""
        return self.example_mean(F.softmax(self._wide(), dim=-1).amax(-1))

    def split(self, first: int) -> tuple["Predictions", "Predictions"]:
        """The first `first` examples, and the others."""
        if self.example is None:
            cut, example = first, None
        else:
            cut, example = int((self.example < first).sum()), self.example
        halves = []
        for rows, start, size in ((slice(0, cut), 0, first), (slice(cut, None), first, self.size - first)):
            owner = None if example is None else example[rows] - start
            halves.append(Predictions(self.logits[rows], self.labels[rows], size, owner))
        return halves[0], halves[1]

    def _wide(self) -> torch.Tensor:
        """Logits in at least float32: half precision is too coarse for losses and membership scores."""
        return self.logits if self.logits.dtype == torch.float64 else self.logits.float()
