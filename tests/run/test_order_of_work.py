"""What is refused is refused before hours of training; what is finished is on the disk before anything can fail."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import tiny

from hf_unlearn.errors import UserError
from hf_unlearn.models import lora
from hf_unlearn.run import stages
from hf_unlearn.train import main


@pytest.fixture
def no_training(monkeypatch):
    """The original must not be trained."""

    def fail(*_, **__):
        raise AssertionError("trained before it was refused")

    monkeypatch.setattr(stages, "train_recipe", fail)


def config(folder: Path, task: str = "image_classification", **more) -> dict:
    made = tiny.own_data(folder, task) | {"method": "fine_tune"} | more
    made["original"]["num_train_epochs"] = 1
    made.pop("proxy_epochs")
    if made["method"] == "unsir":
        made.pop("num_train_epochs")  # its phases take the place of epochs
    return made


def refused(folder: Path, made: dict, capsys, said: str) -> None:
    assert main(["--config", tiny.write_config(folder, made)]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and len(err.splitlines()) == 1, err
    assert not (folder / "out").exists()


LATE = {
    "UNSIR on a language model": ("causal_lm", {"method": "unsir"}, "not of one class each"),
    "patterns that match nothing": ("image_classification", {"saliency_include": ["nothing*"]}, "nothing*"),
    "an adapter that is not there": ("image_classification", {"save_adapter": True}, "there is no adapter"),
    "LoRA targets": ("image_classification", {"use_peft": True, "lora_target_modules": ["nowhere"]}, "nowhere"),
}


@pytest.mark.parametrize("case", LATE)
def test_what_the_trainer_refuses_comes_before_the_original(tmp_path, capsys, no_training, case):
    task, more, said = LATE[case]
    refused(tmp_path, config(tmp_path, task, **more), capsys, said)


@pytest.mark.parametrize("full", ["out", "cache"])
def test_a_full_disk_is_seen_before_the_original(tmp_path, capsys, monkeypatch, no_training, full):
    usage, free = namedtuple("usage", "free"), shutil.disk_usage

    def disk_usage(folder):
        return usage(0) if Path(folder).name == full else free(folder)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    made = config(tmp_path, cache_dir=str(tmp_path / "cache"))
    refused(tmp_path, made, capsys, f"{full} has 0 MB free")


def test_a_broken_reference_is_seen_before_the_original(tmp_path, capsys, no_training):
    made = config(tmp_path, reference_model=[str(tmp_path / "reference")])
    model = stages_model(made, tmp_path)
    model.save_pretrained(tmp_path / "reference")
    weights = tmp_path / "reference" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(tmp_path, made, capsys, "reference' cannot be loaded")


def stages_model(made: dict, folder: Path):
    """The recipe's untrained model."""
    from hf_unlearn.run.parsing import parse_arguments
    from hf_unlearn.run.rows import prepare_data

    plain = {key: value for key, value in made.items() if key != "reference_model"}
    return prepare_data(parse_arguments(["--config", tiny.write_config(folder, plain), "--dry_run"])).model


def test_the_model_is_saved_before_the_twins(tmp_path, capsys, monkeypatch):
    """And what is measured is what is saved: the adapter is merged before the scores."""
    seen, score = [], stages.score_model

    def spy(arguments, data, model, title=None):
        seen.append((title, lora.is_peft(model)))
        return score(arguments, data, model, title)

    def fail(*_):
        raise UserError("the twins failed")

    monkeypatch.setattr(stages, "score_model", spy)
    made = config(tmp_path, use_peft=True, max_steps=2)
    assert main(["--config", tiny.write_config(tmp_path, made)]) == 0
    assert ("the unlearned model", False) in seen
    whole = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "out" / "evidence.json").read_text())["model"]["peft"]["r"] == 8

    monkeypatch.setattr(stages, "make_twin", fail)
    assert (
        main(["--config", tiny.write_config(tmp_path, made | {"output_dir": str(tmp_path / "again"), "retrain": 1})])
        == 2
    )
    assert "the twins failed" in capsys.readouterr().err
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == whole
