"""Only a whole checkpoint of this very run is gone on from, and then the run ends as if it had never been stopped."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import tiny
import torch
from toy import image_setup, vit
from transformers import TrainerCallback

from hf_unlearn.errors import UserError
from hf_unlearn.methods import get_method
from hf_unlearn.run import stages
from hf_unlearn.train import main
from hf_unlearn.trainers.resuming import METHOD_STATE, find_checkpoint, what_is_missing


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
