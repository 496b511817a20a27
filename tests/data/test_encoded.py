"""Encoded rows beyond what memory holds: the same features out of a file, no name left on the disk."""

import copy
import pickle
import tempfile
from pathlib import Path

import pytest
import torch
from toy import text_setup

from hf_unlearn.data import encoded
from hf_unlearn.data.encoded import EncodedRows
from hf_unlearn.errors import UserError

ROW = {
    "input_ids": torch.tensor([3, 1, 2]),
    "pixels": torch.rand(2, 3).half(),
    "wide": torch.rand(2, 4).T,
    "flags": torch.tensor([True, False, True]),
    "none": torch.zeros(0, 4),
    "one": torch.tensor(2.5),
    "labels": 4,
    "weight": 0.5,
}


@pytest.fixture()
def no_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(encoded, "MOST_HELD", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def equal(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype
        if torch.is_tensor(one[name])
        else one[name] == other[name] and type(one[name]) is type(other[name])
        for name in one
    )


def test_lengths_are_known_without_reading_the_rows(no_memory, monkeypatch):
    rows = EncodedRows(3)
    rows.update([2, 0], [ROW, ROW | {"input_ids": torch.arange(7)}])
    monkeypatch.setattr(rows, "_bytes", None)
    assert [rows.length(place, "input_ids") for place in range(3)] == [7, None, 3]


def test_one_feature_is_read_without_the_others(no_memory):
    rows = EncodedRows(3)
    rows.update([2, 0], [ROW, ROW | {"labels": 7}])
    assert [rows.value(place, "labels") for place in range(3)] == [7, None, 4]
    assert torch.equal(rows.value(2, "wide"), ROW["wide"]) and rows.value(2, "weight") == 0.5


def test_labels_of_many_rows_are_those_of_each(no_memory):
    _, splits, _ = text_setup()
    rows = splits.retain
    each = [int(rows[i]["labels"]) for i in range(0, len(rows), 2)]  # half of them are encoded by now
    assert rows.numbers("labels")[::2].tolist() == each
    assert rows.numbers("labels").tolist() == [int(row["labels"]) for row in rows.__getitems__(range(len(rows)))]


def test_a_row_comes_back_as_it_was(no_memory):
    rows, longer = EncodedRows(5), ROW | {"input_ids": torch.arange(7)}
    rows.update([4, 1], [ROW, longer])
    assert equal(rows.get(4), ROW) and equal(rows.get(1), longer) and rows.get(0) is None and len(rows) == 2
    rows.update([0], [ROW])  # after a first reading
    assert equal(rows.get(0), ROW)
    rows.get(0)["input_ids"][0] = 9
    assert equal(rows.get(0), ROW)
    assert not list(no_memory.iterdir())  # the file has no name


def test_what_fits_in_memory_stays_there_and_other_values_do(monkeypatch):
    rows, words = EncodedRows(3), {"text": "words", "labels": 1}
    rows.update([0], [ROW])
    assert rows.get(0) is ROW
    monkeypatch.setattr(encoded, "MOST_HELD", 0)
    rows = EncodedRows(3)
    rows.update([0, 1], [words, ROW])
    assert rows.get(0) is words and equal(rows.get(1), ROW) and rows.get(1) is not ROW


def test_texts_are_the_same_from_the_file(no_memory, monkeypatch):
    _, splits, task = text_setup()
    before = splits.retain.__getitems__(range(len(splits.retain)))
    monkeypatch.setattr(type(task), "encode", None)  # nothing is encoded twice
    after = splits.retain.__getitems__(range(len(splits.retain)))
    assert splits.retain._cache._end > 0 and all(map(equal, before, after))
    assert splits.retain.lengths([0, 1]).tolist() == [len(before[i]["input_ids"]) for i in (0, 1)]


def test_copies_for_other_processes_leave_the_file(no_memory):
    rows = EncodedRows(3)
    rows.update([0], [ROW])
    for other in (pickle.loads(pickle.dumps(rows)), copy.deepcopy(rows)):
        assert other.get(0) is None and equal(rows.get(0), ROW)


def test_a_full_disk_is_said(no_memory, monkeypatch):
    rows = EncodedRows(3)
    rows._open()

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(rows, "_file", Full())
    with pytest.raises(UserError, match="No space left on device.*`cache_rows`"):
        rows.update([0], [ROW])


@pytest.mark.parametrize("named", [False, True])  # Linux needs no name
def test_a_shared_file_is_read_by_others_and_goes_when_its_name_does(no_memory, monkeypatch, named):
    if named:
        monkeypatch.setattr(Path, "is_dir", lambda path: False)
    rows = EncodedRows(3, shared=True)
    rows.update([0, 2], [ROW, ROW])
    assert [path.stat().st_mode & 0o777 for path in no_memory.iterdir()] == [0o600] * named
    other = EncodedRows.attached(pickle.loads(pickle.dumps(rows.share())))
    rows.unname()
    assert not list(no_memory.iterdir())
    assert equal(other.get(2), ROW) and other.get(1) is None
