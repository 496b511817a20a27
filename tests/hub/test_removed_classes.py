"""Names of removed classes stay on this machine unless the request is published."""

import json
from types import SimpleNamespace

import datasets
import pytest

from hf_unlearn.data.rows import Rows
from hf_unlearn.hub.staging import REMOVED_CLASSES, _rename_removed
from hf_unlearn.trainers.handover import removed_classes

NAMES = {"0": "cat", "1": "dog", "2": "owl"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / REMOVED_CLASSES).write_text(json.dumps({"ids": [1]}))
    (tmp_path / "staged").mkdir()
    config = {"id2label": NAMES, "label2id": {name: int(place) for place, name in NAMES.items()}, "hidden_size": 8}
    (tmp_path / "staged" / "config.json").write_text(json.dumps(config))
    return tmp_path


def staged(folder, request):
    _rename_removed(folder / "staged" / "config.json", folder, {"data": {"request": request}})
    return json.loads((folder / "staged" / "config.json").read_text())


def test_a_removed_class_is_renamed_and_it_is_said(folder, capsys):
    config = staged(folder, {"kind": "classes", "column": "label", "count": 1})
    assert config["id2label"] == {"0": "cat", "1": "removed_1", "2": "owl"} and config["hidden_size"] == 8
    assert config["label2id"] == {"cat": 0, "removed_1": 1, "owl": 2}
    said = capsys.readouterr()
    assert "removed_1; --publish_request keeps them" in said.out + said.err
    assert "dog" not in said.out + said.err


def test_a_published_request_keeps_the_name(folder):
    assert staged(folder, {"kind": "classes", "count": 1, "classes": ["dog"]})["id2label"] == NAMES


def test_without_removed_classes_nothing_changes(folder):
    (folder / REMOVED_CLASSES).unlink()
    assert staged(folder, {"kind": "fraction"})["id2label"] == NAMES


@pytest.mark.parametrize("forget, removed", [([0, 1], []), ([0, 3], [0]), ([0, 3, 1, 4], [0, 1])])
def test_a_class_is_removed_where_no_row_of_it_is_kept(forget, removed):
    source = datasets.Dataset.from_dict({"label": [0, 1, 2, 0, 1, 2]})
    task = SimpleNamespace(has_classes=True, columns={"label": "label"}, label_id=lambda label, place: label)
    keep = [place for place in range(6) if place not in forget]
    splits = SimpleNamespace(forget=Rows(source, task, forget), retain=Rows(source, task, keep))
    assert removed_classes(SimpleNamespace(task=task, splits=splits)) == removed
