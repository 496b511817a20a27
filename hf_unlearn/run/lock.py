"""One run at a time in an output folder."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hf_unlearn.errors import UserError

_HELD: set[IO] = set()


def _let_go() -> None:
    """In a child, a data loader's worker say: it outlives a run that is killed, and would hold the lock meanwhile."""
    for file in _HELD:
        file.close()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Inside, no other run of this machine writes to `folder`; the lock lies elsewhere, and goes with the process.

    Raises `UserError` where another run is at work there.
    """
    try:
        import fcntl
    except ImportError:  # not on this system
        yield
        return
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]
    try:
        file = open(Path(tempfile.gettempdir()) / f"hf-unlearn-{name}.lock", "a")  # noqa: SIM115
    except OSError:  # another user's
        raise UserError(f"--output_dir {folder} is in use by another user's run; name another folder") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"--output_dir {folder} is in use by a run that is under way; name another folder"
            ) from None
        _HELD.add(file)
        try:
            yield
        finally:
            _HELD.discard(file)
            Path(file.name).unlink(missing_ok=True)
