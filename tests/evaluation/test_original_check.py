"""A model whose labels stand for other classes is told before anything is trained."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from hf_unlearn import train
from hf_unlearn.evaluation.original_check import check_original
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.run.stages import look_at_original


def scores(correct, label) -> dict[str, SplitScores]:
    zeros = np.zeros(len(correct))
    label = None if label is None else np.array(label, dtype=float)
    return {"retain": SplitScores(zeros, zeros, np.array(correct, dtype=float), zeros, zeros, label=label)}


def test_less_right_than_the_commonest_label_alone_would_be_is_told():
    labels = [0, 0, 0, 1, 2]
    (said,) = check_original(scores([1, 1, 0, 0, 0], labels))
    assert "40 % of the retain rows right" in said and "always 60 %" in said
    assert not check_original(scores([1, 1, 1, 0, 0], labels))
    assert not check_original(scores([0, 0], None)) and not check_original(scores([0, 0], [-1, -1]))


def test_only_a_model_that_was_given_is_looked_at(capsys):
    before = scores([1, 0, 0, 0], [0, 0, 1, 1])
    for name, told in (("my-classifier", 1), (None, 0)):
        arguments = SimpleNamespace(model=SimpleNamespace(model_name_or_path=name))
        data = SimpleNamespace(report=SimpleNamespace(notes=[]))
        look_at_original(arguments, data, before)
        assert len(data.report.notes) == told
        assert capsys.readouterr().out.count("25 % of the retain rows right") == told


@pytest.mark.parametrize("forgotten, told", [("cold", True), ("warm", False)])
def test_the_command_tells_it_on_the_screen_and_in_the_evidence(capsys, tmp_path, forgotten, told):
    """A model that calls everything cold: where cold rows are forgotten, fewer than half of the kept ones are."""
    from transformers import BertConfig, BertForSequenceClassification

    data = tiny.text_folder(tmp_path / "data")
    tiny.processor_folder(tmp_path / "model", "text_classification")
    names = {"id2label": {0: "cold", 1: "warm"}, "label2id": {"cold": 0, "warm": 1}}
    model = BertForSequenceClassification(BertConfig(**tiny.BERT, vocab_size=len(tiny.tokenizer()), **names))
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor([5.0, 0.0])
    model.save_pretrained(tmp_path / "model")
    with open(data / "train.csv", newline="") as file:
        ids = [row["row_id"] for row in csv.DictReader(file) if row["label"] == forgotten][:6]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    config = {"method": "fine_tune", "max_steps": 1, "per_device_train_batch_size": 8, "use_cpu": True}
    config |= {"dataset_name": str(data), "task": "text_classification", "output_dir": str(tmp_path / "out")}
    config |= {"forget_ids": str(tmp_path / "ids.txt"), "id_column": "row_id"}
    config |= {"model_name_or_path": str(tmp_path / "model")}
    assert train.main(["--config", tiny.write_config(tmp_path, config)]) == 0
    warning = "the original gets 44 % of the retain rows right, and to say their commonest label always 56 %"
    notes = json.loads((tmp_path / "out" / "evidence.json").read_text())["notes"]
    assert [warning in note for note in notes].count(True) == capsys.readouterr().out.count(warning) == told
