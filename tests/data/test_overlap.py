"""Held-out rows that are training rows too."""

import datasets
import numpy as np
import pytest

from hf_unlearn.data.columns import may_repeat
from hf_unlearn.data.duplicates import exact_duplicates
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


def test_texts_that_cannot_repeat_are_left_out_and_none_that_may():
    texts = ["a", None, "b", "a", None, "c", "d"]
    pairs = [["x"], ["x"], ["y"], ["z"], ["x"], ["x"], ["y"]]
    rows = datasets.Dataset.from_dict({"text": texts, "list": pairs, "label": [0, 1, 0, 1, 1, 0, 1]})
    others = [rows.select([0]), rows.select([1, 6])]
    assert may_repeat(rows, ["text", "label"], others).tolist() == [0, 1, 3, 4, 6]
    assert may_repeat(rows, ["list", "label"], others).tolist() == list(range(7))
    assert exact_duplicates(rows, ["text", "list"], np.array([0, 1])).tolist() == [4]
