import datasets
import pytest

from hf_unlearn.data.labels import encode_labels
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import RowError, UserError

PLACEHOLDERS = {f"LABEL_{i}": i for i in range(3)}


def source(train, test=None, feature=None):
    def rows(labels):
        data = datasets.Dataset.from_dict({"y": labels})
        return data if feature is None else data.cast_column("y", feature)

    return Source("mine", rows(train), test=None if test is None else rows(test))


@pytest.mark.parametrize(
    ("train", "model", "ids", "names"),
    [
        (["cat", "ant", "bee", "ant"], None, [2, 0, 1, 0], ["ant", "bee", "cat"]),
        ([2, 0, 1], None, [2, 0, 1], ["0", "1", "2"]),
        ([7, 3, 10], None, [1, 0, 2], ["3", "7", "10"]),
        (["10", "9", "2"], None, [2, 1, 0], ["2", "9", "10"]),
        ([1.0, 0.0], None, [1, 0], ["0", "1"]),
        ([True, False], None, [1, 0], ["False", "True"]),
        (["cat", "ant"], {"Cat": 0, "bee": 1, "ant": 2}, [0, 2], ["Cat", "bee", "ant"]),
        ([2, 0], {"cat": 0, "bee": 1, "ant": 2}, [2, 0], ["cat", "bee", "ant"]),
        ([2, 0], PLACEHOLDERS, [2, 0], ["0", "1", "2"]),
        (["b", "c", "a"], PLACEHOLDERS, [1, 2, 0], ["a", "b", "c"]),
        ([1, 2, 3], {"1": 2, "2": 1, "3": 0}, [2, 1, 0], ["3", "2", "1"]),
    ],
)
def test_ids_and_names(train, model, ids, names):
    encoded, found = encode_labels(source(train), "y", model)
    assert found == names and list(encoded.train["y"]) == ids and encoded.train.features["y"].names == names


def test_class_label_keeps_its_order_and_is_matched_by_name():
    feature = datasets.ClassLabel(names=["dog", "cat"])
    same, names = encode_labels(source([0, 1], feature=feature), "y")
    assert names == ["dog", "cat"] and list(same.train["y"]) == [0, 1]
    mapped, names = encode_labels(source([0, 1], feature=feature), "y", {"cat": 0, "dog": 1})
    assert names == ["cat", "dog"] and list(mapped.train["y"]) == [1, 0]
    renamed, names = encode_labels(source([0, 1], feature=feature), "y", {"Hund": 0, "Katze": 1})
    assert names == ["dog", "cat"] and list(renamed.train["y"]) == [0, 1]
    with pytest.raises(UserError, match="data's classes dog are not among the model's: cat, wolf"):
        encode_labels(source([0, 1], feature=feature), "y", {"cat": 0, "wolf": 1})


def test_all_splits_get_the_same_ids():
    encoded, names = encode_labels(source(["b", "a", "c"], ["c", "b"]), "y")
    assert list(encoded.test["y"]) == [2, 1] and encoded.test.features == encoded.train.features
    with pytest.raises(UserError, match="test rows have classes without training rows: d"):
        encode_labels(source(["b", "a"], ["d"]), "y")


def test_selected_rows_keep_their_own_labels():
    rows = datasets.Dataset.from_dict({"y": ["a", "b", "c", "d"]}).select([3, 0])
    encoded, _ = encode_labels(Source("mine", rows), "y")
    assert list(encoded.train["y"]) == [1, 0]


def test_bad_labels():
    with pytest.raises(RowError, match="row 1: it has no label") as error:
        encode_labels(source(["a", None, "b"]), "y")
    assert error.value.position == 1
    with pytest.raises(UserError, match="labels of the test rows are hidden"):
        encode_labels(source([0, 1], [-1, -1], datasets.ClassLabel(num_classes=2)), "y")
    with pytest.raises(UserError, match="no column 'label'; the columns are: y"):
        encode_labels(source([0, 1]), "label")
    with pytest.raises(UserError, match="fractional"):
        encode_labels(source([0.5, 1.0]), "y")
    with pytest.raises(UserError, match="one label per row"):
        encode_labels(source([[0], [1]]), "y")


def test_that_the_alphabet_decides_is_said():
    """A model that was trained with another order would be taught wrong labels."""
    for train, told in ((["b", "c", "a"], 1), ([0, 1, 2], 0), (["LABEL_0", "LABEL_2"], 0), (["b", "c", "c"], 1)):
        encoded, _ = encode_labels(source(train), "y", PLACEHOLDERS)
        assert [note for note in encoded.notes if "in the order of the alphabet" in note] == encoded.notes
        assert len(encoded.notes) == told
    assert encode_labels(source(["b", "a"]), "y", {"a": 0, "b": 1})[0].notes == []
    assert encode_labels(source(["b", "a"]), "y")[0].notes == []
    assert len(encode_labels(source(["b", "a"]), "y", {})[0].notes) == 1  # of an adapter nothing is known
    assert encode_labels(source([1, 0]), "y", {})[0].notes == []


def test_what_numbers_stand_for_is_said():
    """Labels that count from 1 would be taught as their neighbours', and a class would go without a row."""
    four = {f"LABEL_{i}": i for i in range(4)}
    named = {"ant": 0, "bee": 1, "cat": 2, "dog": 3}
    by_id, by_number = "class 0 has no training row: if they count from 1", "in the order of the numbers"
    for train, model, ids, told in (
        ([1, 2, 3], four, [1, 2, 3], by_id),
        (["1", "3"], named, [1, 3], by_id),
        ([1, 2, 3, 4], four, [0, 1, 2, 3], by_number),
        ([5, 0, 9, 2], four, [2, 0, 3, 1], by_number),
        ([1, 2], {}, [0, 1], by_number),
        ([0, 2], four, [0, 2], None),
        ([3, 0, 1, 2], four, [3, 0, 1, 2], None),
        ([1, 2], {"1": 0, "2": 1}, [0, 1], None),
        ([1, 2], None, [0, 1], None),
    ):
        encoded, _ = encode_labels(source(train), "y", model)
        assert list(encoded.train["y"]) == ids
        assert [told in note for note in encoded.notes] == [True] * (told is not None), (train, model)
