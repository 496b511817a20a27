"""Answers side by side: figures of texts by hand, and a run whose texts stay on this machine."""

import json
import math

import datasets
import pytest
import tiny
from toy import SETUPS

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.answers import Answers, general_rows, questions, refuses, repetition, text_figures
from hf_unlearn.hub import staging
from hf_unlearn.report.answers import answer_rows, answers_page, answers_text
from hf_unlearn.report.html import render_html
from hf_unlearn.train import main


def test_repetition_is_the_share_of_repeated_triples():
    assert repetition("a b c d") == 0 and repetition("a b c") == 0 and repetition("") == 0
    assert repetition("no no no no no") == pytest.approx(2 / 3)  # three triples, all the same
    assert repetition("a b c A B C") == pytest.approx(1 / 4)  # abc bca cab abc
    assert (
        repetition("anyon " + "diate" * 20) > 0.7 > 0.1 > repetition("He writes in the last row of a silent cinema.")
    )


@pytest.mark.parametrize(
    "text", ["I don\u2019t know.", "I'm afraid I cannot answer this.", "Sorry, as an AI I do not."]
)
def test_refusals(text):
    assert refuses(text) and not refuses("She knows the author of Mirror.")


def test_figures_of_texts():
    found = text_figures(["red green", "I don't know"], ["red green blue owl", "cat"])
    assert found == {"rouge": 0.25, "repetition": 0.0, "refusals": 0.5}
    assert set(text_figures([], []).values()) == {None}


def test_questions_of_every_kind_of_row():
    class Chat:
        columns = {"messages": "chat"}

    turns = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "a"}]
    rows = Rows(datasets.Dataset.from_dict({"chat": [[*turns, {"role": "user", "content": "second\nline"}]]}), Chat())
    assert questions(Chat(), rows) == ["second line"]
    general = general_rows(Chat(), 2)
    assert questions(Chat(), general)[0] == "What is the capital of France?" and len(general) == 2


def test_rows_without_questions_are_refused():
    _, _, task = SETUPS["lm"]()
    answers = Answers(task, 2)
    answers.task.columns = {"text": "text"}
    with pytest.raises(UserError, match="`generate` asks a language model"):
        Answers(task, 2)
    _, _, classifier = SETUPS["text"]()
    with pytest.raises(UserError, match="`generate`"):
        Answers(classifier, 2)


def test_texts_stay_here_and_figures_go_into_the_evidence(tmp_path, capsys):
    """One whole run: the screen and the page have the rows' words; evidence, report and what is pushed have not."""
    config = tiny.own_data(tmp_path, "causal_lm", method="fine_tune", max_steps=2, generate=2, retrain=1)
    del config["proxy_epochs"]
    mark = "owlishly"
    path = tmp_path / "data" / "train.csv"
    path.write_text(path.read_text().replace("owl", mark))
    assert main(["--config", tiny.write_config(tmp_path, config)]) == 0
    out, folder = capsys.readouterr().out, tmp_path / "out"
    assert "forgotten rows: " in out and "the unlearned model  " in out and "twin 1 of 1  " in out and mark in out
    page = (folder / "answers.html").read_text()
    assert (folder / "answers.html").stat().st_mode & 0o777 == 0o600
    assert mark in page and "What is the capital of France?" in page
    evidence = json.loads((folder / "evidence.json").read_text())
    assert evidence["answers"]["rows"] == {"forgotten": 2, "kept": 2, "general": 2}
    for figures in evidence["answers"]["figures"].values():
        assert all(math.isfinite(value) for models in figures.values() for value in models.values())
    assert answer_rows(evidence["answers"])[1][0] == "ROUGE-L recall, forgotten rows (2)"
    assert "Answers</h2>" in render_html(evidence)
    staging.stage(folder, tmp_path / "staged")
    staged = [path for path in (tmp_path / "staged").rglob("*") if path.is_file()]
    assert not [path.name for path in staged if path.name == "answers.html" or mark.encode() in path.read_bytes()]


def test_the_page_escapes_texts():
    sheets = {"kept": [{"question": "<b>?", "rows": [("the original", "<script>"), ("twin 1 of 1", "")]}]}
    page = answers_page(sheets)
    assert "<script>" not in page and "&lt;script&gt;" in page and "(nothing)" in page
    assert answers_text(sheets).splitlines()[1].startswith("  the original  <script>")
