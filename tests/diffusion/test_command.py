"""The whole command for a model that draws, and its push: what arrives draws the same images in another process."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from toy_diffusion import NETWORK

from hf_unlearn.cli import main
from hf_unlearn.hub.staging import stage

FRESH = """
import sys, torch, numpy
from hf_unlearn_diffusion.pipeline import ClassConditionalPipeline
pipe = ClassConditionalPipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
classes = list(pipe.config.id2label.values())
numpy.save(sys.argv[2], pipe(classes, generator=torch.Generator().manual_seed(0), num_inference_steps=4,
                             output_type="pt").images.numpy())
"""


def config(folder: Path, **more) -> dict:
    original = {"model_type": "unet2d", "model_config": NETWORK, "num_train_epochs": 1, "learning_rate": 1e-2}
    given = {
        "task": "image_generation", "method": "diffusion_salun", "forget_classes": ["3"], "dataset_name": "digits",
        "output_dir": str(folder / "out"), "cache_dir": str(folder / "cache"), "original": original, "retrain": 1,
        "max_steps": 2, "use_cpu": True, "per_device_eval_batch_size": 256,
    }  # fmt: skip
    return given | more


@pytest.mark.slow
def test_a_run_draws_and_what_is_pushed_draws_the_same(installed, tmp_path, capsys):
    run = config(tmp_path, generate=2)
    assert main(["train", "--config", tiny.write_config(tmp_path, run)]) == 0, capsys.readouterr().err
    screen = capsys.readouterr().out
    assert "drawn as a forgotten class (%)" in screen and "forget noise found (%)" in screen
    out, staged = tmp_path / "out", tmp_path / "staged"
    evidence = json.loads((out / "evidence.json").read_text())
    assert evidence["drawn"]["images"] == {"forgotten_classes": 2, "kept_classes": 18}
    assert evidence["units"] == {"accuracy": "noise found", "loss": "MSE"}
    names = stage(out, staged)
    assert set(names) == {
        "README.md", "evidence.json", "model_index.json", "plots/drawn.png", "plots/loss_histogram.png",
        "preprocessor_config.json", "report.html", "scheduler/scheduler_config.json", "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }  # fmt: skip
    index = json.loads((staged / "model_index.json").read_text())
    assert index["id2label"]["3"] == "removed_3" and index["id2label"]["4"] == "4"
    card = (staged / "README.md").read_text()
    assert "library_name: diffusers" in card and "ClassConditionalPipeline.from_pretrained" in card
    assert "(plots/drawn.png)" in card and "data:image/png;base64," in (staged / "report.html").read_text()
    assert str(tmp_path) not in "".join(p.read_text(errors="ignore") for p in staged.rglob("*") if p.is_file())
    found = [tmp_path / "here.npy", tmp_path / "there.npy"]
    exec(FRESH, {"__name__": "here"} | _arguments(out, found[0]))
    subprocess.run(
        [sys.executable, "-c", FRESH, str(staged), str(found[1])], check=True, capture_output=True, timeout=300
    )
    here, there = (np.load(path) for path in found)
    assert here.shape == (10, 1, 8, 8) and np.array_equal(here, there) and not np.array_equal(here[0], here[1])
    # The saved folder is a model for the next run, with its classes by name.
    again = config(
        tmp_path, model_name_or_path=str(out), output_dir=str(tmp_path / "again"), retrain=0, method="fine_tune"
    )
    again.pop("original")
    assert main(["train", "--config", tiny.write_config(tmp_path, again), "--dry_run"]) == 0
    assert "PixelDenoiser" in capsys.readouterr().out


def _arguments(folder: Path, target: Path) -> dict:
    sys.argv = ["-", str(folder), str(target)]
    return {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "npo"}, "--method npo asks how likely labels are, and a denoiser says nothing of that"),
        ({"alpha": 0}, "--alpha is 0.0: without the retain term all classes are lost"),
        (
            {"task": "image_classification", "original": {"model_type": "vit", "model_config": tiny.VIT}},
            "--method diffusion_salun is for models that take noise away; the task is image_classification",
        ),
        ({"original": {"model_type": "vit"}}, "is no denoiser"),
        ({"original": {"model_type": "unet2d", "model_config": {"sample_sise": 8}}}, "did you mean sample_size?"),
        ({"original": {"model_type": "unet2d", "model_config": {"block_out_channels": [8]}}}, "cannot be loaded"),
        ({"forget_classes": ["31"]}, "1 of 1 --forget_classes are unknown; nearest: 3, 1"),
        ({"max_length": 5}, "max_length"),
    ],
)
def test_what_is_refused_is_refused_in_one_line(installed, tmp_path, capsys, change, said):
    assert main(["train", "--config", tiny.write_config(tmp_path, config(tmp_path) | change)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert said in line and not (tmp_path / "out").exists(), line


def test_without_the_extra_the_command_says_what_to_install(installed, tmp_path, capsys, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "diffusers" else find(name, *a))
    assert main(["train", "--config", tiny.write_config(tmp_path, config(tmp_path))]) == 2
    assert (
        "--task image_generation needs the package diffusers: pip install 'hf_unlearn[diffusion]'"
        in capsys.readouterr().err
    )
