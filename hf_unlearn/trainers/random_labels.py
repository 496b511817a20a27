"""Wrong labels for forget rows: drawn as a pure function of (seed, epoch, row), or all of them at once."""

import numpy as np
import torch

from hf_unlearn.trainers.random_streams import Stream, random_numbers
from hf_unlearn.trainers.split_output import SplitOutput


def draws(output: SplitOutput, seed: int, epoch: int) -> torch.Tensor:
    """A uniform number in [0, 1) for every label, `(rows,)` float64: a pure function of (seed, epoch, row).

    What is drawn for a row depends neither on the batch it comes in nor on the process.
    """
    parts = [
        random_numbers(seed, Stream.WRONG_LABELS, epoch, row).random(count)
        for row, count in zip(output.rows, output.predictions.counts, strict=True)
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


def soft_losses(output: SplitOutput) -> torch.Tensor:
    """Cross-entropy against π(· | x, y′ ≠ y), `(rows,)`: what labels drawn from it would give on average."""
    return output.predictions.by_rows(_soft_loss)


def _soft_loss(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    wrong = wrong_shares(log_probs, labels)
    return -torch.where(wrong > 0, wrong * log_probs, 0.0).sum(1)


def wrong_shares(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """π(· | x, y′ ≠ y), `(rows, classes)`: the model's softmax without the true label, without gradient."""
    return log_probs.detach().scatter(1, labels[:, None], float("-inf")).softmax(1)
