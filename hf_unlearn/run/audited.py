"""The rows of an audit: those that a model may remember, and unseen ones beside them. No request is needed."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from hf_unlearn.data.build import LABEL_ROLES
from hf_unlearn.data.content import row_digests
from hf_unlearn.data.prepare import encoded
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.data.rows import Rows
from hf_unlearn.data.sources import Source, load_files
from hf_unlearn.errors import RowError, UserError
from hf_unlearn.progress import say
from hf_unlearn.run.arguments import REQUESTS, Arguments
from hf_unlearn.run.loading import load_label2id, load_model
from hf_unlearn.run.rows import load_raw, load_rows, make_task_of
from hf_unlearn.run.which_task import which_task
from hf_unlearn.tasks import get_task
from hf_unlearn.tasks.base import Task

BATCH = 256  # rows encoded at a time
OF_THE_CLASSES = "Unseen rows are those of the audited classes."


@dataclass
class AuditedRows:
    """What an audit looks at.

    Args:
        audited: the rows that the model may remember; `audited.indices` are their places in the file.
        unseen: rows that it was not trained on, by their source; may be empty.
        request: what may be public of the request; `None` where all rows are audited.
        notes: a line each, without any row's content.
    """

    source: Source
    task: Task
    model: nn.Module
    audited: Rows
    unseen: list[Rows]
    request: dict[str, Any] | None
    notes: list[str]


def audited_rows(arguments: Arguments, unseen_file: str | None) -> AuditedRows:
    """Load rows and model, and choose the rows: those of the request, or all of them. Raises `UserError`."""
    say("reading the rows")
    source, request = _loaded(arguments)
    task_class = get_task(which_task(arguments, source))
    if unseen_file is not None:
        unseen = load_files(unseen_file).train
        named = {role: column for role, column in arguments.data.columns.items() if isinstance(column, str)}
        task_class.detect_columns(unseen.column_names, unseen.features, named)
        source = replace(source, validation=None, test=unseen)
    label2id = load_label2id(arguments, task_class) if task_class.has_labels() else None
    source, columns, label_names = encoded(source, task_class, arguments.data.columns, label2id)
    label = columns.get("label")
    places = np.arange(len(source.train))
    if request is not None:
        places = request.select(source, label, label_names, some_are_kept=False)
    task = make_task_of(arguments, source, task_class, columns, label_names)
    model = load_model(arguments, task, arguments.model.model_name_or_path or "")
    audited = Rows(source.train, task, places.tolist(), cache=arguments.data.cache_rows)
    _read(audited, source, "train")
    unseen_rows, notes = _unseen(source, task, request, label, label_names)
    task.try_model(model, audited[0])
    public = None if request is None else request.public(label_column=label) | {"rows": len(audited)}
    asked = [*request.notes, *request.also_named(source)] if request else []
    notes = [*source.notes, *asked, *notes]
    return AuditedRows(source, task, model, audited, unseen_rows, public, notes)


def _loaded(arguments: Arguments) -> tuple[Source, ForgetRequest | None]:
    """The raw rows, and the request where there is one."""
    if arguments.request.forget_prompt:
        raise UserError("--forget_prompt asks the model for its rows; an audit takes rows that exist, e.g. a file")
    if any(getattr(arguments.request, name) for name in REQUESTS):
        return load_rows(arguments)
    return load_raw(arguments)[0], None


def _unseen(
    source: Source, task: Task, request: ForgetRequest | None, label: str | None, names: list[str] | None
) -> tuple[list[Rows], list[str]]:
    """Validation and test rows, of removed classes those of these classes, without copies of training rows."""
    held_out, notes = {"validation": source.validation, "test": source.test}, []
    columns = [column for role, column in sorted(task.columns.items()) if role not in LABEL_ROLES]
    of_classes = request is not None and request.kind == "classes" and label is not None and names is not None
    if of_classes:
        notes.append(OF_THE_CLASSES)
    seen = set(row_digests(source.train, columns)) if any(rows is not None for rows in held_out.values()) else set()
    found, copies = [], 0
    for split, data in held_out.items():
        if data is None or not len(data):
            continue
        keep = np.array([digest not in seen for digest in row_digests(data, columns)])
        copies += int((~keep).sum())
        if of_classes:
            keep &= request.names(source, split, label, names)  # type: ignore[union-attr]
        rows = Rows(data, task, np.flatnonzero(keep).tolist())
        _read(rows, source, split)
        found.append(rows)
    if copies:
        notes.append(f"{copies:,} unseen rows repeat training rows; they were left out.")
    return [rows for rows in found if len(rows)], notes


def _read(rows: Rows, source: Source, split: str) -> None:
    """Read every row once. Raises `RowError` with the place in its file for the first that cannot be used."""
    try:
        for start in range(0, len(rows), BATCH):
            rows.__getitems__(range(start, min(start + BATCH, len(rows))))
    except RowError as error:
        raise source.row_error(split, error.position, error.reason) from error
