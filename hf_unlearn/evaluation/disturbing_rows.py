"""Which rows a model is fine-tuned on when it is tried on what it forgot, and which it is measured on."""

import copy
from dataclasses import dataclass

import numpy as np
from torch import nn

from hf_unlearn.data.rows import Rows
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.evaluation.embeddings import embeddings
from hf_unlearn.tasks.base import Task

FEW_SHARE, FEW_MOST = 0.1, 32  # a few forget rows: this share of them, but no more than so many
RELATED = 4  # times as many related retain rows
UNRELATED_SHARE = 0.25  # of the kept rows that are looked at, at most: the farthest
COMPARED = 512  # forget rows that retain rows are compared with, at most
LOOKED_AT = 4096  # retain rows that are compared, at most
MEASURED = 256  # rows of a kind that every figure is measured on, at most
PARAPHRASES = "paraphrased_question"
UNTOUCHED, KEPT, UNRELATED = "untouched", "kept_rows", "unrelated_rows"
FEW, RELATED_ROWS, REWORDED = "few_forgotten_rows", "related_rows", "paraphrases"
FEW_ROWS = "Relearning from a few forgotten rows: with fewer than two there are none to measure on."


@dataclass
class DisturbingRows:
    """Rows by their part.

    Args:
        tuned_on: what models are fine-tuned on, by kind; the kinds that the data has.
        measured: forgotten rows that all figures are measured on, none of them among the few.
        unseen: rows of the kind that is forgotten that no model has seen; may be empty.
        test: test rows, where the unseen ones are of removed classes; `None` where they are the same.
        validation: unseen rows that the rate is chosen on.
    """

    tuned_on: dict[str, Rows]
    measured: Rows
    unseen: Rows
    test: Rows | None
    validation: Rows

    def sizes(self) -> dict[str, int]:
        """Rows of each part."""
        parts = self.tuned_on | {"measured": self.measured, "unseen": self.unseen, "validation": self.validation}
        return {name: len(rows) for name, rows in parts.items()}


def choose_rows(
    model: nn.Module, task: Task, splits: UnlearningSplits, *, most: int, seed: int, batch_size: int = 64
) -> DisturbingRows:
    """Rows of every part; samples are drawn with `seed`.

    Args:
        model: whose embeddings say which retain rows are related and which are not: the original.
        most: rows that one fine-tuning reads; kept and unrelated ones are no more than these.
    """
    tuned_on = {KEPT: sampled(splits.retain, most, seed)}
    near, far = near_and_far_rows(model, task, splits, most=most, seed=seed, batch_size=batch_size)
    tuned_on[UNRELATED] = far
    measured = splits.forget
    if len(splits.forget) >= 2:
        tuned_on[FEW], measured = few_rows(splits.forget, seed)
    tuned_on[RELATED_ROWS] = near
    reworded = paraphrased_rows(task, tuned_on[FEW]) if FEW in tuned_on else None
    if reworded is not None:
        tuned_on[REWORDED] = reworded
    removed = splits.unseen_forgotten is not None
    return DisturbingRows(
        tuned_on,
        sampled(measured, MEASURED, seed),
        sampled(splits.nonmembers, MEASURED, seed),
        sampled(splits.test, MEASURED, seed) if removed else None,
        sampled(splits.validation, 2 * MEASURED, seed),
    )


def sampled(rows: Rows, most: int, seed: int) -> Rows:
    """At most so many of the rows, in their order."""
    if len(rows) <= most:
        return rows
    return rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:most]))


def few_rows(forget: Rows, seed: int) -> tuple[Rows, Rows]:
    """A few of the forget rows, and the others."""
    order = np.random.default_rng(seed).permutation(len(forget))
    count = _few(len(forget))
    return forget.select(np.sort(order[:count])), forget.select(np.sort(order[count:]))


def near_and_far_rows(
    model: nn.Module, task: Task, splits: UnlearningSplits, *, most: int, seed: int = 0, batch_size: int = 64
) -> tuple[Rows, Rows]:
    """The retain rows nearest to a forget row by cosine in the model's embeddings, and those farthest from all of
    them: four times as many as the few forget rows, and at most a quarter of the rows looked at and `most`."""
    step = -(-len(splits.forget) // COMPARED)
    forget = embeddings(model, task, splits.forget.select(range(0, len(splits.forget), step)), batch_size)
    looked_at = sampled(splits.retain, LOOKED_AT, seed)
    retain = embeddings(model, task, looked_at, batch_size)
    forget, retain = (e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-12) for e in (forget, retain))
    order = np.argsort(-(retain @ forget.T).max(axis=1), kind="stable")
    few = RELATED * _few(len(splits.forget))
    farthest = min(max(1, int(UNRELATED_SHARE * len(order))), most)
    return looked_at.select(np.sort(order[:few])), looked_at.select(np.sort(order[-farthest:]))


def paraphrased_rows(task: Task, forget: Rows) -> Rows | None:
    """The forget rows with their questions in other words; `None` where the data has no `paraphrased_question`."""
    if "question" not in task.columns or PARAPHRASES not in forget.source.column_names:
        return None
    other = copy.copy(task)
    other.columns = task.columns | {"question": PARAPHRASES}
    return Rows(forget.source, other, forget.indices)


def _few(rows: int) -> int:
    return max(1, min(FEW_MOST, round(FEW_SHARE * rows)))
