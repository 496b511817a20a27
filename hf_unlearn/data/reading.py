"""Every row is read and encoded once, before anything is trained: by one process of each machine, for all of them."""

from dataclasses import dataclass, field
from typing import Any

from hf_unlearn.data.columns import is_image
from hf_unlearn.data.content import images_of, read_rows, row_digests, take_images
from hf_unlearn.data.encoded import EncodedRows, Shared
from hf_unlearn.data.once import fail_together, is_first_of_machine, once_per_machine, several_processes
from hf_unlearn.data.rows import Rows
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import RowError

BATCH = 256  # rows encoded at a time


@dataclass
class Found:
    """What reading every row of a split left.

    Args:
        partly: places of the rows that the model sees a part of, by kind.
        images: what digests need of images, by column and place.
        encoded: where the encoded rows are, with several processes.
    """

    partly: dict[str, set[int]] = field(default_factory=dict)
    images: dict[str, dict[int, list]] = field(default_factory=dict)
    encoded: Shared | None = None


def read_every_row(source: Source, split: str, rows: Rows, cached: bool) -> dict[str, set[int]]:
    """Read every row once; returns the places of rows that the model sees a part of, by kind.

    With several processes the first of each machine reads, and the others read its encoded rows. Images that will not
    be kept are only decoded: resizing them all costs minutes. Raises `RowError`, with the place in the file, in every
    process; `UserError`, in every process too, where one of them cannot read what another has encoded.
    """
    if not several_processes():
        return _read(source, split, rows, cached).partly
    own = rows.in_own_file() if cached and is_first_of_machine() else None

    def read() -> Found:
        found = _read(source, split, rows, cached)
        found.images, found.encoded = images_of(rows.source), own.share() if own else None
        return found

    try:
        found = once_per_machine(read)
        if own is None:
            take_images(rows.source, found.images)
        fail_together(None if own is not None or found.encoded is None else _attach(rows, found.encoded))
    finally:
        if own is not None:
            own.unname()
    return found.partly


def _attach(rows: Rows, shared: Shared) -> str | None:
    """Read encoded rows from where another process has them; returns why that cannot be."""
    try:
        rows.share(EncodedRows.attached(shared))
    except OSError as error:
        return (
            f"a process cannot read the rows that another has encoded ({error.strerror or error}): start all as the "
            "same user with the same folder for temporary files, or set `cache_rows` to false"
        )
    return None


def _read(source: Source, split: str, rows: Rows, cached: bool) -> Found:
    for places in rows.task.left_out.values():
        places.clear()
    columns = [column for column in rows.task.columns.values() if column in rows.source.column_names]
    decode_only = not cached and any(is_image(rows.source.features[column]) for column in columns)
    try:
        if decode_only:
            row_digests(rows.source, columns)
            return Found()
        for start in range(0, len(rows), BATCH):
            _encode(rows, range(start, min(start + BATCH, len(rows))))
    except RowError as error:
        raise source.row_error(split, error.position, error.reason) from error
    return Found({kind: set(places) for kind, places in rows.task.left_out.items()})


def _encode(rows: Rows, batch: range) -> list[dict[str, Any]]:
    try:
        return rows.__getitems__(batch)
    except RowError:
        raise
    except Exception:
        read_rows(rows.source, batch)  # raises a RowError if it is the row's fault
        raise
