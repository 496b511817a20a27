"""The README's snippet runs, its command lines parse, and the files it names exist."""

import os
import re
import shlex
import textwrap
from pathlib import Path

import pytest
from toy import text_rows, text_setup

from hf_unlearn.run.parsing import parse_arguments

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_snippet_runs(tmp_path, monkeypatch, capsys):
    """As it stands, with a model, rows and a Hub of ours behind the names."""
    import datasets
    import transformers

    model, _, task = text_setup()
    model.config.label2id = {name: i for i, name in enumerate(task.label_names)}
    rows = {"train": text_rows(40), "test": text_rows(24, seed=1)}
    rows["train"] = rows["train"].add_column("user_id", [f"u{i}" for i in range(40)])
    pushed = []
    monkeypatch.chdir(tmp_path)
    Path("deletion_requests.txt").write_text("u3\nu8\n")
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name: task.processor)
    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", lambda name: model)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(rows))
    keep = lambda folder, name, **more: pushed.append((str(folder), name, more))  # noqa: E731
    monkeypatch.setattr("hf_unlearn.hub.upload.push", keep)
    (code,) = re.findall(r"```python\n(.*?)```", PAGES[0].read_text(), re.S)
    assert len([line for line in code.splitlines() if line]) == 10
    exec(code, {})
    assert "2 of 40 training rows to be forgotten" in capsys.readouterr().out
    assert pushed == [("unlearned", "my-org/support-intents-unlearned", {"private": True})]
    assert (tmp_path / "unlearned" / "model.safetensors").is_file()


def snippet(start: str) -> str:
    """The lines of the README's indented block that begins with `start`."""
    block = PAGES[0].read_text().split(f"\n    {start}", 1)[1].split("\n\n-", 1)[0].split("\n\nOr", 1)[0]
    return textwrap.dedent(f"    {start}{block.split(chr(10) * 2 + 'and ', 1)[0]}")


def test_the_first_snippets_run(tmp_path, monkeypatch, capsys):
    """The one that the page begins with, from files; and a trainer by hand."""
    import datasets

    model, _, task = text_setup()
    model.config.label2id = {name: i for i, name in enumerate(task.label_names)}
    model.config.id2label = dict(enumerate(task.label_names))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    model.save_pretrained("my-classifier")
    task.processor.save_pretrained("my-classifier")
    customers = ["C-1042", "C-0077", *(f"C-{i}" for i in range(38))]
    rows = datasets.DatasetDict(train=text_rows(40).add_column("customer_id", customers), test=text_rows(24, seed=1))
    rows["train"].to_csv("train.csv")
    rows["test"].add_column("customer_id", [f"T-{i}" for i in range(24)]).to_csv("test.csv")
    exec(snippet("from hf_unlearn import unlearn"), {})
    assert "2 of 40 training rows to be forgotten" in capsys.readouterr().out
    assert {"model.safetensors", "report.html", "evidence.json", "README.md"} <= set(os.listdir("unlearned"))
    names = {"model": model, "tokenizer": task.processor, "rows": rows, "customers": customers[:2]}
    exec(snippet("trainer = NablaTauTrainer"), exported() | names)


def exported() -> dict:
    import hf_unlearn

    return {name: getattr(hf_unlearn, name) for name in ("NablaTauTrainer", "NablaTauConfig")}


def commands():
    text = PAGES[0].read_text().replace("\\\n", " ")
    return [line.split("train", 1)[1] for line in text.splitlines() if "hf_unlearn.train --" in line]


def test_there_are_commands():
    assert commands()


@pytest.mark.parametrize("line", commands())
def test_its_commands_parse(line):
    parse_arguments(shlex.split(line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_it_names_exist(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    for link in links:
        assert (page.parent / link).exists(), link
    for name in re.findall(r"`((?:configs|docs|benchmarks)/[\w./]+\.\w+)`", text):
        assert (ROOT / name).exists(), name
    for argument in set(re.findall(r"`--(\w+)", text)):
        known = [*(ROOT / "hf_unlearn").rglob("*.py"), *(ROOT / "hf_unlearn_diffusion").rglob("*.py")]
        assert argument == "help" or any(argument in path.read_text() for path in known), argument
