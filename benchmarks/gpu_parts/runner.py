"""Runs a part in a process of its own, with a time limit, and keeps what it had found when it ended or was ended."""

import importlib.util
import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class Skip(Exception):  # noqa: N818
    """A part, or a piece of it, that cannot be run here, and why."""


class Run:
    """What a part is given: sizes, a place to write, and a place for what it finds.

    Args:
        toy: whether sizes are those of a dry run on the CPU.
        seconds: the part's time limit.
        folder: scratch, removed afterwards.
        start: how further processes are to be started.
    """

    def __init__(self, toy: bool, seconds: float, folder: Path, start: str = "fork"):
        self.toy = toy
        self.start = start
        self.folder = folder
        self.deadline = time.monotonic() + seconds
        self.path = folder / "found.jsonl"

    @property
    def device(self) -> str:
        return "cpu" if self.toy else "cuda"

    @property
    def left(self) -> float:
        """Seconds until the part is ended."""
        return self.deadline - time.monotonic()

    def put(self, name: str, value: Any) -> None:
        """Keep a finding: on the disk at once, whatever comes after it."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps([name, value]) + "\n")
        print(f"  {name}: {short(value)}", flush=True)

    def needs(self, seconds: float) -> None:
        """Raise [`Skip`] where less time is left."""
        if not self.toy and self.left < seconds:
            raise Skip(f"{max(self.left, 0):.0f} seconds are left of the part's time")

    @contextmanager
    def piece(self, name: str):
        """A piece of a part: its failure is a finding, and the next piece runs all the same."""
        try:
            yield
        except Skip as reason:
            self.put(name, {"skipped": str(reason)})
        except Exception as error:  # whatever a card or a library's version does
            self.put(name, {"failed": describe(error)})
        finally:
            if not self.toy:
                empty_cache()


def short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 230 else text[:227] + "..."


def describe(error: BaseException) -> str:
    """The error in a line, and where it was, without the machine's paths."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]} ({where})"


def fresh_accelerate() -> None:
    """A former run has settled precision and compiler for its own, in accelerate's state and in the environment."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_MIXED_", "ACCELERATE_DYNAMO_"))]:
        del os.environ[name]


def empty_cache() -> None:
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


def need(*packages: str) -> None:
    """Raise [`Skip`] for a package that is not there."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise Skip(f"the package {package} is not installed")


def run_part(
    part: Callable[[Run], None], toy: bool, seconds: float, folder: Path, start_method: str = "fork"
) -> dict[str, Any]:
    """What a part found within its time: `{"outcome", "seconds", "found"}`.

    It runs in a fork of this process, which has imported the libraries and touched no device: a fresh context on the
    device and nothing to import (`spawn` where a device does not answer in forks). At its end its whole process group
    is ended.
    """
    folder.mkdir(parents=True)
    start, run = time.monotonic(), Run(toy, seconds, folder, start_method)
    child = multiprocessing.get_context(start_method).Process(target=_inside, args=(part, run))
    child.start()
    child.join(seconds)
    late = child.is_alive()
    # What a part has started ends with it.
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.join()
    found: dict[str, Any] = {}
    if run.path.exists():
        found = dict(json.loads(line) for line in run.path.read_text(encoding="utf-8").splitlines())
    outcome = found.pop("outcome", None) or (f"ended at its limit of {seconds:.0f} seconds" if late else "broke off")
    return {"outcome": outcome, "seconds": round(time.monotonic() - start, 1), "found": found}


def _inside(part: Callable[[Run], None], run: Run) -> None:
    os.setsid()
    try:
        part(run)
        run.put("outcome", "done")
    except Skip as reason:
        run.put("outcome", f"skipped: {reason}")
    except BaseException as error:
        run.put("outcome", f"failed: {describe(error)}")
        traceback.print_exc()
    finally:
        os._exit(0)
