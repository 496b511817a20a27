"""Rows and requests in the forms in which people have them in Python."""

import datasets
import numpy as np
import pandas as pd
import pytest

from hf_unlearn.data.given import NAME, request_of, rows_of, source_of
from hf_unlearn.data.prepare import encoded
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.errors import UserError
from hf_unlearn.tasks.text_classification import TextClassification

ROWS = [{"id": f"{k:03d}", "owner": "ann" if k % 3 else "bob", "text": f"row {k}"} for k in range(6)]


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def test_the_usual_forms_hold_the_same_rows(tmp_path):
    whole = datasets.Dataset.from_list(ROWS)
    whole.to_csv(tmp_path / "rows.csv")
    for given in (whole, ROWS, pd.DataFrame(ROWS), pd.DataFrame(ROWS).iloc[::1], tmp_path / "rows.csv"):
        assert list(rows_of(given, "training")) == ROWS
    assert list(rows_of(pd.DataFrame(ROWS).iloc[[4, 2]], "training")) == [ROWS[4], ROWS[2]]
    assert rows_of(None, "test") is None
    source = source_of(str(tmp_path / "rows.csv"), test=ROWS[:2])
    assert list(source.train) == ROWS and len(source.test) == 2
    assert source.name == "rows.csv"  # as evidence and card of a run from the shell call it
    assert source_of(ROWS, test=ROWS[:2]).name == NAME
    assert len(source_of({"train": ROWS, "val": ROWS[:1], "test": ROWS[:2]}).validation) == 1


@pytest.mark.parametrize("given", [3, [], ["a"], iter(ROWS), {"text": ["a"]}])
def test_other_forms_are_refused(given):
    with pytest.raises(UserError, match=f"the training rows are {type(given).__name__}: give a datasets.Dataset"):
        rows_of(given, "training")


def places(forget, train=ROWS) -> list[int]:
    request, source = request_of(forget, source_of(train, test=ROWS[:1]), seed=0)
    return request.select(source).tolist()


def test_the_usual_ways_to_name_rows():
    whole = pd.DataFrame(ROWS)
    assert places({"id": "004"}) == [4]
    assert places({"id": ["004", "001"], "text": "row 0"}) == [0, 1, 4]
    assert places(whole["owner"] == "bob") == [0, 3] == places((whole["owner"] == "bob").to_numpy())
    assert places(lambda row: row["owner"] == "bob") == [0, 3]
    assert places(np.array([3, 0])) == places([3, 0, 3]) == [0, 3]
    assert places(ForgetRequest(where=["owner=bob"])) == places(ForgetRequest(where="owner=bob")) == [0, 3]
    numbered = [row | {"id": k} for k, row in enumerate(ROWS)]
    signs = [{"a": "b=v", "a=b": "w"}, {"a": "x", "a=b": "v"}]
    assert places({"a": "b=v"}, signs) == [0] and places({"a=b": "v"}, signs) == [1]
    assert places({"id": range(2)}, numbered) == [0, 1] and places({"id": 5}, numbered) == [5]


def test_a_data_set_is_found_among_the_rows_or_put_beside_them():
    named = datasets.Dataset.from_list(ROWS[2:4])
    assert places(named) == [2, 3]
    assert places(named, ROWS + ROWS[2:3]) == [2, 3, 6]  # all copies
    request, source = request_of(named, source_of(ROWS[:2] + ROWS[4:], test=ROWS[:1]), seed=0)
    assert request.select(source).tolist() == [0, 1] and list(source.train)[:2] == ROWS[2:4] and len(source.train) == 6
    with pytest.raises(UserError, match="1 of 2 rows of forget= are among the training rows"):
        places(named, ROWS[:3])
    with pytest.raises(UserError, match="must have the same columns"):
        places(named.remove_columns("owner"))


@pytest.mark.parametrize("forget", [None, 3, [], [1.5], [True, False], {}, np.array([True])])
def test_what_names_no_rows_is_refused(forget):
    with pytest.raises(UserError, match="forget= takes|nothing to forget"):
        places(forget)
    for missing in ({"id": "9"}, lambda row: False):
        with pytest.raises(UserError, match=r"1 of 1 `where` conditions match no|takes no training row"):
            places(missing)


def test_rows_in_other_forms_name_themselves():
    assert places(pd.DataFrame(ROWS).iloc[[2, 3]]) == places(ROWS[2:4]) == [2, 3]


def test_labels_of_a_pandas_table_are_no_places():
    table = pd.DataFrame(ROWS).sample(frac=1, random_state=0)
    with pytest.raises(UserError, match="index of a pandas table.* give a mask"):
        places(table.index[table["owner"] == "bob"], table)


def test_a_column_of_several_kinds_is_named_without_its_values():
    mixed = [row | {"id": k or "zero"} for k, row in enumerate(ROWS)]
    odd = pd.DataFrame(ROWS).assign(id=pd.period_range("2020-01", periods=6, freq="M"))
    for given in (mixed, pd.DataFrame(mixed), odd):
        with pytest.raises(UserError, match="column 'id' of the training rows holds values of several kinds") as error:
            rows_of(given, "training")
        assert error.value.__context__ is None  # pyarrow quotes a value
    twice = pd.DataFrame([["a", "b", 1]], columns=["text", "text", "id"])
    with pytest.raises(UserError, match="two columns called 'text'; rename one"):
        rows_of(twice, "training")


def test_a_key_that_the_first_row_lacks_is_a_column():
    assert rows_of([{"text": "a"}, {"text": "b", "id": "7"}], "training")["id"][:] == [None, "7"]


def test_rows_of_a_table_beside_those_of_a_file(tmp_path):
    """Types that differ only in how they are kept: text of pandas, whole numbers beside texts, nothing at all."""
    kept, gone = [row | {"n": 1} for row in ROWS], [ROWS[0] | {"text": "other", "n": None}]
    datasets.Dataset.from_list(kept).to_csv(tmp_path / "kept.csv")
    for forget in (pd.DataFrame(gone), gone, pd.DataFrame(gone).assign(id=[7])):
        request, source = request_of(forget, source_of(tmp_path / "kept.csv", test=ROWS[:1]), seed=0)
        assert request.select(source).tolist() == [0]
        assert source.train["text"][:2] == ["other", "row 0"] and source.train["n"][:2] == [None, 1]
        assert source.train["id"][0] in ("000", "7") and source.train["id"][2] == "001"


def test_test_rows_without_a_column_that_the_training_rows_are_read_by():
    """The id is no such column; the text is."""
    train = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1], "id": ["1", "2"]})
    test = datasets.Dataset.from_dict({"text": ["c"], "label": [0]})
    _, columns, _ = encoded(source_of(train, test=test), TextClassification, {}, None)
    assert columns["text"] == "text"
    with pytest.raises(UserError, match="the test rows have no column 'text', .* theirs are content, label"):
        encoded(source_of(train, test=test.rename_column("text", "content")), TextClassification, {}, None)
