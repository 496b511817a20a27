"""Every shipped configuration is understood, and runs up to the first step."""

from pathlib import Path

import pytest

from hf_unlearn.run.checks import check
from hf_unlearn.run.parsing import parse_arguments
from hf_unlearn.train import main

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
NAMES = [path.stem for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_it_is_understood_and_commented(path, tmp_path):
    # As shipped: only where it is written, and that there is no GPU.
    arguments = parse_arguments(["--config", str(path), "--output_dir", str(tmp_path / "out"), "--use_cpu", "true"])
    check(arguments)
    assert arguments.has_recipe or path.stem == "hub_sd_salun"  # nobody makes Stable Diffusion anew
    text = path.read_text()
    assert text.startswith("# ") and text.count("#") >= 5
    assert f"output_dir: out/{path.stem}" in text


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in CONFIGS if not p.stem.startswith("hub_")], ids=lambda path: path.stem)
def test_it_would_run(path, tmp_path, capsys):
    argv = ["--config", str(path), "--output_dir", str(tmp_path / "out"), "--use_cpu", "true", "--dry_run"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "forget " in out and "steps of" in out and not (tmp_path / "out").exists()


def test_the_configurations_that_are_promised():
    assert set(NAMES) >= {
        "quickstart", "digits_remove_class", "text_nabla_tau", "lm_nabla_tau", "digits_lora", "hub_vit_cifar10",
        "digits_salun", "text_salun", "lm_salun", "digits_unsir", "text_unsir", "ddpm_digits_salun",
        "latent_digits_salun", "hub_sd_salun",
    }  # fmt: skip
