"""Json whose values are of several kinds is read as it is written, and a broken file is told by its line."""

import gzip
import json

import datasets
import pytest

from hf_unlearn.data.own_files import first_fault
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.data.sources import load_source
from hf_unlearn.errors import UserError


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def load(tmp_path, *rows):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_source(str(tmp_path / "rows.jsonl"))


def test_numbers_beside_texts_are_texts_as_they_are_written(tmp_path):
    values = [7, "007", "seven", None, 1.5, "[x", 'say "so"', "", True]
    source = load(tmp_path, *({"text": "a", "id": value, "n": 1} for value in values))
    assert source.train.column_names == ["text", "id", "n"]
    assert source.train["id"][:] == ["7", "007", "seven", None, "1.5", "[x", 'say "so"', "", "true"]
    (tmp_path / "ids.txt").write_text("007\n")
    request = ForgetRequest(ids_file=str(tmp_path / "ids.txt"), id_column="id")
    assert request.select(source).tolist() == [1]
    assert request.notes[0] == "training rows without id: 2; they are kept, whosever they are"


def test_lists_and_objects_stay(tmp_path):
    rows = [{"text": "a", "id": 7, "of": {"k": 1}}, {"text": "b", "id": 8, "of": "k"}]
    assert load(tmp_path, *rows).train["of"][:] == [{"k": 1}, "k"]


@pytest.mark.parametrize(
    "text, as_json, fault",
    [
        (b'{"a": 1}\n\n{"a": 2}\n', True, None),
        (b'{"a": 1}\n{"a": \n', True, "line 2 of"),
        (b'{"a": 1}\n2\n', True, "line 2 of"),
        (b'{"a": 1}\n{"a": 1, "a": 2}\n', True, "line 2 of"),
        (b'[{"a": 1},\n {"a": 2},\n]', True, "line 3 of"),
        ("a\nb\ncafé\n".encode("latin-1"), False, "line 3 of"),
        ("a\ncafé\n".encode(), False, None),
    ],
)
def test_where_a_file_is_broken(tmp_path, text, as_json, fault):
    fine, packed = tmp_path / "fine.jsonl", tmp_path / "rows.jsonl.gz"
    fine.write_text("{}\n")
    packed.write_bytes(gzip.compress(text))
    found = first_fault([str(fine), str(packed)], as_json=as_json)
    assert found == fault or (fault and found.startswith(f"{fault} 'rows.jsonl.gz'"))


def test_a_file_without_a_byte_has_no_rows(tmp_path):
    with pytest.raises(UserError, match="'rows.jsonl' has no rows"):
        load(tmp_path)
