"""Trainer's own ways to the Hub lead to one push of the finished result."""

import json

import pytest
from toy import SETUPS

from hf_unlearn.errors import UserError
from hf_unlearn.hub import upload
from hf_unlearn.hub.staging import stage
from hf_unlearn.methods.fine_tune import FineTuneConfig, FineTuneTrainer


@pytest.fixture
def pushes(monkeypatch):
    """What would have been pushed: the folder, the repository, the options."""
    found = []
    monkeypatch.setattr(upload, "push", lambda folder, repo, **more: found.append((folder, repo, more)) or "address")
    return found


def make(folder, kind="image", adapter=False, **more):
    model, splits, task = SETUPS[kind]()
    if adapter:
        from hf_unlearn.models.lora import add_lora

        model = add_lora(model, r=2, alpha=4, dropout=0.0, task_type=task.peft_task_type)
    args = FineTuneConfig(output_dir=str(folder), max_steps=3, use_cpu=True, disable_tqdm=True, **more)
    return FineTuneTrainer(model, args, splits, task, quiet=True)


def test_saves_and_checkpoints_push_nothing(tmp_path, pushes):
    trainer = make(
        tmp_path / "out", push_to_hub=True, hub_model_id="me/model", hub_token="t", save_strategy="steps", save_steps=1
    )
    trainer.train()
    assert (tmp_path / "out" / "checkpoint-3").is_dir() and pushes == []
    trainer.save_model(str(tmp_path / "elsewhere"))
    ((folder, repo, more),) = pushes
    assert (folder, repo) == (str(tmp_path / "out"), "me/model") and more["token"] == "t"


def test_a_push_takes_the_finished_result(tmp_path, pushes):
    trainer = make(tmp_path / "out", hub_private_repo=True)
    with pytest.raises(UserError, match="call train"):
        trainer.push_to_hub()
    trainer.train()
    assert trainer.push_to_hub("message", revision="branch") == "address"
    ((folder, repo, more),) = pushes
    assert (repo, more["private"], more["revision"], more["commit_message"]) == ("out", True, "branch", "message")
    names = stage(folder, tmp_path / "staged")
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "evidence.json", "README.md"} < set(names)
    evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert evidence["models"]["unlearned"] and evidence["data"]["splits"]["forget"] == len(trainer.splits.forget)


def test_an_adapter_is_merged_before_it_is_pushed(tmp_path, pushes):
    trainer = make(tmp_path / "out", kind="text", adapter=True)
    trainer.train()
    trainer.save_model()  # Trainer's way: the adapter as it is
    trainer.push_to_hub()
    names = stage(tmp_path / "out", tmp_path / "staged")
    assert "model.safetensors" in names and "adapter_model.safetensors" not in names
    trainer.push_to_hub(push_adapter=True)
    assert pushes[1][2]["push_adapter"] and (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_nothing_is_pushed_from_within_training(tmp_path, pushes):
    from transformers import TrainerCallback

    class Eager(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            trainer.save_model()
            with pytest.raises(UserError, match="unfinished"):
                trainer.push_to_hub()

    trainer = make(tmp_path / "out", push_to_hub=True, hub_model_id="me/model")
    trainer.add_callback(Eager())
    trainer.train()
    assert pushes == []


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_only_the_end_is_pushed(tmp_path, strategy):
    with pytest.raises(UserError, match="hub_strategy"):
        make(tmp_path / "out", push_to_hub=True, hub_strategy=strategy)
    with pytest.raises(UserError, match="blocking"):
        make(tmp_path / "out").push_to_hub(blocking=False)


def test_a_name_that_is_none_is_refused_before_training(tmp_path):
    with pytest.raises(UserError, match="is no name of a repository"):
        make(tmp_path / "out", push_to_hub=True, hub_model_id="a/b/c")
