"""Ids as they stand in a file of a request, and what becomes of them on the way through a spreadsheet."""

import csv
import io
import json
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_unlearn.data.columns import holds_text
from hf_unlearn.data.csv_text import USUAL_SEPARATORS, cells_of_any_size, separator_of
from hf_unlearn.errors import UserError


def read_ids(file: str, id_column: str | None) -> list[str]:
    """The ids in a file. Raises `UserError` for a file that is missing, empty, or of another form."""
    path = Path(file).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            ids = json.loads(text)
            if not isinstance(ids, list) or any(isinstance(value, list | dict) or value is None for value in ids):
                raise UserError(f"`ids_file`: {path.name} must hold one JSON list of ids")
        elif path.suffix.lower() in USUAL_SEPARATORS:
            ids = _ids_of_table(path, text, id_column)
        else:
            ids = [line.strip() for line in text.splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"`ids_file`: {path.name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"`ids_file`: {path.name} is not in UTF-8; save it in that encoding") from None
    except (json.JSONDecodeError, csv.Error) as error:
        raise UserError(f"`ids_file`: {path.name} cannot be read ({type(error).__name__})") from None
    if not ids:
        raise UserError(f"`ids_file`: {path.name} holds no id")
    ids = [str(value) for value in ids]
    if empty := sum(not value.strip() for value in ids):
        raise UserError(f"`ids_file`: {path.name} has {empty} empty ids; fill them in, or leave them out")
    return ids


def _ids_of_table(path: Path, text: str, id_column: str | None) -> list[str]:
    """One column of a csv or tsv file. Raises `UserError` where it is not there."""
    separator = separator_of(str(path), USUAL_SEPARATORS[path.suffix.lower()])
    with cells_of_any_size():
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="")
        if id_column not in (table.fieldnames or []):
            has = ", ".join(table.fieldnames or []) or "none"
            raise UserError(f"`ids_file`: {path.name} has no column '{id_column}'; its columns are: {has}")
        return [row[id_column] for row in table]


def unknown_ids(missing: list[str], given: list[str], column: pa.ChunkedArray, name: str) -> str:
    """How many ids no training row has, the place of the first in the file, and what may have become of them."""
    there = {_loose(str(value)) for value in pc.unique(column).drop_null().to_pylist()}
    alike, count = sum(_loose(value) in there for value in missing), len(set(given))
    first = f" (the first: number {given.index(missing[0]) + 1})" if len(missing) < count else ""
    told = (
        f"{len(missing)} of {count} ids in the `ids_file` file{first} are not in column '{name}' of the training rows"
    )
    if alike:
        return f"{told}; {alike} would be but for leading zeros, quotes, spaces or case: write ids as the column does"
    return f"{told}; take them out of the file, or name another `id_column`"


def note_alike(column: pa.ChunkedArray, wanted: list[str]) -> list[str]:
    """A note where rows of a column of text hold none of the values `wanted`, but one of them as it is often mangled:
    a person who asked to be deleted may stand there in two spellings."""
    if not holds_text(column.type):
        return []
    exact, loose = set(wanted), set(map(_loose, wanted))
    alike = [value for value in pc.unique(column).drop_null().to_pylist() if value not in exact]
    alike = [value for value in alike if _loose(value) in loose]
    count = int(np.asarray(pc.is_in(column, value_set=pa.array(alike, column.type))).sum())
    spelled = "differ from the request in leading zeros, quotes, spaces, case or the form of Unicode alone"
    return [f"training rows that {spelled}: {count}; they are kept, name them too if they are meant"] * (count > 0)


def _loose(value: str) -> str:
    """An id without what is often lost or added on the way through a spreadsheet."""
    plain = unicodedata.normalize("NFKC", value).strip().strip("\"'").strip().casefold().removesuffix(".0")
    return plain.lstrip("0") or plain
