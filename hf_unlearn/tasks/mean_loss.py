"""From the log-odds of tokens to those of the example they make, without losing the sure ones to rounding."""

import math

import torch
import torch.nn.functional as F

SURE = 30.0  # log-odds from which log(−log p) is a series; −log p itself underflows later
SMALL = math.log(1e-3)  # log of a mean loss below which expm1 is a series


def losses(log_odds: torch.Tensor) -> torch.Tensor:
    """−log p = softplus(−φ), in nats, of the same shape."""
    return -F.logsigmoid(log_odds)


def log_odds_of_mean(log_odds: torch.Tensor, example: torch.Tensor, size: int) -> torch.Tensor:
    """φ = −log(expm1(m)) of each example, `(size,)`, with m the mean of its tokens' losses.

    e^−m is the geometric mean of the tokens' probabilities, and φ its log-odds. m is kept as log m: a token whose
    logit leads by 300 has a loss of e^−300, which float32 cannot hold, and still its share of the gradient.

    Args:
        log_odds: `(tokens,)`.
        example: `(tokens,)`, in `0 … size − 1`.
        size: number of examples.
    """
    values = _log_losses(log_odds)
    highest = values.detach().new_full((size,), float("-inf"))
    highest = highest.scatter_reduce(0, example, values.detach(), "amax")
    zeros = values.new_zeros(size)
    counts = zeros.index_add(0, example, torch.ones_like(values)).clamp(min=1)
    total = zeros.index_add(0, example, (values - highest[example]).exp())
    log_mean = highest + (total / counts).log()  # (size,)
    small = log_mean.clamp(max=SMALL).exp()
    large = log_mean.clamp(min=SMALL).exp()
    series = log_mean + small / 2 + small.square() / 24  # log expm1(m), to a relative m⁴/2880
    return -torch.where(log_mean < SMALL, series, large + torch.log(-torch.expm1(-large)))


def _log_losses(log_odds: torch.Tensor) -> torch.Tensor:
    """log(−log p) of each token. Each branch sees values at which it is finite, or its gradient would be lost."""
    faint = -log_odds - log_odds.clamp(min=SURE).neg().exp() / 2
    return torch.where(log_odds > SURE, faint, losses(log_odds.clamp(max=SURE)).log())
