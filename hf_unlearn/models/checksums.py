"""Whether saved files are still what was written: a SHA-256 sum of each, kept beside them."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

BLOCK = 1 << 20  # bytes read at a time


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; not read twice as long as neither its size nor its time of change is another.

    Raises `OSError` for a file that cannot be read.
    """
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, changed: int) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """[`file_digest`] of every file in a folder and below, by its path from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def find_damaged(folder: Path, expected: Mapping[str, str]) -> str | None:
    """The first file that is gone, or another than when `expected` was made by [`digests`]; `None` where all are as
    they were. Further files do not matter."""
    for name, digest in expected.items():
        try:
            if file_digest(folder / name) != digest:
                return name
        except OSError:
            return name
    return None
