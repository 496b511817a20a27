"""The one preparation: loaded rows and a request become roles. The order matters, see [`hf_unlearn.data.build`]."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from hf_unlearn.data.build import SplitReport, build_splits, complete_source, first_rows
from hf_unlearn.data.content import forget_digest, key_name, rows_digest
from hf_unlearn.data.label_sets import encode_label_sets, join_label_columns
from hf_unlearn.data.labels import encode_labels
from hf_unlearn.data.overlap import check_unseen
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.data.rows import Rows
from hf_unlearn.data.sources import Source
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.errors import UserError
from hf_unlearn.report.blocks import Data, Division, Request, Splits
from hf_unlearn.tasks.base import Task


@dataclass
class Prepared:
    """Rows in their roles, and what is known about them.

    Args:
        split_seed: decided which rows are held out; see [`complete_source`].
        digest: HMAC of the forgotten rows; `None` until [`measure_digest`] is called, which makes the user's key.
    """

    source: Source
    task: Task
    splits: UnlearningSplits
    report: SplitReport
    request: ForgetRequest
    split_seed: int
    digest: str | None = None

    def measure_digest(self) -> None:
        """Fill in `digest` for the rows that are forgotten as things stand."""
        self.digest = forget_digest(self.source.train, np.asarray(self.splits.forget.indices), self._columns)

    def held_out(self) -> list[Rows]:
        """Validation and test rows that the request names too; no model has seen them."""
        task = self.task
        found = self.request.held_out(self.source, task.columns.get("label"), task.label_names)
        return [Rows(rows, task, cache=False) for rows in found]

    def describe(self, *, publish: bool = False) -> Data:
        """The evidence block `data`; the request's classes are named only with `publish`. Makes the user's key."""
        request = self.request.public(publish=publish, label_column=self.task.columns.get("label"))
        return {
            "source": self.source.name,
            "splits": cast(Splits, self.report.counts),
            "request": cast(Request, request | {"rows": len(self.splits.forget)}),
            "forget_digest": self.digest,
            "division": self.division(),
        }

    def division(self) -> Division:
        """The block `data.division`: how the held-out rows were found, and a keyed digest of them."""
        digest = rows_digest([self.source.validation, self.source.test], self._columns)
        return {"seed": self.split_seed, "digest": digest, "key": key_name()}

    @property
    def _columns(self) -> list[str]:
        return list(self.task.columns.values())


def prepare(
    source: Source,
    request: ForgetRequest,
    task_class: type[Task],
    *,
    make_task: Callable[[dict[str, str], list[str] | None], Task],
    settle_model: Callable[[Task], None],
    trains_original: bool,
    seed: int,
    split_seed: int,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    label2id: dict[str, int] | None = None,
    forget_duplicates: bool = False,
    cache_rows: bool = True,
    max_train_rows: int | None = None,
) -> Prepared:
    """Resolve the request and give every row its role. Nothing is written.

    Args:
        source: as it was loaded.
        make_task: from the roles of the columns and the names of the classes.
        settle_model: calls `task.prepare_model` on the model, which it may load for that: the model settles how rows
            are encoded (padding, longest input), so it comes before they are.
        trains_original: whether this run trains the original; only then may training rows be held out.
        seed: of the run; halves the validation rows.
        split_seed: decides which rows are held out. Not the run's: one original serves every request and every seed.
        columns: roles that the user names; for sets of labels `label` may be several columns of zeros and ones.
        label2id: classes of a model that is already trained.
        max_train_rows: for a trial: the original is trained on so many of the training rows.
        forget_duplicates, cache_rows: as for [`build_splits`].

    Raises `UserError` for whatever does not fit together.
    """
    source, chosen, label_names = encoded(source, task_class, columns or {}, label2id)
    label = chosen.get("label")
    named: dict[str, Any] = {"label_column": label, "group_column": request.group_column or source.group_column}
    trial: list[str] = []
    if max_train_rows is not None:
        source, trial = first_rows(source, max_train_rows, split_seed, label)
    source, notes = complete_source(source, trains_original=trains_original, seed=split_seed, **named)
    forget = request.select(source, label, label_names)
    task = make_task(chosen, label_names)
    settle_model(task)
    splits, report = build_splits(
        source,
        task,
        forget,
        request_kind=request.kind,
        seed=seed,
        forget_duplicates=forget_duplicates,
        cache_rows=cache_rows,
        **named,
    )
    told = [*request.notes, *request.also_named(source), *check_unseen(source, list(chosen.values()))]
    report.notes[:0] = [*source.notes, *trial, *notes, *told]
    return Prepared(source, task, splits, report, request, split_seed)


def encoded(
    source: Source,
    task_class: type[Task],
    columns: Mapping[str, str | Sequence[str]],
    label2id: dict[str, int] | None,
) -> tuple[Source, dict[str, str], list[str] | None]:
    """The source with ids for labels, the role each column plays, and the labels' names."""
    source, named = _with_one_label_column(source, task_class, columns)
    chosen = source.columns and {role: column for role, column in source.columns.items() if role in task_class.roles}
    if named or chosen is None:
        chosen = task_class.detect_columns(source.train.column_names, source.train.features, named)
    _check_in_every_split(source, chosen)
    if not task_class.has_labels():
        return source, chosen, None
    encode = encode_label_sets if task_class.has_label_sets else encode_labels
    source, names = encode(source, chosen["label"], label2id)
    return source, chosen, names


def _check_in_every_split(source: Source, chosen: dict[str, str]) -> None:
    """Raises `UserError` for validation or test rows that lack a column which the training rows are read by. (Labels
    are looked for where they are encoded.)"""
    for split, rows in source.splits().items():
        for role, column in chosen.items():
            if role != "label" and column in source.train.column_names and column not in rows.column_names:
                raise UserError(
                    f"the {split} rows have no column '{column}', which the training rows have for {role}; theirs are "
                    f"{', '.join(rows.column_names)}: name it alike in all"
                )


def _with_one_label_column(
    source: Source, task_class: type[Task], columns: Mapping[str, str | Sequence[str]]
) -> tuple[Source, dict[str, str]]:
    """The source, in which several columns of labels are one, and the roles that the user names."""
    named = {role: column for role, column in columns.items() if isinstance(column, str)}
    several = {role: list(column) for role, column in columns.items() if column and not isinstance(column, str)}
    if not several:
        return source, named
    if list(several) != ["label"] or not task_class.has_label_sets:
        raise UserError(
            f"`label_columns` are for tasks with sets of labels; {task_class.name} takes one column a role"
        )
    source, named["label"] = join_label_columns(source, several["label"])
    return source, named
