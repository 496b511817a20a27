"""The package as users get it: a wheel that works where the repository is not."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml
from toy import tokenizer

import hf_unlearn
from hf_unlearn.cli import main
from hf_unlearn.commands.init import KINDS, template
from hf_unlearn.run.parsing import parse_arguments

ROOT = Path(__file__).parents[1]


def run(*command: str, folder: Path, site: Path | None = None) -> str:
    env = os.environ | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env["PYTHONPATH"] = str(site) if site else ""
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the installed wheel and nothing else of this repository; built and installed offline."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for package in ("hf_unlearn", "hf_unlearn_diffusion"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip"]
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "wheels", str(source), folder=folder)
    (wheel,) = (folder / "wheels").glob("*.whl")
    assert wheel.name == f"hf_unlearn-{hf_unlearn.__version__}-py3-none-any.whl"
    run(*pip, "install", "--quiet", "--no-deps", "--target", "site", str(wheel), folder=folder)
    return folder / "site"


@pytest.mark.slow
def test_an_installed_wheel_runs_a_job(site, tmp_path):
    """The text template, filled in on the command line, through the module that `accelerate launch -m` starts."""
    from transformers import BertConfig, BertForSequenceClassification

    names = {"id2label": {0: "cold", 1: "warm"}, "label2id": {"cold": 0, "warm": 1}}
    model = BertForSequenceClassification(BertConfig(**tiny.BERT, vocab_size=20, num_labels=2, **names))
    model.save_pretrained(tmp_path / "my-classifier")
    tokenizer().save_pretrained(tmp_path / "my-classifier")
    tiny.text_folder(tmp_path, rows=40)
    (tmp_path / "deletion_requests.txt").write_text("train003\ntrain011\n")
    places = run(sys.executable, "-c", "import hf_unlearn; print(hf_unlearn.__file__)", folder=tmp_path, site=site)
    assert Path(places.strip()).is_relative_to(site)
    main(["init", "text", "--output", str(tmp_path / "run.yaml")])
    quick = ["--config", "run.yaml", "--id_column", "row_id", "--max_steps", "2", "--use_cpu", "true"]
    quick += ["--method", "fine_tune", "--per_device_train_batch_size", "8"]
    out = run(sys.executable, "-m", "hf_unlearn.train", *quick, folder=tmp_path, site=site)
    assert "forget 2, retain 38" in out
    evidence = json.loads((tmp_path / "unlearned" / "evidence.json").read_text())
    assert evidence["environment"]["packages"]["hf_unlearn"] == hf_unlearn.__version__
    assert {"model.safetensors", "report.html", "README.md"} <= {p.name for p in (tmp_path / "unlearned").iterdir()}
    shipped = {path.name for path in (site / "hf_unlearn").rglob("*.yaml")}
    assert shipped == {"demo_llm.yaml", *(f"{kind}.yaml" for kind in KINDS)}
    assert (site / "hf_unlearn" / "data" / "builtin" / "invented_authors.jsonl").is_file()
    assert (site / "hf_unlearn" / "py.typed").is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_init_writes_what_train_understands(kind, tmp_path, monkeypatch, capsys):
    """As it is written, and with every alternative in its comments."""
    monkeypatch.chdir(tmp_path)
    assert main(["init", kind]) == 0
    assert "hf-unlearn train --config run.yaml --dry_run" in capsys.readouterr().out
    assert (tmp_path / "run.yaml").read_text() == template(kind)
    arguments = parse_arguments(["--config", "run.yaml"])
    assert arguments.model.model_name_or_path and arguments.data.task and arguments.run.method == "nabla_tau"
    commented = re.findall(r"^# (\w+: .+|  \w+: .+|original:)$", template(kind), re.M)
    values = yaml.safe_load("\n".join(line for line in commented if not line.startswith("forget_")))
    assert len(values) >= 5 and values["original"]["model"]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(values))
    parse_arguments(["--config", "all.yaml", "--bf16", "false"])  # there is no GPU
    for line in (line for line in commented if line.startswith("forget_")):
        (tmp_path / "one.yaml").write_text(line)
        parse_arguments(["--config", "one.yaml"])


def test_init_overwrites_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("mine: 1\n")
    for argv, said in (
        (["init"], "--output run.yaml exists; name another file"),
        (["init", "audio"], "invalid choice: 'audio'"),
        (["init", "--output", "no/where.yaml"], "cannot be written (No such file or directory)"),
    ):
        assert main(argv) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert Path("run.yaml").read_text() == "mine: 1\n"


def test_one_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hf_unlearn {hf_unlearn.__version__}\n"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == hf_unlearn.__version__
    assert re.findall(r"version = \{(.*)\}", (ROOT / "README.md").read_text()) == [hf_unlearn.__version__]
    assert re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[0] == hf_unlearn.__version__
