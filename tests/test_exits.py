"""How a command ends: Python's names of arguments become the command's, and running out of room is one line."""

import errno
import logging
import os
import select
import sys

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from hf_unlearn.errors import NonFiniteLossError, UserError, in_one_line
from hf_unlearn.exits import in_command_words, run_command


def end(error: Exception, capsys) -> tuple[int, str]:
    def command(argv):
        raise error

    return run_command(command, []), capsys.readouterr().err


def test_arguments_have_their_names_on_either_side(capsys):
    error = UserError("`learning_rate` is -1; see `fraction`\nand `ids_file`")
    assert "`learning_rate` is -1" in str(error)
    status, said = end(error, capsys)
    assert status == 2 and said == "hf-unlearn: --learning_rate is -1; see --forget_fraction and --forget_ids\n"
    assert in_command_words("the value `a b` stays") == "the value `a b` stays"


def test_image_processors_of_other_models_are_not_spoken_of():
    said = []
    logger = logging.getLogger("transformers.utils.import_utils")
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(listener)
    try:
        assert run_command(lambda argv: None, []) == 0
        logger.warning("`DeiTImageProcessor` requires torchvision (not installed); falling back")
        logger.warning("something else")
    finally:
        logger.removeHandler(listener)
    assert said == ["something else"]


def test_a_broken_run(capsys):
    status, said = end(NonFiniteLossError("not finite; lower `learning_rate`"), capsys)
    assert status == 1 and said == "hf-unlearn: not finite; lower --learning_rate\n"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "model.safetensors"),
        RuntimeError("I/O (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 27328 vs 27220"),
        RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0"),
    ],
)
def test_a_full_disk_is_one_line(capsys, error):
    status, said = end(error, capsys)
    assert status == 1 and said.startswith("hf-unlearn: the disk is full") and len(said.splitlines()) == 1


def test_a_launcher_is_told_the_cause_by_every_process(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert end(UserError("`seed` is -1"), capsys) == (2, "")
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=2, error_file=str(tmp_path / "error.json"))
    assert "traceback : hf-unlearn: --seed is -1" in str(ChildFailedError("train.py", {1: failure}))


@pytest.mark.parametrize("has_poll", [True, False])  # Windows has none
def test_a_reader_that_leaves_ends_a_command_in_silence(capsys, monkeypatch, has_poll):
    if not has_poll:
        monkeypatch.delattr(select, "poll")
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(BrokenPipeError):  # of some other pipe: this one is read
            end(BrokenPipeError(), capsys)
        os.close(reading)
        assert run_command(lambda argv: print("a table"), []) == 141 and not capsys.readouterr().err


def test_what_nobody_foresaw_keeps_its_traceback(capsys):
    with pytest.raises(RuntimeError):
        end(RuntimeError("a bug"), capsys)


def test_what_libraries_say_in_one_line():
    assert in_one_line(ValueError("\n  use `x`  \nand more")) == "use 'x'"
    assert in_one_line(KeyError()) == "KeyError"
