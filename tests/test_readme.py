"""The README's snippet runs, its command lines parse, and the files it names exist."""

import re
import shlex
from pathlib import Path

import pytest
from toy import image_rows, image_task, vit

from hf_unlearn.arguments import parse_arguments

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_snippet_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGES[0].read_text(), re.S)
    task = image_task()
    given = {
        "processor": task.processor, "names": task.label_names, "model": vit(), "train": image_rows(40),
        "validation": image_rows(20, seed=1), "test": image_rows(12, seed=2), "forget_places": [3, 5, 8, 13],
    }  # fmt: skip
    exec(code, given)
    assert "eval_forget_accuracy" in capsys.readouterr().out


def commands():
    text = PAGES[0].read_text().replace("\\\n", " ")
    return [line.split("train", 1)[1] for line in text.splitlines() if "hf_unlearn/train.py --" in line]


def test_there_are_commands():
    assert commands()


@pytest.mark.parametrize("line", commands())
def test_its_commands_parse(line):
    parse_arguments(shlex.split(line)[1:] if line.startswith(".py") else shlex.split(line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_it_names_exist(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    for link in links:
        assert (page.parent / link).exists(), link
    for name in re.findall(r"`((?:configs|docs|benchmarks)/[\w./]+\.\w+)`", text):
        assert (ROOT / name).exists(), name
    for argument in set(re.findall(r"`--(\w+)", text)):
        known = (ROOT / "hf_unlearn").rglob("*.py")
        assert argument == "help" or any(argument in path.read_text() for path in known), argument
