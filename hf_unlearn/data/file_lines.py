"""On which line of a file a row stands: where an editor finds what a message calls by its number."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_unlearn.data.csv_text import USUAL_SEPARATORS, cells_of_any_size, opened, separator_of

JSON_LINES = (".jsonl", ".json")


def line_of(file: str, place: int, row: Mapping[str, Any]) -> int | None:
    """The line, counted from 1, on which row number `place`, counted from 0, of a csv, tsv or json lines file begins.

    `None` where that cannot be told: for files of other kinds, and where something else than `row` stands there, as
    rows may have been put before the file's or taken out.

    Args:
        row: values by column; those that are in the file are compared.
    """
    kind = next((suffix for suffix in Path(file).suffixes[::-1] if suffix in (*USUAL_SEPARATORS, *JSON_LINES)), None)
    if kind is None:
        return None
    try:
        for number, (line, found) in enumerate(_json_rows(file) if kind in JSON_LINES else _csv_rows(file, kind)):
            if number == place:
                return line if _is_same(found, row) else None
    except (OSError, ValueError, csv.Error):
        return None
    return None


def _csv_rows(file: str, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    separator = separator_of(file, USUAL_SEPARATORS[kind])
    with opened(file) as text, cells_of_any_size():
        records = csv.reader(text, delimiter=separator)
        header, line = None, 1
        for record in records:
            if record and header is None:
                header = record
            elif record and header is not None:
                yield line, dict(zip(header, record, strict=False))
            line = records.line_num + 1  # a cell in quotes may go over several


def _json_rows(file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with opened(file) as text:
        for line, content in enumerate(text, start=1):
            if content.strip():
                yield line, json.loads(content)


def _is_same(found: Any, row: Mapping[str, Any]) -> bool:
    both = [name for name in row if name in found] if isinstance(found, dict) else []
    return bool(both) and all(_text(found[name]) == _text(row[name]) for name in both)


def _text(value: Any) -> str:
    """One spelling of a value from a file and from a table: nothing and an empty cell, `True` and `true` are alike."""
    return "" if value is None else str(value).casefold()
