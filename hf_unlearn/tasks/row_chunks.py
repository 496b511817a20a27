"""Figures of each row of logits, a few rows at a time: a vocabulary's logits are never copied as a whole."""

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

CHUNK = 2**22  # logits in a chunk: 16 MiB in float32, 85 rows of a vocabulary of 49,152

HELD = 8  # copies of its part of the logits that a figure may hold while it is computed

RowFigure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def wide_type(logits: torch.Tensor) -> torch.dtype:
    """float64 for float64 logits, else float32: half precision is too coarse for losses and membership scores."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def rows_at_once(logits: torch.Tensor, copies: int = 1) -> int:
    """Rows of `(rows, classes)` logits of which so many copies make a chunk."""
    return max(1, CHUNK // max(1, copies * logits.shape[1]))


def by_rows(figure: RowFigure, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`figure(log_probs, labels)` of every row, `(rows, …)`, computed chunk by chunk.

    Where gradients are wanted, a chunk is computed a second time in the backward pass instead of being kept.

    Args:
        figure: of `(n, classes)` log-probabilities, in at least float32, and `(n,)` labels: `(n, …)`. A row's must not
            depend on the other rows.
        logits: `(rows, classes)`.
        labels: `(rows,)`.
    """
    size = rows_at_once(logits, HELD)
    graph = torch.is_grad_enabled() and logits.requires_grad

    def of_chunk(part: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return figure(part.to(wide_type(part)).log_softmax(1), label)

    parts = zip(logits.split(size), labels.split(size), strict=True)
    if not graph:
        return torch.cat([of_chunk(*part) for part in parts])
    return torch.cat([checkpoint(of_chunk, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])


class _LogOdds(torch.autograd.Function):
    """φ of a label of each row: ∂φ/∂z_label = 1, and ∂φ/∂z_k = −exp(z_k) / Σ_{j≠label} exp(z_j) for the others."""

    @staticmethod
    def forward(ctx, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        size = rows_at_once(logits)
        parts = zip(logits.split(size), labels.split(size), strict=True)
        rest = torch.cat([_others(part, label).logsumexp(1) for part, label in parts])
        ctx.save_for_backward(logits, labels, rest)
        return logits.gather(1, labels[:, None]).squeeze(1).to(rest.dtype) - rest

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor):
        logits, labels, rest = ctx.saved_tensors
        result, size = torch.empty_like(logits), rows_at_once(logits)
        parts = (values.split(size) for values in (logits, labels, rest, gradient, result))
        for part, label, total, slope, out in zip(*parts, strict=True):
            share = _others(part, label).sub_(total[:, None]).exp_().mul_(-slope[:, None])
            out.copy_(share.scatter_(1, label[:, None], slope[:, None]))
        return result, None


def _others(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A widened copy of the logits with −∞ in the labels' places."""
    return logits.to(wide_type(logits), copy=True).scatter_(1, labels[:, None], float("-inf"))


def log_odds(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """log(p / (1 − p)) of one label of each row, `(rows,)`: its logit minus the log-sum-exp of the others.

    Exact where p or 1 − p underflows. Forward and backward copy one chunk of the logits; the gradient is as large as
    the logits and of their type.

    Args:
        logits: `(rows, classes)`.
        labels: `(rows,)`.
    """
    return _LogOdds.apply(logits, labels)
