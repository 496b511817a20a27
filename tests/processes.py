"""Processes of their own for tests, forked from one that has imported everything.

An import of torch and transformers takes seconds, and a test of two processes would pay it three times. What is forked
has never run a model: no thread of torch's is lost on the way.
"""

import multiprocessing
import os
import socket
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["imported_beforehand"])


@dataclass
class Done:
    """How processes ended: the first status that is not 0, and what all of them said."""

    returncode: int
    stdout: str
    stderr: str


def run(program: str, *argv: str, processes: int = 1, timeout: float = 300, cwd: Path | None = None) -> Done:
    """Run a Python program as `python program.py argv…`; with several `processes` as torchrun starts them."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        several = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
        several |= {"MASTER_PORT": str(free.getsockname()[1])}
        free.close()
        started = []
        for rank in range(processes):
            own = dict(os.environ) | (several | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {})
            where = (f"{folder}/out{rank}", f"{folder}/err{rank}")
            started.append(CONTEXT.Process(target=_child, args=(program, argv, own, where, cwd and str(cwd))))
        for process in started:
            process.start()
        status = _wait(started, time.monotonic() + timeout)
        said = [[Path(f"{folder}/{name}{rank}").read_text() for rank in range(processes)] for name in ("out", "err")]
        return Done(status, "".join(said[0]), "".join(said[1]))


def _wait(started: list, end: float) -> int:
    """The first status that is not 0. The others are ended then: they would wait for what has failed."""
    while True:
        codes = [process.exitcode for process in started]
        failed = [code for code in codes if code]
        late = time.monotonic() > end
        if failed or late or None not in codes:
            for process in started:
                if process.exitcode is None:
                    process.join(0.5 if failed else 0)
                    process.kill()
                process.join()
            return failed[0] if failed else (124 if late else 0)
        started[codes.index(None)].join(0.1)


def _child(program: str, argv: tuple[str, ...], environment: dict[str, str], where: tuple[str, str], cwd: str | None):
    os.environ.clear()
    os.environ.update(environment)
    for number, path in zip((1, 2), where, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, "utf-8", closefd=False) for number in (1, 2))
    sys.argv = ["program.py", *argv]
    status = 0
    try:
        os.chdir(cwd or os.getcwd())
        exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
