"""Labels of several forms become the same lists of ids; what is none of them is refused in a line."""

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Features, List, Sequence, Value

from hf_unlearn.data.build import build_splits, complete_source
from hf_unlearn.data.label_sets import encode_label_sets, join_label_columns, label_matrix
from hf_unlearn.data.labelled import emptied_labels, strata
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import RowError, UserError

NAMES = ["anger", "fear", "joy"]
SETS = [[0], [2, 1], [], [2], [0, 1, 2]]
MATRIX = [[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 1], [1, 1, 1]]
FORMS = {
    "class labels": (SETS, List(ClassLabel(names=NAMES))),
    "ids": (SETS, List(Value("int64"))),
    "names": ([[NAMES[i] for i in row] for row in SETS], List(Value("string"))),
    "large lists": (SETS, datasets.LargeList(Value("int32"))),
    "repeated": ([[0], [1, 2, 2], [], [2], [2, 1, 0]], List(Value("int64"))),
    "ids as floats": ([[float(i) for i in row] for row in SETS], List(Value("float32"))),
    "zeros and ones": (MATRIX, List(Value("int64"))),
    "of a fixed length": (MATRIX, Sequence(Value("int8"), length=3)),
    "as floats": ([[float(i) for i in row] for row in MATRIX], List(Value("float32"))),
    "booleans": ([[bool(i) for i in row] for row in MATRIX], List(Value("bool"))),
}


def rows(values, feature=None, **more):
    columns = {"text": [f"t{i}" for i in range(len(values))], "labels": values} | more
    features = feature and Features({"text": Value("string"), "labels": feature})
    return datasets.Dataset.from_dict(columns, features=features)


def source(values, feature=None, **splits) -> Source:
    return Source(name="mine", train=rows(values, feature), **splits)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_ids(form):
    values, feature = FORMS[form]
    found, names = encode_label_sets(source(values, feature, test=rows(values[:2], feature)), "labels")
    known = form in ("class labels", "names")
    assert names == (NAMES if known else ["0", "1", "2"])
    assert found.train["labels"] == found.train["labels"][:] and found.train.features["labels"].feature.names == names
    assert [sorted(row) for row in SETS] == found.train["labels"][:]
    assert label_matrix(found.train, "labels").tolist() == np.array(MATRIX, bool).tolist()
    assert label_matrix(found.test, "labels").tolist() == np.array(MATRIX[:2], bool).tolist()


def test_columns_of_zeros_and_ones_become_one_and_stay():
    columns = {"Joy": [0, 1, 1], "love": [True, False, False], "awe": [0.0, 0.0, 1.0]}
    given = Source("mine", datasets.Dataset.from_dict({"labels": ["a", "b", "c"], **columns}))
    joined, name = join_label_columns(given, ["Joy", "love", "awe"])
    assert name == "labels_" and set(columns) < set(joined.train.column_names)
    found, names = encode_label_sets(joined, name, {"love": 0, "joy": 1, "awe": 2})  # the model's order
    assert names == ["love", "joy", "awe"] and found.train[name][:] == [[0], [1], [1, 2]]


def test_ids_are_the_models():
    model = {"joy": 0, "anger": 1, "fear": 2, "awe": 3}
    values, feature = FORMS["names"]
    found, names = encode_label_sets(source(values, feature), "labels", model)
    assert names == list(model) and found.train["labels"][:] == [[1], [0, 2], [], [0], [0, 1, 2]]
    found, names = encode_label_sets(source(SETS), "labels", model)  # numbers are ids already
    assert names == list(model) and found.train["labels"][:] == [sorted(row) for row in SETS]
    with pytest.raises(UserError, match="says 3 labels, and the model has 4"):
        encode_label_sets(source(MATRIX), "labels", model)
    with pytest.raises(UserError, match="classes joy.* are not among the model's"):
        encode_label_sets(source(values, feature), "labels", {"fear": 0, "anger": 1})


BAD = {
    "no lists": (["a", "b"], "holds no lists.*`label_columns`"),
    "single ids": ([0, 1], "holds no lists"),
    "lists of lists": ([[[0]], [[1]]], "holds no lists"),
    "fractions": ([[0.5], [1.0]], "holds lists of double: ids or names"),
    "a single label": ([["a"], ["a"], []], "a single label"),
    "empty lists alone": (([[], []], List(Value("int64"))), "no row has a label"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_set_of_labels(case):
    values, said = BAD[case]
    with pytest.raises(UserError, match=said) as error:
        encode_label_sets(source(*values) if isinstance(values, tuple) else source(values), "labels")
    assert "\n" not in str(error.value)


def test_rows_without_a_list_or_with_a_gap_are_named():
    for values in ([[0], None, [1]], [[0], [1, None]], [["a"], ["", "b"]]):
        with pytest.raises(
            RowError, match=r"^row 1: its labels are missing; an empty list .* \(train rows, counted from 0\)"
        ):
            encode_label_sets(source(values), "labels")
    test = rows([["a"], ["c"], ["d"]])
    with pytest.raises(UserError, match="the test rows have labels without training rows: c, d"):
        encode_label_sets(source([["a"], ["b"]], test=test), "labels")
    with pytest.raises(UserError, match="labels without training rows: 0"):  # another form than the training rows
        encode_label_sets(source([["a"], ["b"]], test=rows([[0]])), "labels")


def test_columns_that_are_none_of_zeros_and_ones():
    given = Source("mine", datasets.Dataset.from_dict({"a": [0, 1], "b": [0, 2], "c": [0, None], "d": ["0", "1"]}))
    for columns, said in (
        (["a"], "two columns or more"),
        (["a", "a"], "each once"),
        (["a", "nope"], "no column 'nope'; the columns are: a, b, c, d"),
        (["a", "b"], "'b' of the train rows holds other values than 0 and 1"),
        (["a", "d"], "'d' of the train rows holds other values"),
    ):
        with pytest.raises(UserError, match=f"`label_columns`.*{said}"):
            join_label_columns(given, columns)
    with pytest.raises(RowError, match="^row 1: it has no value in column 'c'"):
        join_label_columns(given, ["a", "c"])


def emotions(n: int, seed: int = 0) -> Source:
    true = np.random.default_rng(seed).random((n, 3)) < [0.6, 0.2, 0.4]
    values = [np.flatnonzero(row).tolist() for row in true]
    return encode_label_sets(source(values, List(ClassLabel(names=NAMES))), "labels")[0]


def test_a_named_label_takes_every_row_that_has_it():
    whole, _ = complete_source(emotions(200), trains_original=True, seed=0, label_column="labels")
    request = ForgetRequest(classes=["Fear"])
    chosen = request.select(whole, "labels", NAMES)
    held_out, whole_rows = request.notes
    assert "held out before training" in held_out and "forgotten whole, with their other labels" in whole_rows
    has = label_matrix(whole.train, "labels")
    assert np.array_equal(chosen, np.flatnonzero(has[:, 1])) and has[chosen][:, 0].any()

    class Task:
        columns, partly_read, left_out = {"text": "text", "label": "labels"}, {}, {}

        def encode(self, raw, places):
            return [{"labels": 0} for _ in places]

    splits, _ = build_splits(whole, Task(), chosen, request_kind="classes", seed=0, label_column="labels")
    assert splits.forgotten_classes == (1,)
    for role in ("retain", "validation_tau", "validation_stop", "test"):
        part = getattr(splits, role)
        assert not label_matrix(part.source.select(part.indices), "labels")[:, 1].any(), role
    unseen = splits.unseen_forgotten
    assert len(unseen) and label_matrix(unseen.source.select(unseen.indices), "labels")[:, 1].all()


def test_a_request_may_not_empty_a_label_that_it_does_not_name():
    values = [[0, 1], [0], [2], [2], []]
    given, _ = encode_label_sets(source(values, List(ClassLabel(names=NAMES))), "labels")
    assert emptied_labels(given.train, "labels", np.array([0, 1])).tolist() == [0, 1]
    for request in (ForgetRequest(classes=["anger"]), ForgetRequest(rows=np.array([0]))):
        with pytest.raises(UserError, match="leaves 1 retained label without a row.*whole labels with `classes`"):
            request.select(given, "labels", NAMES)
    assert ForgetRequest(classes=["anger", "fear"]).select(given, "labels", NAMES).tolist() == [0, 1]
    with pytest.raises(UserError, match="1 of 1 `classes` are unknown; nearest: anger"):
        ForgetRequest(classes=["angr"]).select(given, "labels", NAMES)


def test_draws_keep_the_proportions_of_the_sets():
    given = emotions(300)
    codes = strata(given.train, "labels")
    assert len(np.unique(codes)) == len({tuple(row) for row in given.train["labels"]})
    whole, _ = complete_source(given, trains_original=True, seed=0, label_column="labels")
    shares = label_matrix(given.train, "labels").mean(0)
    assert np.abs(label_matrix(whole.test, "labels").mean(0) - shares).max() < 0.04
