"""Encoded rows of one data set: in memory while they are few, beyond that in a memory-mapped file."""

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hf_unlearn.errors import UserError

MOST_HELD = 256 * 2**20  # bytes in memory; then come files
_A_TENSOR = 600  # bytes that a tensor takes beside its values

Layout = tuple[tuple[str, torch.dtype | type, tuple[int, ...], int], ...]  # name, type, shape, offset in bytes


class Shared(NamedTuple):
    """What another process of the machine needs to read the file of an [`EncodedRows`]."""

    path: str
    identity: tuple[int, int]
    layouts: list[Layout]
    starts: np.ndarray
    kinds: np.ndarray


class EncodedRows:
    """Features of rows by their place in the source.

    The first `MOST_HELD` bytes stay in memory as they are. Rows beyond go to a file in the folder for temporary files,
    which has no name there and ends with the process. A row that holds anything beside tensors of the CPU and
    numbers stays in memory.

    Args:
        rows (`int`): of the source.
        shared (`bool`): all rows go to a file that other processes can open, from [`share`] on, until [`unname`]. It
            has a name only where the system lets nobody open a file without one.
    """

    def __init__(self, rows: int, shared: bool = False):
        self._rows = rows
        self._held: dict[int, dict[str, Any]] = {}
        self._room = 0 if shared else MOST_HELD
        self._shared = shared
        self._owner = os.getpid()
        self._file: Any = None
        self._path: str | None = None
        self._named = False
        self._map: mmap.mmap | None = None
        self._layouts: list[Layout] = []
        self._numbers: dict[Layout, int] = {}
        self._starts = self._kinds = np.zeros(0, dtype=np.int64)
        self._end = 0

    def __len__(self) -> int:
        return len(self._held) + int((self._kinds >= 0).sum())

    def __getstate__(self) -> dict[str, Any]:
        """For other processes that are started anew: what is in memory. They encode again what they miss."""
        state = self.__dict__ | {"_file": None, "_path": None, "_map": None, "_owner": None}
        return state | {"_starts": np.zeros(0, dtype=np.int64), "_kinds": np.zeros(0, dtype=np.int64)}

    def get(self, place: int) -> dict[str, Any] | None:
        """The features of a row, or `None` where they are not kept."""
        if place in self._held:
            return self._held[place]
        if (layout := self._layout_of(place)) is None:
            return None
        start = int(self._starts[place])
        raw = bytearray(self._bytes(start, start + _size(layout)))
        return {name: _value(raw, kind, shape, offset) for name, kind, shape, offset in layout}

    def value(self, place: int, name: str) -> Any:
        """One of a row's features, without reading the others; `None` where the row is not kept."""
        if place in self._held:
            return self._held[place][name]
        if (layout := self._layout_of(place)) is None:
            return None
        kind, shape, offset = next(each[1:] for each in layout if each[0] == name)
        start = int(self._starts[place]) + offset
        return _value(bytearray(self._bytes(start, start + _size(((name, kind, shape, 0),)))), kind, shape, 0)

    def length(self, place: int, name: str) -> int | None:
        """Length of a tensor of a row, without reading it; `None` where the row is not kept."""
        if place in self._held:
            return len(self._held[place][name])
        layout = self._layout_of(place)
        return None if layout is None else next(shape[0] for found, _, shape, _ in layout if found == name)

    def update(self, places: Iterable[int], features: Sequence[dict[str, Any]]) -> None:
        """Keep the features of rows. Raises `UserError` where the disk has no room."""
        layouts, parts = [], []
        for place, row in zip(places, features, strict=True):
            layout = _layout(row)
            if layout is None or self._room > 0:
                self._held[place] = row
                self._room -= sum(_A_TENSOR + getattr(value, "nbytes", 0) for value in row.values())
            elif self._owner == os.getpid():  # a worker's writes would go over those of another
                layouts.append((place, layout))
                parts.append(_packed(row, layout))
        if parts:
            self._write(layouts, parts)

    def share(self) -> Shared | None:
        """What opens the file in another process; `None` where no row went to it."""
        if self._path is None:
            return None
        self._file.flush()
        return Shared(self._path, _identity(self._file), self._layouts, self._starts, self._kinds)

    @classmethod
    def attached(cls, shared: Shared) -> "EncodedRows":
        """Rows that another process wrote. What this one adds stays in its memory. Raises `OSError` where the file
        cannot be opened here."""
        rows = cls(len(shared.kinds))
        rows._layouts, rows._starts, rows._kinds = shared.layouts, shared.starts, shared.kinds
        with open(shared.path, "rb") as file:
            if _identity(file) != shared.identity:  # another system's processes, with numbers of their own
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), shared.path)
            rows._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        rows._room = MOST_HELD
        rows._owner = -1
        return rows

    def unname(self) -> None:
        """Take the file's name away, once all have opened it: it ends with those that read it."""
        if self._path is not None and self._named:
            Path(self._path).unlink(missing_ok=True)
        self._path = None

    def _layout_of(self, place: int) -> Layout | None:
        """Of a row in the file; `None` where it is not there."""
        there = place < len(self._kinds) and self._kinds[place] >= 0
        return self._layouts[self._kinds[place]] if there else None

    def _write(self, layouts: list[tuple[int, Layout]], parts: list[bytes]) -> None:
        if self._file is None:
            self._open()
        try:
            self._file.write(b"".join(parts))
            self._file.flush()
        except OSError as error:
            where = tempfile.gettempdir()
            raise UserError(
                f"encoded rows find no room in {where} ({error.strerror}): point TMPDIR to a larger disk, or set "
                "`cache_rows` to false"
            ) from error
        for (place, layout), part in zip(layouts, parts, strict=True):
            if layout not in self._numbers:
                self._numbers[layout] = len(self._layouts)
                self._layouts.append(layout)
            self._starts[place], self._kinds[place] = self._end, self._numbers[layout]
            self._end += len(part)

    def _open(self) -> None:
        descriptors = Path(f"/proc/{os.getpid()}/fd")  # on Linux: what this process has open, for others of its user
        self._named = self._shared and not descriptors.is_dir()
        if self._named:
            self._file = tempfile.NamedTemporaryFile("w+b", prefix="hf_unlearn-", delete=False)  # noqa: SIM115
            self._path = self._file.name
        else:
            self._file = tempfile.TemporaryFile("w+b")  # noqa: SIM115
            self._path = str(descriptors / str(self._file.fileno())) if self._shared else None
        self._starts = np.zeros(self._rows, dtype=np.int64)
        self._kinds = np.full(self._rows, -1, dtype=np.int32)

    def _bytes(self, start: int, end: int) -> bytes:
        if self._map is None or end > len(self._map):
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map[start:end]


def _identity(file: Any) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino


def _layout(row: dict[str, Any]) -> Layout | None:
    """Where each value of a row stands in its bytes; `None` for a row that cannot be written."""
    offset = 0
    found: list[tuple[str, torch.dtype | type, tuple[int, ...], int]] = []
    for name, value in row.items():
        if torch.is_tensor(value) and value.layout is torch.strided and value.device.type == "cpu":
            found.append((name, value.dtype, tuple(value.shape), offset))
            offset += -(-value.nbytes // 8) * 8
        elif type(value) in (int, float) and (isinstance(value, float) or abs(value) < 2**63):
            found.append((name, type(value), (), offset))
            offset += 8
        else:
            return None
    return tuple(found)


def _size(layout: Layout) -> int:
    _, kind, shape, offset = layout[-1]
    return offset + (8 if isinstance(kind, type) else -(-math.prod(shape) * kind.itemsize // 8) * 8)


def _packed(row: dict[str, Any], layout: Layout) -> bytes:
    parts = []
    for name, kind, _, _ in layout:
        value = row[name]
        if isinstance(kind, type):
            parts.append(np.array(value, dtype=np.int64 if kind is int else np.float64).tobytes())
        else:
            flat = value.detach().contiguous().reshape(-1)
            raw = flat.view(torch.uint8).numpy().tobytes()
            parts.append(raw + bytes(-len(raw) % 8))
    return b"".join(parts)


def _value(raw: bytearray, kind: torch.dtype | type, shape: tuple[int, ...], offset: int) -> Any:
    if isinstance(kind, type):
        return kind(np.frombuffer(raw, dtype=np.int64 if kind is int else np.float64, count=1, offset=offset)[0])
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(raw, dtype=kind, count=count, offset=offset).reshape(shape)
