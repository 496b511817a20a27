"""A run that is stopped from outside, by Ctrl-C or by whoever manages the machine, says how to go on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_unlearn.errors import StoppedError
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.trainers.resuming import checkpoints, what_is_missing

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}  # 128 and the signal's number, as shells have it
AGAIN = "stopped; the same command goes on: the models that were finished are kept in the cache"


class _Signal(BaseException):
    def __init__(self, number: int):
        self.number = number


@contextmanager
def told_how_to_go_on(arguments: Arguments, line: str | None = None) -> Iterator[None]:
    """Turns SIGINT and SIGTERM into [`StoppedError`], one line that says how the run goes on; `line` is that of a
    command without checkpoints."""

    def stop(number, _frame):
        raise _Signal(number)

    if threading.current_thread() is not threading.main_thread():  # only that one may handle signals
        yield
        return
    before = {number: signal.signal(number, stop) for number in STATUS}
    try:
        yield
    except _Signal as error:
        raise StoppedError(line or _how_to_go_on(arguments), STATUS[signal.Signals(error.number)]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _how_to_go_on(arguments: Arguments) -> str:
    output = Path(arguments.trainer.output_dir)
    folder = next((folder for folder in checkpoints(output) if what_is_missing(folder, contents=False) is None), None)
    if folder is not None:
        return f"stopped; the same command with --resume_from_checkpoint last goes on from {folder.name} in {output}"
    kept = "what was trained by the recipe is kept in its cache; " if arguments.has_recipe else ""
    return (
        f"stopped before the first checkpoint: start again ({kept}--save_strategy steps keeps checkpoints of the "
        "unlearning)"
    )
