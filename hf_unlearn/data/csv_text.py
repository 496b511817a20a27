"""Csv files without a guess that loses something: every cell is read as text, and a column becomes numbers only where
each number, written out, is the text that stood there.

`007` and `7` are two ids, and so are neighbours near 2⁵³ beside an empty cell; a reader that guesses types takes them
for one. A cell that says NA or null holds that text; an empty cell holds nothing.
"""

import csv
import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hf_unlearn.data.columns import arrow_column
from hf_unlearn.errors import UserError

WHOLE = r"^(0|-?[1-9][0-9]*)$"
TRUTHS = ({"True", "False"}, {"true", "false"}, {"TRUE", "FALSE"})
OTHER_SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}


def text_options(files: dict[str, list[str]], separator: str) -> dict[str, Any]:
    """Arguments of the csv loader that make it leave every cell as it is.

    Args:
        files: paths or addresses by split.
        separator: between two cells.

    Raises `UserError` for an empty file, a header that names a column twice, rows longer than the header, and files
    with different columns.
    """
    import datasets

    columns: list[str] | None = None
    for names in files.values():
        for name in names:
            found = _header(name, separator)
            if columns is not None and set(found) != set(columns):
                odd = ", ".join(sorted(set(found) ^ set(columns)))
                raise UserError(f"`dataset_name`: the csv files have different columns; not in all of them: {odd}")
            columns = columns or found
    features = datasets.Features({column: datasets.Value("string") for column in columns or []})
    return {"features": features, "na_filter": False, "index_col": False}


def with_numbers(splits: dict[str, Any]) -> dict[str, Any]:
    """Rows of text columns, by split, with numbers and truth values where nothing is lost by it, and nothing where a
    cell is empty. A column has one type in all splits."""
    import datasets

    names = next(iter(splits.values())).column_names
    kinds = {name: _kind([arrow_column(rows, name) for rows in splits.values()]) for name in names}
    features = datasets.Features({name: datasets.Value(str(kind)) for name, kind in kinds.items()})
    return {
        split: rows.with_format("arrow")
        .map(_typed, batched=True, features=features, fn_kwargs={"kinds": {n: str(k) for n, k in kinds.items()}})
        .with_format(None)
        for split, rows in splits.items()
    }


def _typed(table: pa.Table, kinds: dict[str, str]) -> pa.Table:
    columns = {}
    for name, kind in kinds.items():
        column = table.column(name)
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
        columns[name] = column.cast(kind)
    return pa.table(columns)


def _kind(parts: list[pa.ChunkedArray]) -> pa.DataType:
    """The type that writes out exactly as these texts do."""
    texts = pc.unique(pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.string()))
    texts = texts.filter(pc.not_equal(texts, ""))
    if not len(texts):
        return pa.string()
    if pc.all(pc.match_substring_regex(texts, WHOLE)).as_py():
        try:
            texts.cast(pa.int64())
            return pa.int64()
        except pa.ArrowInvalid:  # longer than 64 bits
            return pa.string()
    if any(set(texts[: len(truth) + 1].to_pylist()) <= truth for truth in TRUTHS):
        return pa.bool_()
    return pa.float64() if all(map(_is_written_float, texts.to_pylist())) else pa.string()


def _is_written_float(text: str) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    return math.isfinite(number) and repr(number) == text


def _header(name: str, separator: str) -> list[str]:
    """Columns of a csv file."""
    import fsspec

    short = name.rsplit("/", 1)[-1]
    with fsspec.open(name, "rt", encoding="utf-8-sig", newline="", compression="infer") as file:
        lines = csv.reader(file, delimiter=separator)
        rows = [row for row, _ in zip((row for row in lines if row), range(2), strict=False)]
    if not rows:
        raise UserError(f"`dataset_name`: '{short}' is empty")
    header = rows[0]
    if len(header) == 1:
        for other, word in OTHER_SEPARATORS.items():
            if other != separator and other in header[0]:
                raise UserError(
                    f"`dataset_name`: the columns of '{short}' are separated by {word}; use commas (tabs in .tsv)"
                )
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise UserError(f"`dataset_name`: '{short}' has two columns called '{twice[0]}'; rename one")
    if len(rows) > 1 and len(rows[1]) > len(header):
        cells = f"{len(rows[1])} cells in the first row and {len(header)} in the header"
        raise UserError(f"`dataset_name`: '{short}' has {cells}; quote cells that hold the separator")
    return header
