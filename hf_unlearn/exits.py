"""How a command ends: a result, one line and an exit status, and processes that leave together."""

import atexit
import contextlib
import difflib
import errno
import json
import logging
import os
import re
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hf_unlearn.errors import NonFiniteLossError, StoppedError, UserError

# What arguments of the Python surface are called on the command line, where the names differ.
COMMAND_NAMES = {
    "classes": "forget_classes",
    "fraction": "forget_fraction",
    "ids_file": "forget_ids",
    "where": "forget_where",
    "rows": "forget_dataset",
    "train": "train_split",
    "validation": "validation_split",
    "test": "test_split",
}
ELSEWHERE = {  # what TRL, older transformers and others call an argument
    "torch_dtype": "dtype",
    "max_seq_length": "max_length",
    "dataset_config": "dataset_config_name",
    "dataset_train_split": "train_split",
    "dataset_test_split": "test_split",
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "steps": "max_steps",
    "batch_size": "per_device_train_batch_size",
    "model": "model_name_or_path",
    "model_name": "model_name_or_path",
    "model_path": "model_name_or_path",
    "base": "base_model",
    "dataset": "dataset_name",
    "data": "dataset_name",
    "train_data": "train_file",
    "test_data": "test_file",
    "output": "output_dir",
    "out": "output_dir",
    "lora": "use_peft",
    "peft": "use_peft",
    "algorithm": "method",
    "ids": "forget_ids",
}
# What torch.save says where it cannot write, in place of the system's own error.
UNWRITTEN = re.compile(r"inline_container\.cc.*(unexpected pos|failed writing file)", re.DOTALL)
READER_LEFT = 141  # what a shell calls the end of a command whose output nobody reads further, as of `| head`
FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


def nearest(key: str, known: set[str], prefix: str = "", unknown: str = "; see --help-all for the known ones") -> str:
    """What a misspelled key may have meant, as the end of a sentence."""
    if ELSEWHERE.get(key) in known:
        return f"; it is called {prefix}{ELSEWHERE[key]} here"
    close = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else unknown


def run_command(command: Callable[[list[str] | None], None], argv: list[str] | None) -> int:
    """Run a command and turn the expected ends into one line on stderr: exit status 2 for a mistake in the input, 1
    for a run that broke down, 130 or 143 for one that was stopped. Where the reader of a pipe leaves, it ends in
    silence with 141."""
    logging.getLogger("transformers.utils.import_utils").addFilter(_of_use)
    try:
        command(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return READER_LEFT
    except UserError as error:
        return _fail(in_command_words(str(error)), 2)
    except NonFiniteLossError as error:
        return _fail(in_command_words(str(error)), 1)
    except StoppedError as error:
        return _fail(str(error), error.status)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except Exception as error:
        if reason := _no_room(error):
            return _fail(reason, 1)
        raise
    return 0


def _nobody_reads() -> bool:
    """Whether the output is a pipe whose other end is closed; a broken pipe may be another one."""
    if not hasattr(select, "poll"):  # Windows: what could not be written is still there, and fails again
        try:
            sys.stdout.flush()
        except OSError:
            return True
        return False
    ends = select.poll()
    ends.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in ends.poll(0))


def _of_use(record: logging.LogRecord) -> bool:
    """Not of use: which image processors of models that nobody asked for do without torchvision."""
    return "requires torchvision (not installed)" not in record.getMessage()


def in_command_words(message: str) -> str:
    """A message whose arguments stand in backquotes, as Python names them, with the dashes of the command line."""
    return re.sub(r"`(\w+)`", lambda found: f"--{COMMAND_NAMES.get(found[1], found[1])}", message)


def leave(status: int) -> None:
    """End the process. One of several ends without tearing the interpreter down: torch's threads now and then abort in
    that, and the launcher would call a finished run failed. What others have left to do at exit is done first."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def no_room(error: Exception) -> str | None:
    """What disk ran out, where that is what happened; libraries wrap the system's own error."""
    number, told = getattr(error, "errno", None), str(error)
    if number not in FULL and ("os error 28" in told or UNWRITTEN.search(told)):
        number = errno.ENOSPC
    if number not in FULL:
        return None
    name = getattr(error, "filename", None)
    return f"{FULL[number]} ({name})" if name else FULL[number]


def _no_room(error: Exception) -> str | None:
    """Says that disk or memory ran out, where that is what happened."""
    if full := no_room(error):
        return f"{full}; make room, and start again or resume from the last checkpoint"
    if type(error).__name__ == "OutOfMemoryError":
        return "the accelerator's memory is full; lower the batch sizes, or add --gradient_checkpointing"
    return None


def _fail(message: str, status: int) -> int:
    line = f"hf-unlearn: {' '.join(message.split())}"
    # Under a launcher every process ends here; one of them speaks.
    if int(os.environ.get("RANK", 0)) == 0:
        print(line, file=sys.stderr)
    if status in (1, 2):
        _tell_the_launcher(line)
    return status


def _tell_the_launcher(line: str) -> None:
    """torchrun, and with it accelerate, ends with a page of its own about the process that failed first, and stops the
    others before they have spoken. What is in this file is the cause that it names there."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        cause = {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps({"message": cause}), encoding="utf-8")
