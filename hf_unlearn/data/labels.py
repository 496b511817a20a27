"""Labels of any kind (ints, strings, `ClassLabel`) to the ids that a model uses."""

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_unlearn.data.columns import arrow_column, require_column
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError

# A column in which more texts than these, and than this share of the rows, differ holds no labels; none is printed.
FEW_TEXTS, MOST_TEXTS = 50, 0.5
BY_ALPHABET = (
    "The model's classes have no names (LABEL_0, …), so the labels are taken for them in the order of the alphabet: "
    "if it was trained with another, write the names into id2label of its config.json, or give labels as numbers."
)
BY_NUMBER = (
    "The labels are numbers but not the ids of the model's classes (0, 1, …), so they are taken for them in the order "
    "of the numbers: if it was trained with another, write the numbers into id2label of its config.json."
)
BY_ID = (
    "The labels are numbers within the ids of the model's classes and taken for those, and its class 0 has no "
    "training row: if they count from 1, subtract 1."
)
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "<NA>")  # texts that are no label


def encode_labels(
    source: Source, label_column: str, model_label2id: dict[str, int] | None = None
) -> tuple[Source, list[str]]:
    """Make the label column a `ClassLabel` whose ids are the model's, the same in all splits.

    With a model whose classes have names, labels are matched by name (integers without such a name are taken for ids).
    Otherwise the ids follow the data's `ClassLabel`, the numbers' order, or the alphabet.

    Args:
        source ([`Source`]): rows with a label column; its splits may hold labels of different kinds.
        label_column (`str`): the column.
        model_label2id (`dict[str, int]`, *optional*): from the configuration of a model that is already trained; empty
            where that says nothing of them, as an adapter's.

    Returns the new source and the class names in the order of the ids.

    Raises `UserError` for a missing column, values that are no classes, hidden labels, and classes that the model or
    the training rows do not know; `RowError` for a row without a label.
    """
    keys, codes = {}, {}
    for split, rows in source.splits().items():
        require_column(rows, label_column, f"labels of the {split} rows")
        keys[split], codes[split] = _keys_and_codes(rows, label_column, split)
        _check_present(codes[split], source, split)
    ordered = hasattr(source.train.features[label_column], "names")
    texts, rows = len(keys["train"]), len(source.train)
    if not ordered and texts > max(FEW_TEXTS, MOST_TEXTS * rows) and not all(map(_is_number, keys["train"])):
        raise UserError(
            f"column '{label_column}' holds {texts:,} different texts in {rows:,} training rows, so these are no "
            "labels: name another with `label_column`"
        )
    ids, names = translate(keys, codes, ordered, model_label2id, label_column)
    notes = [*source.notes, *told_if_guessed(keys["train"], ordered, model_label2id)]
    features = {split: _with_ids(rows, label_column, ids[split], names) for split, rows in source.splits().items()}
    return replace(source, notes=notes, **features), names


def told_if_guessed(keys: list[str], ordered: bool, model_label2id: dict[str, int] | None) -> list[str]:
    """A note where only the alphabet, or the order of numbers, says which label is which of the model's classes, and
    where labels that are taken for ids leave out 0, as those do that count from 1."""
    if ordered or model_label2id is None:
        return []
    if all(map(_is_number, keys)):
        return _told_of_numbers(keys, model_label2id)
    names = set(map(str, model_label2id))
    unnamed = all(re.fullmatch(r"LABEL_\d+", name) for name in names)
    return [BY_ALPHABET] if unnamed and not set(keys) <= names | {"False", "True"} else []


def _told_of_numbers(keys: list[str], model_label2id: dict[str, int]) -> list[str]:
    numbers, size = set(map(int, keys)), len(model_label2id)
    if set(keys) <= {_plain(name) for name in model_label2id} or numbers == set(range(len(numbers))):
        return []
    if not numbers <= set(range(size)):
        return [BY_NUMBER]
    return [] if 0 in numbers else [BY_ID]


def _keys_and_codes(rows, column: str, split: str) -> tuple[list[str], np.ndarray]:
    """The classes as strings, and each row's place among them (-1: none): `(rows,)` int64."""
    feature, values = rows.features[column], arrow_column(rows, column)
    if hasattr(feature, "names"):
        codes = np.asarray(values.cast(pa.int64()).fill_null(-1))
        return list(feature.names), codes
    kind = values.type
    if pa.types.is_floating(kind):  # integers with gaps arrive as floats
        if not pc.all(pc.equal(pc.floor(values), values)).as_py():
            raise UserError(f"column '{column}' of the {split} rows holds fractional numbers: no class labels")
        values = values.cast(pa.int64())
    elif not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_text(kind)):
        raise UserError(f"column '{column}' of the {split} rows holds {kind}: one label per row is needed")
    distinct = pc.unique(values).drop_null()
    if _is_text(kind):
        distinct = distinct.filter(pc.invert(pc.is_in(distinct, value_set=pa.array(MISSING, kind))))
    codes = np.asarray(pc.index_in(values, value_set=distinct).cast(pa.int64()).fill_null(-1))
    return [str(value) for value in distinct.to_pylist()], codes


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _check_present(codes: np.ndarray, source: Source, split: str) -> None:
    missing = np.flatnonzero(codes < 0)
    if len(missing) and len(missing) == len(codes):
        raise UserError(f"the labels of the {split} rows are hidden: name another split with `{split}`")
    if len(missing):
        reason = "it has no label; NA, null and empty count as none"
        raise source.row_error(split, missing[0], reason, len(missing) - 1)


def _is_number(key: str) -> bool:
    return re.fullmatch(r"-?(0|[1-9]\d*)", key) is not None


def sort_keys(keys: list[str], ordered: bool) -> list[str]:
    """`ClassLabel` names keep their order; numbers go by value, everything else by the alphabet."""
    if ordered:
        return keys
    return sorted(keys, key=int) if all(map(_is_number, keys)) else sorted(keys)


def _plain(name: str) -> str:
    return " ".join(str(name).replace("_", " ").casefold().split())


def assign_ids(
    keys: list[str], ordered: bool, model_label2id: dict[str, int] | None
) -> tuple[dict[str, int], list[str]]:
    """Class name → id, and the names in the order of the ids. `ordered`: the data's own ids mean something."""
    by_rank = {key: i for i, key in enumerate(keys)}
    if not model_label2id:
        return by_rank, keys
    model_names = sorted(model_label2id, key=lambda name: int(model_label2id[name]))
    numbers = not ordered and all(_is_number(key) and 0 <= int(key) < len(model_names) for key in keys)
    if all(re.fullmatch(r"LABEL_\d+", str(name)) for name in model_names):
        if numbers:
            return {key: int(key) for key in keys}, [str(i) for i in range(len(model_names))]
        return by_rank, keys
    known = {_plain(name): i for i, name in enumerate(model_names)}
    unmatched = [key for key in keys if _plain(key) not in known]
    if not unmatched:
        return {key: known[_plain(key)] for key in keys}, [str(name) for name in model_names]
    if numbers:
        return {key: int(key) for key in keys}, [str(name) for name in model_names]
    # Same number, own order, and no name that contradicts it: the same classes, spelled otherwise.
    if ordered and len(keys) == len(model_names) and all(known.get(_plain(key), i) == i for key, i in by_rank.items()):
        return by_rank, keys
    shown = [
        f"{', '.join(map(str, names[:10]))}{' …' if len(names) > 10 else ''}" for names in (unmatched, model_names)
    ]
    raise UserError(f"the data's classes {shown[0]} are not among the model's: {shown[1]}")


def translate(
    keys: dict[str, list[str]],
    codes: dict[str, np.ndarray],
    ordered: bool,
    model_label2id: dict[str, int] | None,
    column: str,
    one: str = "class",
    several: str = "classes",
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Each split's `codes`, places in its `keys`, as ids of the model; and the names in the order of the ids.

    Raises `UserError` for a single class, and for classes that the model or the training rows do not know.
    """
    ids, names = assign_ids(sort_keys(keys["train"], ordered), ordered, model_label2id)
    if len(names) < 2:
        raise UserError(f"column '{column}' holds a single {one} in the training rows: name another column")
    found = {}
    for split, places in codes.items():
        used = {keys[split][code] for code in np.unique(places)}
        if unknown := sorted(used - ids.keys()):
            raise UserError(
                f"the {split} rows have {several} without training rows: {', '.join(unknown[:10])}; those of the "
                f"training rows are {', '.join(sorted(ids)[:10])}: labels are compared as they are written"
            )
        found[split] = np.array([ids.get(key, -1) for key in keys[split]], dtype=np.int64)[places]
    return found, names


def _with_ids(rows, column: str, ids: np.ndarray, names: list[str]):
    """`rows` with the label column replaced by ids; unchanged where it holds them already."""
    import datasets

    if getattr(rows.features[column], "names", None) == names:
        return rows
    return with_column(rows, column, pa.array(ids), datasets.ClassLabel(names=names))


def with_column(rows, column: str, values: pa.Array, feature):
    """`rows` with one column replaced."""
    fresh = f"{column} id"  # added before the old one goes: a data set without columns has no rows
    while fresh in rows.column_names:
        fresh += "_"
    return rows.add_column(fresh, values, feature=feature).remove_columns(column).rename_column(fresh, column)
