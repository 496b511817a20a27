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
    _log_probs: torch.Tensor | None = field(default=None, repr=False)

    def example_mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of `values` `(rows,)` over the rows of each example: `(size,)`."""
        if self.example is None:
            return values
        zeros = values.new_zeros(self.size)
        counts = zeros.index_add(0, self.example, torch.ones_like(values))
        return zeros.index_add(0, self.example, values) / counts.clamp(min=1)

    def loss_for(self, labels: torch.Tensor) -> torch.Tensor:
        """Per-example cross-entropy in nats, `(size,)`, against other labels `(rows,)`."""
        return self.example_mean(self.losses_for(labels))

    def losses_for(self, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats of each row of logits, `(rows,)`, against other labels `(rows,)`."""
        return F.cross_entropy(self._wide(), labels, reduction="none")

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
            return self.label_log_odds
        # log p − log(1 − p), with 1 − p taken by expm1: finite and with finite gradients for any NLL.
        nll = self.loss.clamp(min=torch.finfo(self.loss.dtype).eps)
        return -nll - torch.log(-torch.expm1(-nll))

    @property
    def label_log_odds(self) -> torch.Tensor:
        """log(p / (1 − p)) of the label of each row of logits, `(rows,)`; for causal LMs of each supervised token."""
        logits = self._wide()
        label = logits.gather(1, self.labels[:, None]).squeeze(1)
        return label - logits.scatter(1, self.labels[:, None], float("-inf")).logsumexp(1)

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
        return self.example_mean(self.log_probs.amax(-1).exp())

    @property
    def modified_entropy(self) -> torch.Tensor:
        """−(1 − p_y) log p_y − Σ_{i≠y} p_i log(1 − p_i), `(size,)` (Song and Mittal 2021; mean over supervised
        tokens): 0 where the model is sure and right, large where it is sure and wrong."""
        log_probs, label = self.log_probs, self.labels[:, None]
        top = log_probs.argmax(-1, keepdim=True)
        probs = log_probs.exp()
        own, highest = probs.gather(1, label), probs.gather(1, top)
        others = probs.scatter(1, torch.cat([label, top], 1), 0.0)
        # log(1 − p) by log1p is exact but for a p near 1, which only the most likely class can have.
        rest = others.sum(-1, keepdim=True) + torch.where(top == label, 0.0, own)
        log_rest = _log_rest(log_probs, top, rest)
        wrong = torch.where(top == label, 0.0, highest * log_rest)
        doubt = torch.where(top == label, rest, 1 - own)
        terms = doubt * log_probs.gather(1, label) + wrong
        return self.example_mean(-terms.squeeze(1) - (others * torch.log1p(-others)).sum(-1))

    @property
    def token_log_prob(self) -> torch.Tensor:
        """Log-probability of the label of each row of logits, `(rows,)`, in nats."""
        return self.log_probs.gather(1, self.labels[:, None]).squeeze(1)

    @property
    def token_is_argmax(self) -> torch.Tensor:
        """Whether the label of each row of logits is the most likely class, `(rows,)`, 1 or 0."""
        return (self.logits.argmax(-1) == self.labels).to(self._wide().dtype)

    @property
    def token_mean_log_prob(self) -> torch.Tensor:
        """E[log p(z)] for z drawn from each row's softmax, `(rows,)`: minus its entropy."""
        log_probs = self.log_probs
        return (log_probs.exp() * log_probs).sum(-1)

    @property
    def token_sd_log_prob(self) -> torch.Tensor:
        """Standard deviation of log p(z) for z drawn from each row's softmax, `(rows,)`."""
        away = self.log_probs - self.token_mean_log_prob[:, None]
        return (self.log_probs.exp() * away.square()).sum(-1).sqrt()

    @property
    def token_count(self) -> torch.Tensor:
        """Supervised tokens of each example, `(size,)`; 1 for classifiers."""
        if self.example is None:
            return torch.ones_like(self.labels)
        return torch.bincount(self.example, minlength=self.size)

    @property
    def label(self) -> torch.Tensor:
        """Class of each example, `(size,)`; -1 for causal LMs, whose examples have none."""
        return self.labels if self.example is None else self.labels.new_full((self.size,), -1)

    @property
    def log_probs(self) -> torch.Tensor:
        """Log-softmax of the logits `(rows, classes)`; kept for the next figure unless gradients are wanted."""
        if self._log_probs is not None:
            return self._log_probs
        log_probs = F.log_softmax(self._wide(), dim=-1)
        if not torch.is_grad_enabled():
            self._log_probs = log_probs
        return log_probs

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


def _log_rest(log_probs: torch.Tensor, top: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """log(1 − p) of the most likely class, `(rows, 1)`, also where the others' probabilities, `rest`, underflow."""
    result = rest.log()
    faint = (rest < 1e-30).squeeze(1)
    if faint.any():
        others = log_probs[faint].scatter(1, top[faint], float("-inf"))
        result[faint] = others.logsumexp(1, keepdim=True)
    return result
