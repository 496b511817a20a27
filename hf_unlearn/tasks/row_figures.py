"""What a row of logits says beside its label's log-odds.

Each figure takes `(n, classes)` log-probabilities and `(n,)` labels and gives `(n,)`.
"""

import torch

UNCERTAINTY = ("confidence", "mean_log_prob", "modified_entropy")


def confidence(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Probability of the most likely class."""
    return log_probs.amax(1).exp()


def mean_log_prob(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """E[log p(z)] for z drawn from the softmax."""
    return (log_probs.exp() * log_probs).sum(1)


def sd_log_prob(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Standard deviation of log p(z) for z drawn from the softmax."""
    away = log_probs - mean_log_prob(log_probs, labels)[:, None]
    return (log_probs.exp() * away.square()).sum(1).sqrt()


def modified_entropy(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """−(1 − p_y) log p_y − Σ_{i≠y} p_i log(1 − p_i) (Song and Mittal 2021)."""
    label, top = labels[:, None], log_probs.argmax(1, keepdim=True)
    probs = log_probs.exp()
    own, highest = probs.gather(1, label), probs.gather(1, top)
    others = probs.scatter(1, torch.cat([label, top], 1), 0.0)
    # log(1 − p) by log1p is exact but for a p near 1, which only the most likely class can have.
    rest = others.sum(1, keepdim=True) + torch.where(top == label, 0.0, own)
    log_rest = _log_rest(log_probs, top, rest)
    wrong = torch.where(top == label, 0.0, highest * log_rest)
    doubt = torch.where(top == label, rest, 1 - own)
    terms = doubt * log_probs.gather(1, label) + wrong
    return -terms.squeeze(1) - (others * torch.log1p(-others)).sum(1)


def uncertainty(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The figures named in `UNCERTAINTY`, `(n, 3)`, for a pass that asks for all of them."""
    figures = (confidence, mean_log_prob, modified_entropy)
    return torch.stack([figure(log_probs, labels) for figure in figures], 1)


def _log_rest(log_probs: torch.Tensor, top: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """log(1 − p) of the most likely class, `(n, 1)`, also where the others' probabilities, `rest`, underflow."""
    result = rest.log()
    faint = (rest < 1e-30).squeeze(1)
    if faint.any():
        others = log_probs[faint].scatter(1, top[faint], float("-inf"))
        result[faint] = others.logsumexp(1, keepdim=True)
    return result
