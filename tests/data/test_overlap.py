"""Held-out rows that are training rows too."""

import datasets
import pytest

from hf_unlearn.data.overlap import check_unseen
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError


def source(validation: range, test: range) -> Source:
    def rows(numbers):
        return datasets.Dataset.from_dict({"text": [f"t{i}" for i in numbers], "label": [i % 2 for i in numbers]})

    return Source(name="x", train=rows(range(10)), validation=rows(validation), test=rows(test))


def test_a_few_are_noted_and_most_are_refused():
    assert check_unseen(source(range(10, 14), range(20, 24)), ["text", "label"]) == []
    notes = check_unseen(source(range(8, 12), range(9, 13)), ["text", "label"])
    assert [note.split(" repeat")[0] for note in notes] == ["2 of 4 validation rows", "1 of 4 test rows"]
    with pytest.raises(UserError, match="3 of 4 validation rows"):
        check_unseen(source(range(7, 11), range(20, 24)), ["text", "label"])


def test_test_rows_never_refuse_and_another_label_is_another_row():
    assert len(check_unseen(source(range(10, 14), range(4)), ["text", "label"])) == 1
    data = source(range(10, 14), range(20, 24))
    other = data.train.map(lambda row: {"label": 1 - row["label"]})
    data.validation = other
    assert check_unseen(data, ["text", "label"]) == []
