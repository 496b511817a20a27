"""Files of one's own: where one cannot be read, and Json columns whose values are of several kinds."""

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from hf_unlearn.data.columns import arrow_column


def first_fault(files: Iterable[str], *, as_json: bool = False) -> str | None:
    """What is wrong with the first of these files that cannot be read, and on which line; no content is quoted.

    Args:
        files: paths or addresses, packed or not.
        as_json: whether each line, or the whole file, must be JSON.
    """
    import fsspec

    for name in files:
        short = name.rsplit("/", 1)[-1]
        with fsspec.open(name, "rb", compression="infer") as file:
            content = file.read()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            return f"line {line} of '{short}' is not in UTF-8; save the file in that encoding (Excel: CSV UTF-8)"
        if as_json and (line := _line_without_json(text)):
            mend = "write one object a line, or one list of objects, each key once"
            return f"line {line} of '{short}' is not JSON; {mend}"
    return None


def _line_without_json(text: str) -> int | None:
    if text.lstrip().startswith("["):
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            return error.lineno
        return None
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if line.strip() and not isinstance(json.loads(line, object_pairs_hook=_with_each_key_once), dict):
                return number
        except ValueError:
            return number
    return None


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def mixed_as_text(splits: dict[str, Any]) -> dict[str, Any]:
    """Rows, by split, in which a column of numbers and texts is text, as it is written in the file: `7` beside `007`.

    `datasets` keeps such a column as JSON, of which `007` is read as 7. Columns that hold lists or objects stay.
    """
    import datasets

    if not hasattr(datasets, "Json"):
        return splits
    return {split: _mixed_as_text(rows, datasets) for split, rows in splits.items()}


def _mixed_as_text(rows, datasets):
    names = rows.column_names
    for name in [name for name, feature in rows.features.items() if isinstance(feature, datasets.Json)]:
        values = [_written(value) for value in arrow_column(rows, name).cast(pa.string()).to_pylist()]
        if not any(isinstance(value, list | dict) for value in values):
            rows = rows.remove_columns(name).add_column(name, values, feature=datasets.Value("string"))
    return rows.select_columns(names)


def _written(stored: str | None) -> Any:
    """A stored value: text without its quotes; numbers, and texts that look like one, as they stand."""
    if stored is None or stored[:1] not in ('"', "[", "{"):
        return stored
    return json.loads(stored)
