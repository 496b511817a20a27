"""Rows in GoEmotions' shape through the whole command: lists or columns of labels, a request by label, adapters."""

import json
import re

import pytest
import tiny
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_unlearn import cli
from hf_unlearn.report.evidence import validate
from hf_unlearn.train import main

TASK = "multilabel_text_classification"
F1 = [f"{split}_{average}_f1" for split in ("forget", "retain", "test") for average in ("micro", "macro")]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run whose task nobody names; its folder and configuration."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny.own_data(
        folder, TASK, cache_dir=str(folder / "cache"), retrain=2, original_gradient_accumulation_steps=2
    )
    del config["task"]
    assert main(["--config", tiny.write_config(folder, config)]) == 0
    return folder, config


def run(config: dict, folder, **more) -> dict:
    """The evidence of another run on the same rows."""
    folder.mkdir()
    config = {key: value for key, value in (config | more).items() if value is not None}
    assert main(["--config", tiny.write_config(folder, config | {"output_dir": str(folder / "out")})]) == 0
    return json.loads((folder / "out" / "evidence.json").read_text())


def test_evidence_table_report_and_card(ran):
    out = ran[0] / "out"
    evidence = json.loads((out / "evidence.json").read_text())
    assert validate(evidence) == [] and evidence["task"] == TASK
    for model in evidence["models"].values():
        assert list(model["f1"]) == F1 and all(0 <= value <= 1 for value in model["f1"].values())
        assert model["accuracy"]["test"] <= 1
    mean = evidence["models"]["retrained"]["f1"]["forget_micro_f1"]
    gap = 100 * abs(evidence["models"]["unlearned"]["f1"]["forget_micro_f1"] - mean)
    assert evidence["gap"]["forget_micro_f1"] == pytest.approx(gap) and set(F1) <= set(evidence["floor"])
    card, report = ((out / name).read_text() for name in ("README.md", "report.html"))
    row = re.search(r"\| forget micro F1 \(%\) \|(.*)\|", card)[1].split("|")
    assert len(row) == 5 and f"{gap:.2f}" in row[3] and "forget micro F1" in report
    assert "accuracy: rows with all labels right." in card and "name: subset accuracy, test rows" in card
    assert "name: macro F1, forget rows" in card and "type: f1" in card


def test_the_saved_model_says_what_it_is(ran):
    out = ran[0] / "out"
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert model.config.problem_type == "multi_label_classification"
    assert list(model.config.id2label.values()) == sorted(tiny.EMOTIONS)
    line = re.search(r"pipeline\((.*)\)", (out / "README.md").read_text())[1]
    assert 'top_k=None, function_to_apply="sigmoid"' in line
    found = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(out), top_k=None)(
        "red"
    )
    assert len(found[0] if isinstance(found[0], list) else found) == 4  # sigmoids: their sum is not 1


def test_columns_of_zeros_and_ones_are_the_same_rows(ran, tmp_path):
    """Their order is the order of the labels; the original is trained anew, since the model reads them so."""
    names = sorted(tiny.EMOTIONS)
    evidence = run(ran[1], tmp_path / "columns", label_columns=names, retrain=0)
    first = json.loads((ran[0] / "out" / "evidence.json").read_text())
    assert evidence["models"]["original"] == first["models"]["original"] | {
        "rows": evidence["models"]["original"]["rows"]  # which are measured against twins
    }


def test_a_request_by_label(ran, tmp_path):
    request = {"forget_fraction": None, "forget_classes": ["joy"], "method": "salun", "retrain": 0}
    evidence = run(ran[1], tmp_path / "label", **request)
    assert evidence["data"]["request"]["kind"] == "classes" and "classes" not in evidence["data"]["request"]
    assert any("forgotten whole, with their other labels" in note for note in evidence["notes"])
    out = tmp_path / "label" / "out"
    assert "(all with certain labels)" in (out / "README.md").read_text() and not list(out.glob("removed*"))
    assert "nonmembers_micro_f1" in evidence["models"]["unlearned"]["f1"]
    kept = json.loads((out / "config.json").read_text())["id2label"]
    assert "joy" in kept.values() and len(kept) == 4


def test_an_adapter_and_a_model_that_was_given(ran, tmp_path):
    """The original of an adapter recipe comes out of the cache once: what it is made for is not lost there."""
    base, bare = ran[0] / "out", tmp_path / "bare"
    model = AutoModelForSequenceClassification.from_pretrained(base)
    model.config.problem_type = None
    model.save_pretrained(bare)
    AutoTokenizer.from_pretrained(base).save_pretrained(bare)
    adapter = {"original": {"model": str(bare), "use_peft": True, "num_train_epochs": 1, "batch_size": 16}}
    for name in ("fresh", "cached"):
        run(ran[1], tmp_path / name, **adapter, processor_name_or_path=None, retrain=0, max_steps=1)
        config = json.loads((tmp_path / name / "out" / "config.json").read_text())
        assert config["problem_type"] == "multi_label_classification" and len(config["id2label"]) == 4
    given = {"model_name_or_path": str(base), "original": None, "processor_name_or_path": None, "retrain": 0}
    evidence = run(ran[1], tmp_path / "given", **given, method="npo", proxy_epochs=None, use_peft=True)
    assert evidence["task"] == TASK and evidence["model"]["peft"]


def test_evaluate_judges_it_too(ran, tmp_path, capsys):
    folder, config = ran
    path = tiny.write_config(
        tmp_path, {key: v for key, v in config.items() if key not in ("proxy_epochs", "output_dir")}
    )
    argv = ["--config", path, "--unlearned_model", str(folder / "out"), "--output_dir", str(tmp_path / "judged")]
    argv.append("--no_classifier_attacks")
    assert cli.main(["evaluate", *argv]) == 0
    evidence = json.loads((tmp_path / "judged" / "evidence.json").read_text())
    assert evidence["models"]["unlearned"]["f1"] and "micro F1" in capsys.readouterr().out


def test_regression_is_refused_by_name(ran, tmp_path, capfd):
    model = AutoModelForSequenceClassification.from_pretrained(ran[0] / "out")
    model.config.problem_type = "regression"
    model.save_pretrained(tmp_path / "model")
    given = {"model_name_or_path": str(tmp_path / "model"), "original": None, "retrain": 0, "task": TASK}
    config = {key: value for key, value in (ran[1] | given).items() if value is not None}
    config["output_dir"] = str(tmp_path / "none")
    assert cli.main(["train", "--config", tiny.write_config(tmp_path, config)]) == 2
    err = capfd.readouterr().err.strip()
    assert "made for regression" in err and len(err.splitlines()) == 1 and not (tmp_path / "none").exists()
