"""Near duplicates of the forgotten rows, found by the original model's own embeddings."""

from dataclasses import replace

import numpy as np
import torch

from hf_unlearn.data.build import SplitReport, move_to_forget
from hf_unlearn.data.duplicates import near_duplicates
from hf_unlearn.data.request import check_kept_classes
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.evaluation.embeddings import embeddings
from hf_unlearn.tasks.base import Task


def handle_near_duplicates(
    splits: UnlearningSplits,
    report: SplitReport,
    task: Task,
    model: torch.nn.Module,
    *,
    move: bool,
    batch_size: int = 64,
) -> tuple[UnlearningSplits, SplitReport]:
    """Count the retained rows that nearly repeat a forgotten one, and forget them too if `move`.

    Validation rows say how similar unrelated rows are; test rows are not read. With several processes all use what the
    first one found. Raises `UserError` if a class would be left without a row.
    """
    roles = (splits.forget, splits.retain, splits.validation_tau, splits.validation_stop)
    forget, retain, *validation = (embeddings(model, task, rows, batch_size) for rows in roles)
    places = _from_first_process(near_duplicates(forget, retain, np.concatenate(validation)).positions)
    counts = {"near_duplicates": len(places), "moved_near_duplicates": len(places) if move else 0}
    notes = list(report.notes)
    if len(places):
        who = "1 retained row repeats or nearly repeats"
        if len(places) > 1:
            who = f"{len(places)} retained rows repeat or nearly repeat"
        done = "forgotten too (--forget_duplicates)" if move else "pass --forget_duplicates to move them"
        notes.append(f"{who} a forgotten row: {done}")
    if move and len(places):
        splits = move_to_forget(splits, places)
        if label := task.columns.get("label"):
            train, forgotten = splits.forget.source, np.array(splits.forget.indices)
            check_kept_classes(train, label, forgotten, splits.forgotten_classes)
        counts |= splits.sizes()
    return splits, replace(report, notes=notes, counts=report.counts | counts)


def _from_first_process(positions: np.ndarray) -> np.ndarray:
    """Processes may round differently, and must not disagree on which rows are forgotten."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return positions
    shared = [positions]
    torch.distributed.broadcast_object_list(shared)
    return shared[0]
