"""`hf-unlearn audit`: a set that a model learned by heart is found, one that it never saw is not."""

import csv
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import tiny
from transformers import AutoModel, LlamaConfig, LlamaForCausalLM

from hf_unlearn.cli import main
from hf_unlearn.report import schema
from hf_unlearn.report.audit import ALIKE, KNOWN, UNJUDGED, Audit
from hf_unlearn.train import main as train

SECRET = "xyzzy"


def write_rows(path: Path, rows: int, seed: int, **more) -> str:
    """Sentences of other words' order, with labels and answers that have nothing to do with them."""
    texts, answers = tiny.sentences(rows, seed), tiny.sentences(rows, seed + 1, words=3)
    labels = np.random.default_rng(seed).permutation(np.arange(rows) % 2)
    with open(path, "w") as file:
        for i, (text, answer) in enumerate(zip(texts, answers, strict=True)):
            row = {"text": text, "label": ["cold", "warm"][labels[i]], "question": text, "answer": answer, "row_id": i}
            file.write(json.dumps(row | more) + "\n")
    return str(path)


def made(folder: Path, task: str) -> Path:
    """An original that knows its training rows by heart, and files of unseen rows and of rows that it never saw."""
    config = tiny.own_data(folder, task, method="fine_tune", cache_dir=str(folder / "cache"))
    config |= {"max_steps": 1, "learning_rate": 1e-9}
    config["original"]["num_train_epochs"] = 60
    del config["proxy_epochs"]
    assert train(["--config", tiny.write_config(folder, config)]) == 0
    write_rows(folder / "unseen.jsonl", 100, 101)
    write_rows(folder / "others.jsonl", 40, 201)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return made(tmp_path_factory.mktemp("classifier"), "text_classification")


def audit(folder: Path, output: Path, *argv: str, task: str = "text_classification") -> dict:
    words = ["audit", "--model_name_or_path", str(folder / "out"), "--task", task, "--output_dir", str(output)]
    assert main([*words, "--use_cpu", *argv]) == 0
    found = json.loads((output / "audit.json").read_text())
    definitions: dict = {}
    kind = schema._of(Audit, definitions)
    jsonschema.validate(found, kind | {"$defs": definitions})
    return found


def test_rows_that_were_learned_are_found(tmp_path, capsys, classifier):
    argv = [
        "--dataset_name",
        str(classifier / "data" / "train.csv"),
        "--unseen_file",
        str(classifier / "unseen.jsonl"),
    ]
    found = audit(classifier, tmp_path / "out", *argv, "--rows_file", str(tmp_path / "found.csv"))
    assert found["verdict"] == KNOWN and found["rows"] == {"audited": 60, "unseen": 100}
    assert found["figures"]["accuracy"]["audited"] > 0.9 > 0.75 > found["figures"]["accuracy"]["unseen"]
    assert found["auc"]["interval"][0] > 0.6 and found["request"] is None
    out = capsys.readouterr().out
    assert "knows these rows better" in out and "Rows that stand out" in out and max(map(len, out.splitlines())) <= 110
    with open(tmp_path / "found.csv") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["row"]) for row in rows) == list(range(60)) and set(rows[0]) == {
        "row", "share_of_unseen_below", "stands_out",
    }  # fmt: skip
    assert (
        sum(int(row["stands_out"]) for row in rows)
        == found["standing_out"]["count"]
        > found["standing_out"]["expected"]
    )
    assert (tmp_path / "found.csv").stat().st_mode & 0o077 == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["audit.json"] and str(tmp_path) not in json.dumps(found)


def test_rows_that_were_never_seen_are_not_told_apart(tmp_path, capsys, classifier):
    argv = ["--dataset_name", str(classifier / "others.jsonl"), "--unseen_file", str(classifier / "unseen.jsonl")]
    found = audit(classifier, tmp_path / "out", *argv)
    assert found["verdict"] == ALIKE and found["standing_out"]["p_value"] > 0.025
    assert "not told apart" in capsys.readouterr().out


def test_a_request_names_the_rows(tmp_path, capsys, classifier):
    """Of the same file; the rest of it is looked at by nobody, and the request's values stay here."""
    (tmp_path / "ids.txt").write_text("\n".join(f"train{i:03d}" for i in range(3, 15)))
    argv = ["--dataset_name", str(classifier / "data"), "--unseen_file", str(classifier / "unseen.jsonl")]
    argv += ["--forget_ids", str(tmp_path / "ids.txt"), "--id_column", "row_id"]
    found = audit(classifier, tmp_path / "out", *argv, "--json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
    assert found["rows"]["audited"] == 12 and "train003" not in json.dumps(found)
    assert found["request"] == {"kind": "ids", "column": "row_id", "rows": 12}
    assert not any("meet the request too" in note for note in found["notes"])
    own = [*argv[:3], write_rows(tmp_path / "own.jsonl", 60, 101, row_id="train003"), *argv[4:]]
    found = audit(classifier, tmp_path / "own", *own)
    assert any("60 test rows meet the request too" in note for note in found["notes"])
    classes = [*argv[:4], "--forget_classes", "warm"]
    found = audit(classifier, tmp_path / "classes", *classes)
    assert found["rows"]["audited"] == 30 and found["rows"]["unseen"] == 50
    assert any("of the audited classes" in note for note in found["notes"])


def test_copies_are_not_unseen(tmp_path, classifier):
    text = (classifier / "unseen.jsonl").read_text() + (classifier / "others.jsonl").read_text()
    (tmp_path / "unseen.jsonl").write_text(text)
    argv = ["--dataset_name", str(classifier / "others.jsonl"), "--unseen_file", str(tmp_path / "unseen.jsonl")]
    found = audit(classifier, tmp_path / "out", *argv)
    assert found["rows"]["unseen"] == 100 and any("40 unseen rows repeat" in note for note in found["notes"])


def test_language_models(tmp_path, capsys):
    """With figures of recall, beside a base that never saw the rows; and by the base alone."""
    folder = tmp_path / "lm"
    folder.mkdir()
    made(folder, "causal_lm")
    LlamaForCausalLM(LlamaConfig(**tiny.LLAMA, vocab_size=len(tiny.tokenizer()))).save_pretrained(folder / "base")
    columns = ["--question_column", "question", "--answer_column", "answer", "--base_model", str(folder / "base")]
    argv = ["--dataset_name", str(folder / "data" / "train.csv"), *columns]
    unseen = ["--unseen_file", str(folder / "unseen.jsonl")]
    found = audit(folder, tmp_path / "out", *argv, *unseen, task="causal_lm")
    assert found["verdict"] == KNOWN and found["gained"]["interval"][0] > 0
    recall = found["figures"]["extraction_strength"]
    assert recall["audited"] > recall["unseen"] and set(recall) == {
        "audited", "unseen", "audited_base", "unseen_base",
    }  # fmt: skip
    assert "extraction strength" in capsys.readouterr().out
    alone = audit(folder, tmp_path / "alone", *argv, task="causal_lm")
    assert alone["verdict"] == UNJUDGED and alone["auc"] is None and alone["standing_out"] is None
    few = write_rows(tmp_path / "few.jsonl", 20, 301)
    found = audit(folder, tmp_path / "few", *argv, "--unseen_file", few, task="causal_lm")
    assert found["verdict"] == UNJUDGED and any("20 unseen rows are too few" in note for note in found["notes"])


BAD = {
    "no model": (["--model_name_or_path", ""], "name it with --model_name_or_path"),
    "no unseen rows": ([], "no unseen rows: name an --unseen_file or a --test_split"),
    "too few unseen rows": (["--unseen_file", "{few}"], "12 unseen rows are too few: it takes 50"),
    "too few audited rows": (["--dataset_name", "{tiny}", "--unseen_file", "{unseen}"], "4 rows to audit are too few"),
    "a rate": (["--unseen_file", "{unseen}", "--false_positive_rate", "0.01"], "it takes 1,000"),
    "no rate": (["--unseen_file", "{unseen}", "--false_positive_rate", "2"], "--false_positive_rate is 2"),
    "rows without labels": (["--dataset_name", "{bare}", "--unseen_file", "{unseen}"], "label"),
    "unseen rows without labels": (["--unseen_file", "{bare}"], "label"),
    "other labels": (["--dataset_name", "{other}", "--unseen_file", "{unseen}"], "not among the model's"),
    "no such file": (["--unseen_file", "{unseen}x"], "there is no file"),
    "rows file exists": (["--unseen_file", "{unseen}", "--rows_file", "{unseen}"], "exists; name a new file"),
    "a condition": (["--unseen_file", "{unseen}", "--forget_where", f"text={SECRET}"], "match no training row"),
    "in words": (["--unseen_file", "{unseen}", "--forget_prompt", SECRET], "takes rows that exist"),
    "stress": (["--unseen_file", "{unseen}", "--stress"], "--stress is for train and evaluate"),
    "a typo": (["--unseen_fil", "{unseen}"], "unknown argument --unseen_fil"),
    "a base with another head": (["--base_model", "{nowhere}"], "cannot be loaded"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, capsys, classifier, case):
    files = {"unseen": str(classifier / "unseen.jsonl"), "nowhere": "nobody/nothing"}
    files |= {name: write_rows(tmp_path / f"{name}.jsonl", rows, 7) for name, rows in (("few", 12), ("tiny", 4))}
    files["other"] = write_rows(tmp_path / "other.jsonl", 40, 9, label="tepid")
    (tmp_path / "bare.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in tiny.sentences(60, 3)))
    files["bare"] = str(tmp_path / "bare.jsonl")
    before = sorted(tmp_path.rglob("*"))
    argv, said = BAD[case]
    given = {"--model_name_or_path": str(classifier / "out"), "--task": "text_classification"}
    given |= {"--dataset_name": str(classifier / "others.jsonl"), "--output_dir": str(tmp_path / "out")}
    words = [word.format(**files) for word in argv]
    for name in [word for word in words if word in given]:
        given[name] = words[words.index(name) + 1]
        del words[words.index(name) : words.index(name) + 2]
    line = [word for pair in given.items() if pair[1] for word in pair]
    capsys.readouterr()
    assert main(["audit", "--use_cpu", *line, *words]) == 2
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1 and said in err and SECRET not in err, err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_base_without_the_head_is_refused_before_anything_is_scored(tmp_path, capsys, classifier):
    """A classifier's base, as a `run.yaml` names it for `train`."""
    AutoModel.from_pretrained(classifier / "out").save_pretrained(tmp_path / "base")
    argv = ["--model_name_or_path", str(classifier / "out"), "--dataset_name", str(classifier / "others.jsonl")]
    argv += ["--base_model", str(tmp_path / "base"), "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    assert main(["audit", "--task", "text_classification", *argv]) == 2
    said = capsys.readouterr()
    assert "--base_model cannot be compared with the model: " in said.err and "no trained head" in said.err
    assert "(a base goes to" not in said.err and "scoring" not in said.out


def test_an_occupied_folder_is_not_gone_on_in(tmp_path, capsys, classifier):
    """An audit has no checkpoints."""
    (tmp_path / "audit.json").write_text("{}")
    argv = ["--model_name_or_path", str(classifier / "out"), "--dataset_name", str(classifier / "others.jsonl")]
    assert main(["audit", *argv, "--output_dir", str(tmp_path), "--use_cpu"]) == 2
    err = capsys.readouterr().err
    assert "is not empty; name a new folder" in err and "resume" not in err
