"""Logits of a whole split from one pass of a classifier, kept in the place of a second model."""

import torch

from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers.split_output import SplitOutput


def logits_by_row(predictions: Predictions) -> torch.Tensor:
    """`(size, classes)`; of rows with sets of labels `(size, labels · 2)`, those of a row side by side."""
    return predictions.logits.reshape(predictions.size, -1)


def kept_logits(output: SplitOutput, kept: torch.Tensor) -> torch.Tensor:
    """The rows of `kept`, which [`logits_by_row`] gave for a whole split, in the shape of `output.logits`."""
    return output.own(kept, output.logits).reshape(output.logits.shape)
