"""Csv files without a guess that loses something: every cell is read as text, and a column becomes numbers only where
each number, written out, is the text that stood there.

`007` and `7` are two ids, and so are neighbours near 2⁵³ beside an empty cell; a reader that guesses types takes them
for one. A cell that says NA or null holds that text; an empty cell holds nothing.
"""

import csv
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hf_unlearn.data.columns import arrow_column
from hf_unlearn.errors import UserError

WHOLE = r"^(0|-?[1-9][0-9]*)$"
TRUTHS = ({"True", "False"}, {"true", "false"}, {"TRUE", "FALSE"})
USUAL_SEPARATORS = {".csv": ",", ".tsv": "\t"}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def text_options(files: dict[str, list[str]], separator: str, notes: list[str]) -> dict[str, dict[str, Any]]:
    """Arguments of the csv loader, by split, that make it leave every cell as it is.

    Args:
        files: paths or addresses by split.
        separator: between two cells. Where the header has none, and has a semicolon, a tab or a bar, as spreadsheets
            write them in many countries, that separates the cells of all files.
        notes: where it is said that another separator was taken.

    Splits may have different columns, as test rows without the ids of customers. Raises `UserError` for an empty file,
    a header that names a column twice, rows longer than the header, files of one split with different columns, files
    with different separators, and quotes that join rows.
    """
    every = [name for names in files.values() for name in names]
    found = {name: separator_of(name, separator) for name in every}
    taken = dict.fromkeys(found.values())
    if len(taken) > 1:
        words = " and ".join(SEPARATORS[each] for each in taken)
        raise UserError(f"the cells of the csv files are separated by {words}; save all files with the same")
    if (other := next(iter(taken), separator)) != separator:
        notes.append(f"the cells of {', '.join(map(_short, every[:3]))} are separated by {SEPARATORS[other]}")
    return {split: _options_of_split(names, other) for split, names in files.items()}


def _options_of_split(names: list[str], separator: str) -> dict[str, Any]:
    import datasets

    columns: list[str] = []
    for name in names:
        header = _header(name, separator)
        if columns and set(header) != set(columns):
            odd = ", ".join(sorted(set(header) ^ set(columns)))
            raise UserError(
                f"'{_short(name)}' and '{_short(names[0])}' hold rows of one split and have different columns, {odd} "
                "in one of them only: write the same header in both"
            )
        columns = columns or header
        _check_quotes(name, separator)
    features = datasets.Features({column: datasets.Value("string") for column in columns})
    return {"features": features, "na_filter": False, "index_col": False, "sep": separator}


def with_numbers(splits: dict[str, Any]) -> dict[str, Any]:
    """Rows of text columns, by split, with numbers and truth values where nothing is lost by it, and nothing where a
    cell is empty. A column has one type in all splits that have it."""
    import datasets

    columns: dict[str, list[pa.ChunkedArray]] = {}
    for rows in splits.values():
        for name in rows.column_names:
            columns.setdefault(name, []).append(arrow_column(rows, name))
    kinds = {name: str(_kind(parts)) for name, parts in columns.items()}

    def typed(rows):
        own = {name: kinds[name] for name in rows.column_names}
        features = datasets.Features({name: datasets.Value(kind) for name, kind in own.items()})
        rows = rows.with_format("arrow").map(_typed, batched=True, features=features, fn_kwargs={"kinds": own})
        return rows.with_format(None)

    return {split: typed(rows) for split, rows in splits.items()}


def check_metadata(files: list[str]) -> None:
    """Of a folder of images: its `metadata.csv` is read by `datasets`, which guesses. Raises `UserError` where texts
    that differ, as 007 and 7 do, become one number."""
    import pandas as pd

    for name in files:
        if Path(name).name != "metadata.csv" or not Path(name).is_file():
            continue
        read, written = pd.read_csv(name), pd.read_csv(name, dtype=str, keep_default_na=False)
        for column in read.columns:
            there = read[column].notna()
            if read[column].dtype.kind in "if" and written[column][there].nunique() > read[column].nunique():
                raise UserError(
                    f"column '{column}' of metadata.csv holds numbers in several spellings (007 is not 7), which are "
                    "read as one: write metadata.jsonl instead, with the values in quotes"
                )


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


@contextmanager
def cells_of_any_size() -> Iterator[None]:
    """Inside, cells may be longer than the 131,072 characters that the csv module allows."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _check_quotes(name: str, separator: str) -> None:
    """A cell that begins with a quote of its own swallows the rows up to the next quote. Raises `UserError` where such
    a cell goes over several lines."""
    if not Path(name).is_file():
        return
    with opened(name) as file, cells_of_any_size():
        lines = csv.reader(file, delimiter=separator, strict=True)
        while True:
            first = lines.line_num + 1
            try:
                next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                if "expected after" in str(error) and lines.line_num > first:
                    where = f"a cell from line {first} to {lines.line_num} of '{_short(name)}'"
                    raise UserError(
                        f"{where} begins with a quote and does not end with one, so rows run together; write such a "
                        'cell as "…", with each quote in it twice'
                    ) from None


def opened(name: str):
    import fsspec

    return fsspec.open(name, "rt", encoding="utf-8-sig", newline="", compression="infer")


def _first_rows(name: str, separator: str) -> list[list[str]]:
    """Header and first row of a csv file, as far as it has them."""
    with opened(name) as file, cells_of_any_size():
        lines = csv.reader(file, delimiter=separator)
        return [row for row, _ in zip((row for row in lines if row), range(2), strict=False)]


def separator_of(name: str, usual: str) -> str:
    """What separates the cells of the header: the usual one, or another where the header has only that."""
    header = (_first_rows(name, usual) or [[""]])[0]
    found = [other for other in SEPARATORS if other != usual and len(header) == 1 and other in header[0]]
    return found[0] if len(found) == 1 else usual


def _header(name: str, separator: str) -> list[str]:
    """Columns of a csv file."""
    rows = _first_rows(name, separator)
    if not rows:
        raise UserError(f"'{_short(name)}' is empty")
    header = [column or f"Unnamed: {place}" for place, column in enumerate(rows[0])]  # as pandas calls its own index
    if len(rows) == 1:
        raise UserError(f"'{_short(name)}' has no rows, only a header")
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise UserError(f"'{_short(name)}' has two columns called '{twice[0]}'; rename one")
    if len(rows[1]) > len(header):
        cells = f"{len(rows[1])} cells in the first row and {len(header)} in the header"
        raise UserError(f"'{_short(name)}' has {cells}; quote cells that hold the separator")
    return header
