"""Where rows lie in a model's own representation."""

import numpy as np
import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.evaluation.row_order import back_in_order, longest_first
from hf_unlearn.tasks.base import Task


@torch.no_grad()
def embeddings(model: torch.nn.Module, task: Task, rows: Rows, batch_size: int = 64) -> np.ndarray:
    """Mean last hidden state of each row, `(rows, dim)` float64, in row order. The model's mode is left as it was.

    Texts run longest first, those of like length together. Not divided over processes: each computes all rows.
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()
    parts = []
    order = longest_first(rows, list(range(len(rows))))
    for start in range(0, len(rows), batch_size):
        batch = task.collate(rows.__getitems__(order[start : start + batch_size]))
        batch = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
        parts.append(task.embed(model, batch).cpu().double().numpy())
    model.train(training)
    return back_in_order(np.concatenate(parts), order)
