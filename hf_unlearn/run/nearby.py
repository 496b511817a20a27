"""Near duplicates of the rows that must be forgotten, found by the original model's own embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from hf_unlearn.data.build import SplitReport, move_to_forget
from hf_unlearn.data.duplicates import near_duplicates, repeating
from hf_unlearn.data.request import check_kept_classes
from hf_unlearn.data.rows import Rows
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.evaluation.embeddings import embeddings
from hf_unlearn.tasks.base import Task
from hf_unlearn.trainers.first_process import from_first_process

UNSEEN = {
    "validation_tau": "validation rows",
    "validation_stop": "validation rows",
    "test": "test rows",
    "unseen_forgotten": "test rows of removed classes",
}
HELD_OUT = "a row of the request that was held out"
REPEAT = (" repeats or nearly repeats", "s repeat or nearly repeat")  # of one row, and of several


@dataclass
class _Found:
    """Places, sorted, among the retained rows of those that nearly repeat a forgotten row, and of others that nearly
    repeat a held-out row of the request; of the unseen rows, how many nearly repeat a forgotten one, and of how many;
    rows that were read."""

    forgotten: np.ndarray
    held_out: np.ndarray
    unseen: dict[str, tuple[int, int]]
    read: int


def handle_near_duplicates(
    splits: UnlearningSplits,
    report: SplitReport,
    task: Task,
    model: torch.nn.Module,
    *,
    move: bool,
    held_out: Sequence[Rows] = (),
    batch_size: int = 64,
) -> tuple[UnlearningSplits, SplitReport, int]:
    """Count the retained rows that nearly repeat a row of the request, and forget them too if `move`.

    Rows of the request that were held out (`held_out`) need no forgetting, but a retained row that nearly repeats one
    of them was trained on. Of the unseen rows those are counted that nearly repeat a forgotten one: figures that call
    them unseen are wrong about them. Validation rows say how similar unrelated rows are. With several processes all
    use what the first one found.

    Returns the splits, the report and how many rows were read. Raises `UserError` if a class would be left without a
    row.
    """
    here = _find(splits, task, model, held_out, batch_size)  # by all: the model may be spread over processes
    found = from_first_process(lambda: here)  # who round differently must not disagree on which rows are forgotten
    places = np.union1d(found.forgotten, found.held_out)
    done = "forgotten too (--forget_duplicates)" if move else "pass --forget_duplicates to move them"
    notes = list(report.notes)
    for count, of in ((len(found.forgotten), "a forgotten row"), (len(found.held_out), HELD_OUT)):
        if count:
            notes.append(f"{count} retained row{REPEAT[count > 1]} {of}: {done}")
    notes += [
        f"{count} of {total} {name} repeat or nearly repeat a forgotten row, so they may not count as unseen"
        for name, (count, total) in found.unseen.items()
        if count
    ]
    counts = {"near_duplicates": len(places), "moved_near_duplicates": len(places) if move else 0}
    if move and len(places):
        splits = move_to_forget(splits, places)
        if label := task.columns.get("label"):
            train, forgotten = splits.forget.source, np.array(splits.forget.indices)
            check_kept_classes(train, label, forgotten, splits.forgotten_classes)
        counts |= splits.sizes()
    return splits, replace(report, notes=notes, counts=report.counts | counts), found.read


def _find(
    splits: UnlearningSplits, task: Task, model: torch.nn.Module, held_out: Sequence[Rows], batch_size: int
) -> _Found:
    roles = {name: rows for name in ("forget", "retain", *UNSEEN) if (rows := getattr(splits, name))}
    lie = {name: embeddings(model, task, rows, batch_size) for name, rows in roles.items()}
    named = [embeddings(model, task, rows, batch_size) for rows in held_out if len(rows)]
    unrelated = np.concatenate([lie["validation_tau"], lie["validation_stop"]])
    near = near_duplicates(lie["forget"], lie["retain"], unrelated)
    others = repeating(lie["retain"], np.concatenate(named), near.threshold) if named else near.positions
    found = _Found(near.positions, np.setdiff1d(others, near.positions), {}, sum(map(len, [*lie.values(), *named])))
    for role, name in UNSEEN.items():
        if role in lie:
            count, total = found.unseen.get(name, (0, 0))
            repeats = len(repeating(lie[role], lie["forget"], near.threshold))
            found.unseen[name] = (count + repeats, total + len(lie[role]))
    return found
