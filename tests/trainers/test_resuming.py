"""Only a whole checkpoint of this very run is gone on from, and then the run ends as if it had never been stopped."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import processes
import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from toy import image_setup, vit
from transformers import TrainerCallback

from hf_unlearn.errors import UserError
from hf_unlearn.methods import get_method
from hf_unlearn.run import stages
from hf_unlearn.train import main
from hf_unlearn.trainers.resuming import CHECKSUMS, METHOD_STATE, find_checkpoint, what_is_missing


def make(folder: Path, method: str = "fine_tune", *, splits=None, model=None, **more):
    given, own, task = image_setup()
    values = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-3, "use_cpu": True}
    values |= {"per_device_train_batch_size": 8, "disable_tqdm": True, "report_to": [], "seed": 0} | more
    kind = get_method(method)
    args = kind.config_class(output_dir=str(folder), **values)
    return kind(model or given, args, splits or own, task, quiet=True)


@pytest.fixture
def stopped(tmp_path) -> Path:
    """A finished run's checkpoints 2, 4 and 6, and its weights."""
    trainer = make(tmp_path / "run")
    trainer.train()
    torch.save(trainer.model.state_dict(), tmp_path / "weights.pt")
    return tmp_path / "run"


def other_rows():
    _, splits, _ = image_setup()
    forget, retain = splits.forget.indices, splits.retain.indices
    moved = {
        "forget": splits.forget.at([*forget[1:], retain[0]]),
        "retain": splits.retain.at([forget[0], *retain[1:]]),
    }
    return dataclasses.replace(splits, **moved)


DIFFERENT = {
    "seed": ({"seed": 1}, "made with seed 0, and this run has 1"),
    "rate": ({"learning_rate": 2e-3}, "made with learning_rate 0.001, and this run has 0.002"),
    "batch": ({"per_device_train_batch_size": 4}, "per_device_train_batch_size 8"),
    "momentum": ({"adam_beta1": 0.5}, "adam_beta1"),
    "rows": ({"splits": other_rows}, "of other rows"),
    "original": ({"model": lambda: vit(seed=1)}, "of another original"),
    "method": ({"method": "salun", "saliency": 1.0}, "made with method fine_tune, and this run has salun"),
}


def test_another_run_is_refused_by_name(stopped):
    for changes, said in DIFFERENT.values():
        made = {name: value() if callable(value) else value for name, value in changes.items()}
        with pytest.raises(UserError, match=said):
            make(stopped, **made).train(resume_from_checkpoint=str(stopped / "checkpoint-4"))


def test_a_trainer_goes_on_from_its_own_checkpoints_and_no_other_of_its_model(stopped):
    """The weights that a training has moved are no sign of another original, if the checkpoint is of that training."""
    trainer = make(stopped.parent / "own", max_steps=4)
    trainer.train()
    for last in ("checkpoint-2", "checkpoint-4"):
        trainer.train(resume_from_checkpoint=str(stopped.parent / "own" / last))
        assert trainer.state.global_step == 4
    trainer.args.learning_rate = 2e-3
    with pytest.raises(UserError, match="made with learning_rate 0.001, and this run has 0.002"):
        trainer.train(resume_from_checkpoint=True)
    after = make(stopped.parent / "own", max_steps=4, model=trainer.model)
    with pytest.raises(UserError, match="of another original model, or of this one before it was trained"):
        after.train(resume_from_checkpoint=True)


def test_last_is_the_newest_whole_one_and_ends_the_same(stopped):
    (stopped / "checkpoint-6" / "trainer_state.json").unlink()  # killed while it was written
    weights = stopped / "checkpoint-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert find_checkpoint("last", stopped) == str(stopped / "checkpoint-2")
    trainer = make(stopped)
    trainer.train(resume_from_checkpoint=True)
    whole = torch.load(stopped.parent / "weights.pt")
    assert trainer.state.global_step == 6
    assert all(torch.equal(value, whole[name]) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("method", ["fine_tune", "nabla_tau", "salun", "neg_grad_plus"])
def test_a_fresh_adapter_that_was_drawn_anew_goes_on_as_the_first(tmp_path, method):
    """`get_peft_model` draws at random, and few scripts set a seed before it; the base is the original."""

    def adapted(seed: int, of: int = 0):
        torch.manual_seed(seed)
        config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
        return get_peft_model(vit(seed=of), config)

    whole = make(tmp_path / "run", method, model=adapted(1))
    whole.train()
    again = make(tmp_path / "run", method, model=adapted(2))
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    ends = whole.model.state_dict()
    assert all(torch.equal(value, ends[name]) for name, value in again.model.state_dict().items())
    with pytest.raises(UserError, match="of another original"):
        make(tmp_path / "run", method, model=adapted(1, of=1)).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", METHOD_STATE, "model.safetensors"])
def test_a_checkpoint_that_lacks_something_is_refused_by_name(tmp_path, name):
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    (folder / "trainer_state.json").write_text("{}")
    for each in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({}, folder / each)
    from safetensors.torch import save_file

    for each in (METHOD_STATE, "model.safetensors"):
        save_file({"a": torch.zeros(50)}, folder / each)
    assert what_is_missing(folder) is None
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-20])
    assert what_is_missing(folder) == f"{name} is damaged"
    (folder / name).unlink()
    assert "is missing" in what_is_missing(folder)
    for asked in ("last", str(folder)):
        with pytest.raises(UserError, match="no checkpoint there that is whole .*is missing"):
            find_checkpoint(asked, tmp_path)


def damage(file: Path, how: str) -> None:
    """As a power cut or a bad disk leaves a file: its length is right."""
    content = bytearray(file.read_bytes())
    if how == "zeros":
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    elif how == "all zeros":
        content = bytearray(len(content))
    else:
        content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGED = [("model.safetensors", "zeros"), ("optimizer.pt", "flipped"), (METHOD_STATE, "flipped"),
           ("trainer_state.json", "flipped"), ("rng_state.pth", "flipped"), (CHECKSUMS, "all zeros")]  # fmt: skip


def test_a_file_whose_content_is_another_is_noticed(stopped):
    folder = stopped / "checkpoint-6"
    assert what_is_missing(folder) is None
    for name, how in DAMAGED:
        content = (folder / name).read_bytes()
        damage(folder / name, how)
        assert what_is_missing(folder) == f"{name} is damaged"
        assert find_checkpoint("last", stopped) == str(stopped / "checkpoint-4")
        with pytest.raises(UserError, match=rf"checkpoint-6.* no checkpoint there that is whole \({name} is damaged"):
            find_checkpoint(str(folder), stopped)
        (folder / name).write_bytes(content)
    assert what_is_missing(folder) is None and find_checkpoint("last", stopped) == str(folder)


def test_a_checkpoint_is_checked_after_it_was_saved_a_second_time(stopped):
    (stopped / "checkpoint-6" / f"{CHECKSUMS}.partial").write_text("{")  # left by a kill
    trainer = make(stopped)
    trainer.train(resume_from_checkpoint=str(stopped / "checkpoint-4"))
    assert what_is_missing(stopped / "checkpoint-6") is None


def test_a_checkpoint_without_checksums_is_gone_on_from_and_told(stopped, capsys):
    (stopped / "checkpoint-6" / CHECKSUMS).unlink()
    assert find_checkpoint("last", stopped) == str(stopped / "checkpoint-6")
    assert "checkpoint-6 has no checksums" in capsys.readouterr().out
    weights = stopped / "checkpoint-6" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])  # what the form of a file tells is looked at all the same
    assert find_checkpoint("last", stopped) == str(stopped / "checkpoint-4")
    assert "checkpoint-4" not in capsys.readouterr().out


TWO = """
import sys
sys.path.insert(0, {tests!r})
sys.path.insert(0, {tests!r} + "/trainers")
from pathlib import Path
from test_resuming import damage, make, what_is_missing
from hf_unlearn.trainers import resuming

folder = Path({out!r})
make(folder, ddp_backend="gloo").train()
trainer = make(folder, ddp_backend="gloo")
if trainer.args.process_index == 0:
    files = {{path.name for path in (folder / "checkpoint-6").iterdir()}}
    assert {{"rng_state_0.pth", "rng_state_1.pth"}} <= files, files
    assert what_is_missing(folder / "checkpoint-6") is None
    damage(folder / "checkpoint-6" / "rng_state_1.pth", "flipped")
else:
    resuming.what_is_missing = None  # it is not asked
trainer.accelerator.wait_for_everyone()
assert resuming.find_checkpoint("last", folder) == str(folder / "checkpoint-4")
trainer.train(resume_from_checkpoint=True)
assert trainer.state.global_step == 6
trainer.accelerator.wait_for_everyone()
"""


@pytest.mark.slow
def test_the_first_of_two_processes_checks_and_the_other_follows(tmp_path):
    done = processes.run(TWO.format(tests=str(Path(__file__).parents[1]), out=str(tmp_path / "run")), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert what_is_missing(tmp_path / "run" / "checkpoint-6") is None


def test_no_row_is_told(stopped):
    from safetensors import safe_open

    with safe_open(stopped / "checkpoint-2" / METHOD_STATE, "pt") as file:
        told = json.loads(file.metadata()["run"])
    assert len(told["rows"]) == 64 and told["seed"] == 0 and told["method"] == "fine_tune"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_with_one_line_that_says_how_to_go_on(tmp_path, capsys, monkeypatch, name):
    number = getattr(signal, name)

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                os.kill(os.getpid(), number)

    make_trainer = stages.make_trainer

    def killed(arguments, *rest):
        trainer = make_trainer(arguments, *rest)
        trainer.add_callback(Kill())
        return trainer

    config = tiny.own_data(tmp_path, "image_classification", max_steps=4, save_strategy="steps", save_steps=2)
    config = {key: value for key, value in config.items() if key != "proxy_epochs"} | {"method": "fine_tune"}
    config["original"]["num_train_epochs"] = 1
    path = tiny.write_config(tmp_path, config)
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "make_trainer", killed)
        assert main(["--config", path]) == {"SIGINT": 130, "SIGTERM": 143}[name]
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1 and "--resume_from_checkpoint last goes on from checkpoint-2" in err
    assert signal.getsignal(number) is before
    assert main(["--config", path, "--resume_from_checkpoint", "last"]) == 0
    shutil.rmtree(tmp_path / "out")
