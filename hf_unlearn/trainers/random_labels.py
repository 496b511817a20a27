"""Wrong labels for forget rows, decided by numbers that are a pure function of (seed, epoch, row)."""

import numpy as np
import torch

from hf_unlearn.trainers.split_output import SplitOutput

_KEY = 3  # keeps these draws apart from those of the sampler, which uses the same seed


def draws(output: SplitOutput, seed: int, epoch: int) -> torch.Tensor:
    """A uniform number in [0, 1) for every label, `(rows,)` float64: a pure function of (seed, epoch, row).

    What is drawn for a row depends neither on the batch it comes in nor on the process.
    """
    example = output.predictions.example
    counts = np.ones(len(output), dtype=int) if example is None else np.bincount(example.cpu(), minlength=len(output))
    parts = [
        np.random.default_rng([seed, _KEY, epoch, row]).random(count)
        for row, count in zip(output.index.tolist(), counts, strict=True)
    ]
    return torch.as_tensor(np.concatenate(parts) if parts else np.zeros(0), device=output.labels.device)


def uniform_labels(output: SplitOutput, uniform: torch.Tensor, allow_true_label: bool = False) -> torch.Tensor:
    """Any label but the true one, each as likely as the other: `(rows,)`, like `output.labels`.

    Args:
        uniform (`torch.Tensor`): `(rows,)`, numbers in [0, 1) that decide.
        allow_true_label: draw from all labels, the true one included, as the authors' released code does.
    """
    classes, labels = output.logits.shape[1], output.labels
    if allow_true_label:
        return (uniform * classes).long()
    other = (uniform * (classes - 1)).long()
    return other + (other >= labels)  # steps over the true label


def likely_labels(output: SplitOutput, uniform: torch.Tensor) -> torch.Tensor:
    """A label drawn from what the model itself gives the wrong ones, π(y′ | x, y′ ≠ y): `(rows,)`."""
    shares = wrong_shares(output).double().cumsum(1)
    total = shares[:, -1]
    below = torch.nextafter(total, torch.zeros_like(total))  # rounding must not reach past the last share
    place = torch.minimum(uniform.to(shares) * total, below)[:, None]
    return torch.searchsorted(shares, place, right=True).squeeze(1)


def wrong_shares(output: SplitOutput) -> torch.Tensor:
    """π(· | x, y′ ≠ y), `(rows, classes)`: the model's softmax without the true label, without gradient."""
    logits = output.logits.detach().float()
    return logits.scatter(1, output.labels[:, None], float("-inf")).softmax(1)
