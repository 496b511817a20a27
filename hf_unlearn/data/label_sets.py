"""Sets of labels of any form (lists of ids, of names, of zeros and ones; columns of zeros and ones) to lists of the
ids that a model uses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_unlearn.data.columns import arrow_column, require_column
from hf_unlearn.data.labels import MISSING, told_if_guessed, translate, with_column
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError
from hf_unlearn.tasks.label_sets import is_label_set

JOINED = "labels"  # the column that columns of zeros and ones become


@dataclass
class _Lists:
    """One split's lists, flat.

    Args:
        length: `(rows,)`, how many values each row has.
        owner: `(values,)`, the row of each value.
        values: `(values,)`.
        names: of a `ClassLabel`, whose ids the values are.
    """

    length: np.ndarray
    owner: np.ndarray
    values: pa.Array
    names: list[str] | None

    @property
    def rows(self) -> int:
        return len(self.length)


def encode_label_sets(
    source: Source, label_column: str, model_label2id: dict[str, int] | None = None
) -> tuple[Source, list[str]]:
    """Make the label column a list of `ClassLabel`s whose ids are the model's, the same in all splits.

    A list names a row's labels, by ids or names; lists of one length throughout that hold nothing but zeros and ones
    say of every label whether it is true. An empty list is a row without labels. Ids are found as those of classes
    ([`~hf_unlearn.data.labels.encode_labels`]).

    Returns the new source and the labels' names in the order of the ids.

    Raises `UserError` for a column that holds no lists, and for labels that the model or the training rows do not
    know; `RowError` for a row without a list, or with a gap in it.
    """
    lists = {split: _read(source, split, label_column) for split in source.splits()}
    if _are_vectors(lists.values()):
        lists = {split: _named(part) for split, part in lists.items()}
        _check_count(lists["train"], label_column, model_label2id)
    keys, codes = {}, {}
    for split, part in lists.items():
        keys[split], codes[split] = _keys_and_codes(part, label_column, source, split)
    ordered = lists["train"].names is not None and not _are_numbers(lists["train"].names)
    if not len(codes["train"]):
        raise UserError(f"column '{label_column}' of the training rows holds empty lists alone: no row has a label")
    ids, names = translate(keys, codes, ordered, model_label2id, label_column, "label", "labels")
    encoded = {
        split: _with_sets(rows, label_column, lists[split].rows, lists[split].owner, ids[split], names)
        for split, rows in source.splits().items()
    }
    notes = [*source.notes, *told_if_guessed(keys["train"], ordered, model_label2id)]
    return replace(source, notes=notes, **encoded), names


def join_label_columns(source: Source, columns: Sequence[str]) -> tuple[Source, str]:
    """Put columns of zeros and ones, one for each label, together: a column of lists, whose labels are named as these.

    They stay, for conditions of a request. Returns the source and the new column's name.

    Raises `UserError` for fewer than two columns, one that is named twice or is missing, and values other than 0 and
    1; `RowError` for a row that lacks one.
    """
    if len(columns) < 2 or len(set(columns)) < len(columns):
        raise UserError("`label_columns`: name two columns or more, each once; a label alone is text_classification")
    joined = JOINED
    while joined in source.train.column_names:
        joined += "_"
    parts = {}
    for split, rows in source.splits().items():
        true = np.stack([_truth(source, split, name) for name in columns], 1)  # (rows, labels)
        owner, ids = np.nonzero(true)
        lists = _list_array(len(rows), owner, ids)
        parts[split] = rows.add_column(joined, lists, feature=_feature(list(columns)))
    return replace(source, **parts), joined


def label_matrix(rows, label_column: str) -> np.ndarray:
    """`(rows, labels)` bool of an encoded column: which labels each row has."""
    lists = arrow_column(rows, label_column).combine_chunks()
    matrix = np.zeros((len(rows), len(rows.features[label_column].feature.names)), dtype=bool)
    matrix[np.asarray(pc.list_parent_indices(lists)), np.asarray(pc.list_flatten(lists))] = True
    return matrix


def _read(source: Source, split: str, column: str) -> _Lists:
    rows = source.splits()[split]
    require_column(rows, column, f"labels of the {split} rows")
    feature = rows.features[column]
    if not is_label_set(feature):
        raise UserError(
            f"column '{column}' of the {split} rows holds no lists of labels: give such (csv cannot, jsonl can), "
            "or name columns of zeros and ones with `label_columns`"
        )
    lists = arrow_column(rows, column)
    lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], lists.type)
    length = pc.list_value_length(lists)
    if length.null_count:
        _refuse_row(source, split, int(np.flatnonzero(np.asarray(length.is_null()))[0]))
    owner, values = np.asarray(pc.list_parent_indices(lists)), pc.list_flatten(lists)
    if values.null_count:
        _refuse_row(source, split, int(owner[np.flatnonzero(np.asarray(values.is_null()))[0]]))
    inner = feature[0] if isinstance(feature, list) else feature.feature
    return _Lists(np.asarray(length), owner, values, getattr(inner, "names", None))


def _refuse_row(source: Source, split: str, row: int) -> None:
    raise source.row_error(split, row, "its labels are missing; an empty list says that it has none")


def _are_vectors(parts: Any) -> bool:
    """Whether lists say of every label whether it is true."""
    parts = list(parts)
    lengths = np.unique(np.concatenate([part.length for part in parts]))
    if len(lengths) != 1 or lengths[0] < 2 or any(part.names is not None for part in parts):
        return False
    return all(_are_bits(part.values) for part in parts)


def _are_bits(values: pa.Array | pa.ChunkedArray) -> bool:
    kind = values.type
    if pa.types.is_boolean(kind):
        return True
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return False
    return bool(pc.all(pc.is_in(values, value_set=pa.array([0, 1]).cast(kind))).as_py() in (True, None))


def _named(part: _Lists) -> _Lists:
    """Vectors of zeros and ones as lists of what is true, named by number."""
    count = int(part.length[0]) if part.rows else 0
    true = np.asarray(part.values.cast(pa.int64())).reshape(part.rows, count)
    owner, ids = np.nonzero(true)
    return _Lists(true.sum(1), owner, pa.array(ids), [str(i) for i in range(count)])


def _check_count(part: _Lists, column: str, model_label2id: dict[str, int] | None) -> None:
    known, count = len(model_label2id or {}), len(part.names or [])
    if known and known != count:
        raise UserError(
            f"column '{column}' says {count} labels, and the model has {known}: choose the model's own rows"
        )


def _are_numbers(names: list[str]) -> bool:
    return names == [str(i) for i in range(len(names))]


def _keys_and_codes(part: _Lists, column: str, source: Source, split: str) -> tuple[list[str], np.ndarray]:
    """The labels as strings, and each value's place among them: `(values,)` int64."""
    values, kind = part.values, part.values.type
    if part.names is not None:
        codes = np.asarray(values.cast(pa.int64()))
        if (outside := np.flatnonzero((codes < 0) | (codes >= len(part.names)))).size:
            _refuse_row(source, split, int(part.owner[outside[0]]))
        return list(part.names), codes
    if pa.types.is_floating(kind) and pc.all(pc.equal(pc.floor(values), values)).as_py() in (True, None):
        values, kind = values.cast(pa.int64()), pa.int64()
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (pa.types.is_integer(kind) or is_text or pa.types.is_null(kind)):
        raise UserError(f"column '{column}' of the {split} rows holds lists of {kind}: ids or names are needed")
    if is_text:
        blank = np.flatnonzero(np.asarray(pc.is_in(values, value_set=pa.array(MISSING, kind))))
        if blank.size:
            _refuse_row(source, split, int(part.owner[blank[0]]))
    distinct = pc.unique(values)
    codes = np.asarray(pc.index_in(values, value_set=distinct).cast(pa.int64()))
    return [str(value) for value in distinct.to_pylist()], codes


def _truth(source: Source, split: str, column: str) -> np.ndarray:
    """One column of zeros and ones, `(rows,)` bool."""
    rows = source.splits()[split]
    require_column(rows, column, "`label_columns`")
    values = arrow_column(rows, column)
    if values.null_count:
        row = int(np.flatnonzero(np.asarray(values.is_null()))[0])
        raise source.row_error(split, row, f"it has no value in column '{column}'")
    if not _are_bits(values):
        raise UserError(f"`label_columns`: column '{column}' of the {split} rows holds other values than 0 and 1")
    return np.asarray(values.cast(pa.int64())).astype(bool)


def _with_sets(rows, column: str, count: int, owner: np.ndarray, ids: np.ndarray, names: list[str]):
    """`rows` with the label column replaced by lists of ids, each id once, ascending."""
    matrix = np.zeros((count, len(names)), dtype=bool)
    matrix[owner, ids] = True
    return with_column(rows, column, _list_array(count, *np.nonzero(matrix)), _feature(names))


def _list_array(count: int, owner: np.ndarray, ids: np.ndarray) -> pa.Array:
    """Lists of ids of so many rows, from the row of each id, ascending."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ids, pa.int64()))


def _feature(names: list[str]):
    import datasets

    return datasets.List(datasets.ClassLabel(names=names))
