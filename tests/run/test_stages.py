"""The whole command on tiny data: what it leaves, and that it leaves the same however it is run."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import processes
import pytest
import tiny
import torch
from guards import GuardError, guard
from toy import SETUPS

from hf_unlearn.evaluation.scoring import score
from hf_unlearn.methods.nabla_tau import NablaTauConfig, NablaTauTrainer
from hf_unlearn.report.evidence import validate
from hf_unlearn.run import results
from hf_unlearn.tasks import get_task
from hf_unlearn.train import main

TASKS = ("image_classification", "text_classification", "causal_lm")


@pytest.fixture
def run(monkeypatch):
    """Runs the command and gives the trainer at its end, and the evidence."""
    seen = {}
    save = results.save

    def keep(arguments, data, trainer, evidence):
        seen["trainer"] = trainer
        save(arguments, data, trainer, evidence)

    monkeypatch.setattr(results, "save", keep)

    def command(folder: Path, config: dict, *argv: str):
        seen.clear()
        status = main(["--config", tiny.write_config(folder, config), *argv])
        assert status == 0
        return seen["trainer"], json.loads((Path(config["output_dir"]) / "evidence.json").read_text())

    return command


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """For each task: data, a trained model in a folder, and the same model with an adapter in another."""
    made = {}

    def get(task: str) -> Path:
        if task not in made:
            folder = tmp_path_factory.mktemp(task)
            config = tiny.own_data(folder, task, method="fine_tune", learning_rate=1e-9)
            del config["proxy_epochs"]
            assert main(["--config", tiny.write_config(folder, config)]) == 0
            adapter = {"use_peft": True, "save_adapter": True, "output_dir": str(folder / "adapter")}
            path = tiny.write_config(folder, given(folder, folder, task) | adapter)
            assert main(["--config", path]) == 0
            made[task] = folder
        return made[task]

    return get


def given(original: Path, folder: Path, task: str, **more) -> dict:
    """A run on a model that was given."""
    config = tiny.own_data(folder, task) | {
        "dataset_name": str(original / "data"), "model_name_or_path": str(original / "out"), **more
    }  # fmt: skip
    return {key: value for key, value in config.items() if key not in ("original", "processor_name_or_path")}


def logits(model, trainer) -> torch.Tensor:
    batch = trainer.task.collate(trainer.splits.test.__getitems__(range(6)))
    model = model.to("cpu").eval()
    with torch.no_grad():
        return trainer.task.predict(model, batch).logits


@pytest.mark.parametrize("kind", ["full", "lora", "given adapter"])
@pytest.mark.parametrize("task", TASKS)
def test_the_result_reloads_and_reproduces_its_logits(tmp_path, run, originals, task, kind):
    original = originals(task)
    config = given(original, tmp_path, task)
    if kind == "lora":
        config |= {"use_peft": True, "lora_r": 2}
    if kind == "given adapter":
        config |= {"model_name_or_path": str(original / "adapter")}
    trainer, evidence = run(tmp_path, config)
    assert trainer.state.global_step > 0 and validate(evidence) == []
    assert (evidence["model"]["peft"] is None) == (kind == "full")
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    auto = get_task(task).auto_model()
    loaded = auto.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(loaded, trainer), logits(trainer.model, trainer), atol=1e-5)
    before = auto.from_pretrained(original / "out")
    assert not torch.allclose(logits(loaded, trainer), logits(before, trainer), atol=1e-3)
    get_task(task).load_processor(str(tmp_path / "out"))
    said = " ".join(evidence["notes"]) + (tmp_path / "out" / "README.md").read_text()
    assert said.count("an adapter alone can be switched off") == (0 if kind == "full" else 2)


@pytest.mark.parametrize("source", ["out", "adapter"])
@pytest.mark.parametrize("task", TASKS)
def test_a_saved_adapter_is_one_adapter_on_its_base(tmp_path, capsys, run, originals, task, source):
    from peft import PeftModel

    original = originals(task)
    config = given(original, tmp_path, task, save_adapter=True, model_name_or_path=str(original / source))
    trainer, evidence = run(tmp_path, config | ({"use_peft": True} if source == "out" else {}))
    out = tmp_path / "out"
    assert (out / "adapter_model.safetensors").is_file() and not (out / "model.safetensors").exists()
    assert not (out / "reference").exists()
    base = get_task(task).auto_model().from_pretrained(original / "out")
    loaded = PeftModel.from_pretrained(base, out)
    assert list(loaded.peft_config) == ["default"]
    assert torch.allclose(logits(loaded, trainer), logits(trainer.model, trainer), atol=1e-5)
    for text in (" ".join(evidence["notes"]), (out / "README.md").read_text(), capsys.readouterr().out):
        assert "whoever switches it off has" in text.replace("\n", " ")


MARK = "xyzzy"


def test_nothing_of_the_request_and_of_this_machine_leaves(tmp_path, capfd, run, originals):
    """Every file of the output folder and everything printed, for each kind of request."""
    original = originals("text_classification")
    data = tiny.text_folder(tmp_path / MARK / "data", seed=3)
    path = data / "train.csv"
    lines = path.read_text().splitlines()
    for i in range(1, 9):  # ids and answers of eight rows carry the mark; the texts do for the digest
        text, label, question, _, row = lines[i].split(",")
        lines[i] = f"{text} {MARK},{label},{question},{MARK},{MARK}{row}"
    path.write_text("\n".join(lines) + "\n")
    ids = tmp_path / f"{MARK}-ids.txt"
    ids.write_text("\n".join(line.split(",")[-1] for line in lines[1:9]))
    requests = [{"forget_ids": str(ids), "id_column": "row_id"}, {"forget_where": [f"answer={MARK}"]}]
    for k, request in enumerate(requests):
        config = given(original, tmp_path, "text_classification", output_dir=str(tmp_path / f"out{k}"))
        config |= {"dataset_name": str(data), "save_strategy": "steps", "save_steps": 3, "eval_strategy": "steps",
                   "eval_steps": 3, "load_best_model_at_end": True,
                   "metric_for_best_model": "eval_validation_loss"} | request  # fmt: skip
        del config["forget_fraction"]
        _, evidence = run(tmp_path, config)
        assert evidence["data"]["splits"]["forget"] == 8 and evidence["data"]["request"]["kind"] in ("ids", "where")
        printed = "".join(capfd.readouterr())
        assert MARK not in printed.replace(str(tmp_path), "")
        private = [MARK, str(tmp_path), os.path.expanduser("~")]
        private += [os.uname().nodename] * (
            len(os.uname().nodename) > 3
        )  # a shorter one stands in any picture by chance
        for file in (tmp_path / f"out{k}").rglob("*"):
            content = file.read_bytes() if file.is_file() else b""
            words = [MARK] if "checkpoint-" in str(file) else private  # checkpoints know where they are
            assert not [word for word in words if word.encode() in content], file


def test_class_names_are_published_only_on_request(tmp_path, run):
    for publish in (False, True):
        config = tiny.digits(tmp_path, output_dir=str(tmp_path / f"out{publish}"), publish_request=publish)
        config["forget_classes"] = ["3"]
        del config["forget_fraction"]
        _, evidence = run(tmp_path, config)
        request = evidence["data"]["request"]
        assert request.get("classes") == (["3"] if publish else None) and request["count"] == 1


def test_resuming_ends_as_the_uninterrupted_run(tmp_path, capsys, run):
    config = tiny.digits(tmp_path, save_strategy="steps", save_steps=4, max_steps=10, retrain=1)
    trainer, evidence = run(tmp_path, config)
    whole = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    out = tmp_path / "out"
    for name in ("model.safetensors", "evidence.json"):
        (out / name).unlink()
    for name in ("checkpoint-8", "checkpoint-10"):
        shutil.rmtree(out / name, ignore_errors=True)
    assert "training a proxy" in capsys.readouterr().out
    trainer, again = run(tmp_path, config, "--resume_from_checkpoint", "last")
    assert "training a proxy" not in capsys.readouterr().out  # it went on at step 4
    assert all(torch.equal(value, whole[name]) for name, value in trainer.model.state_dict().items())
    assert again["models"] == evidence["models"] and again["cost"]["steps"] == 10
    assert again["cost"]["unlearn_examples"] == evidence["cost"]["unlearn_examples"]


def test_the_same_seed_twice_gives_the_same_evidence(tmp_path, run):
    first = run(tmp_path, tiny.digits(tmp_path, output_dir=str(tmp_path / "a")))
    again = run(tmp_path, tiny.digits(tmp_path, output_dir=str(tmp_path / "b")))
    other = run(tmp_path, tiny.digits(tmp_path, output_dir=str(tmp_path / "c"), seed=1))
    assert first[1]["models"] == again[1]["models"] != other[1]["models"]
    state = again[0].model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first[0].model.state_dict().items())


def test_twins_and_references(tmp_path, run, originals):
    original = originals("causal_lm")
    config = tiny.own_data(tmp_path, "causal_lm", retrain=2, reference_model=[str(original / "out")])
    _, evidence = run(tmp_path, config)
    assert evidence["models"]["retrained"]["twins"] == 3 and evidence["floor"]["average"] is not None
    assert evidence["cost"]["retrain_examples"] == 20 * 48 and evidence["cost"]["original_examples"] == 20 * 3 * 16


def test_near_duplicates(tmp_path, run, originals):
    """Retained images that are forgotten ones, or but for one grey level of a pixel, are found, and moved if asked."""
    from PIL import Image

    data = tiny.image_folder(tmp_path / "rows")
    for label, name in (("cold", "000.png"), ("warm", "001.png")):
        folder = tmp_path / "forget" / "train" / label
        folder.mkdir(parents=True)
        shutil.copy(data / "train" / label / name, folder)
    image = Image.open(data / "train" / "cold" / "000.png")
    image.putpixel((3, 3), image.getpixel((3, 3)) ^ 1)
    image.save(data / "train" / "cold" / "000.png")  # warm/001.png stays an exact copy
    config = given(originals("image_classification"), tmp_path, "image_classification", dataset_name=str(data))
    config |= {"near_duplicates": True, "forget_dataset": str(tmp_path / "forget")}
    del config["forget_fraction"]
    _, evidence = run(tmp_path, config)
    splits = evidence["data"]["splits"]
    assert splits["exact_duplicates"] == 1 and splits["near_duplicates"] == 2 and splits["forget"] == 2
    assert "nearly repeat a forgotten row: pass --forget_duplicates" in " ".join(evidence["notes"])
    _, after = run(tmp_path, config | {"forget_duplicates": True, "output_dir": str(tmp_path / "moved")})
    counts = after["data"]["splits"]
    assert (counts["moved_duplicates"], counts["moved_near_duplicates"], counts["forget"]) == (1, 1, 4)
    assert counts["forget"] + counts["retain"] == 50 and evidence["data"]["request"]["kind"] == "dataset"
    assert after["data"]["forget_digest"] != evidence["data"]["forget_digest"]


def test_prompts_and_contexts(tmp_path, capsys):
    config = tiny.own_data(tmp_path, "causal_lm", prompt_template="Question : {question} Answer :")
    path = tiny.write_config(tmp_path, config | {"context_column": "text"})
    assert main(["--config", path, "--dry_run"]) == 0
    assert main(["--config", path, "--dry_run", "--prompt_template", "nothing"]) == 2
    assert "has no {question}" in capsys.readouterr().err
    assert main(["--config", path, "--dry_run", "--prompt_template", "chat"]) == 2
    assert "no chat template" in capsys.readouterr().err


@pytest.mark.parametrize("variant", ["rows", "held", "paper"])
@pytest.mark.parametrize("kind", SETUPS)
def test_training_reads_no_row_that_only_reports(tmp_path, kind, variant):
    model, splits, task = SETUPS[kind]()
    args = NablaTauConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, variant=variant, num_train_epochs=1, proxy_epochs=1,
        use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = NablaTauTrainer(model, args, guard(splits), task, quiet=True)
    trainer.train()
    assert trainer.state.global_step > 0
    with pytest.raises(GuardError):
        trainer.evaluate()


@pytest.mark.slow
def test_two_processes(tmp_path):
    config = tiny.own_data(tmp_path, "image_classification", retrain=1, ddp_backend="gloo", near_duplicates=True)
    path = tiny.write_config(tmp_path, config)
    script = (Path(results.__file__).parents[1] / "train.py").read_text()
    done = processes.run(script, "--config", path, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert evidence["method"]["hyperparameters"]["world_size"] == 2
    assert done.stdout.count("forget accuracy") == 1 and done.stdout.count("splits ") == 1
    get_task("image_classification").auto_model().from_pretrained(tmp_path / "out")
    bad = processes.run(script, "--config", path, processes=2)
    assert bad.returncode != 0 and bad.stderr.count("hf-unlearn: ") == 1 and "is not empty" in bad.stderr


def test_mixed_precision_after_training_the_original(tmp_path, run):
    """The run has it; what is scored afterwards has it no more than its original and twins."""
    trainer, evidence = run(tmp_path, tiny.digits(tmp_path, bf16=True, retrain=1), "--original_seed", "7")
    assert trainer.accelerator.native_amp
    saved = trainer.task.auto_model().from_pretrained(tmp_path / "out")
    found = score(saved, trainer.task, trainer.splits.forget).loss.mean()
    assert evidence["models"]["unlearned"]["loss"]["forget"] == pytest.approx(found, rel=1e-6)


def test_hyperparameters_are_plain_json(tmp_path, run):
    _, evidence = run(tmp_path, tiny.digits(tmp_path, lr_scheduler_type="cosine", optim="adamw_torch"))
    assert evidence["method"]["hyperparameters"]["lr_scheduler_type"] == "cosine"
    assert np.isfinite(evidence["method"]["hyperparameters"]["learning_rate"])
    assert isinstance(evidence["method"]["hyperparameters"]["optim"], str)
