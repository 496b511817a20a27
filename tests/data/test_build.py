from dataclasses import replace

import datasets
import numpy as np
import pytest
from guards import GuardError, guard

from hf_unlearn.data.build import (
    build_splits,
    check_disjoint,
    complete_source,
    first_rows,
    move_to_forget,
    training_rows,
)
from hf_unlearn.data.draws import draw
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.data.rows import Rows
from hf_unlearn.data.sources import Source, load_source
from hf_unlearn.errors import RowError, UserError

NAMES = ["a", "b", "c"]


class EchoTask:
    """Stands in for a task: counts how often it encodes a row."""

    partly_read: dict = {}
    left_out: dict = {}

    def __init__(self, columns=None):
        self.columns = columns or {"text": "text", "label": "label"}
        self.encoded = 0

    def encode(self, rows, positions):
        self.encoded += len(positions)
        column = rows[next(iter(self.columns.values()))]
        for value, position in zip(column, positions, strict=True):
            if not value:
                raise RowError(position, "it has no text")
        return [{"value": value, "position": at} for value, at in zip(column, positions, strict=True)]


def rows(count, prefix="train", group=5):
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=NAMES),
            "group": datasets.Value("string"),
        }
    )
    columns = {
        "text": [f"{prefix} {i}" for i in range(count)],
        "label": [i % 3 for i in range(count)],
        "group": [f"{prefix} {i // group}" for i in range(count)],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def full_source(train=90, validation=30, test=30):
    return Source("mine", rows(train), rows(validation, "validation"), rows(test, "test"))


def texts(part):
    return [part.source["text"][i] for i in part.indices]


def test_draws_are_exact_seeded_and_proportional():
    strata = np.repeat([0, 1, 2], [10, 30, 60])
    chosen, left = draw(100, 20, 0, strata=strata)
    assert len(chosen) == 20 and sorted([*chosen, *left]) == list(range(100))
    assert np.abs(np.bincount(strata[chosen]) - [2, 6, 12]).max() <= 1
    assert (draw(100, 20, 0, strata=strata)[0] == chosen).all() and (
        draw(100, 20, 1, strata=strata)[0] != chosen
    ).any()
    groups = np.repeat(np.arange(10), 10)
    chosen, left = draw(100, 30, 0, groups=groups)
    assert len(chosen) == 30 and not set(groups[chosen]) & set(groups[left])
    with pytest.raises(UserError, match="groups are too few"):
        draw(5, 2, 0, groups=np.zeros(5))


def test_given_validation_is_halved_and_all_roles_are_disjoint():
    source = full_source()
    forget = ForgetRequest(fraction=0.1).select(source, "label", NAMES)
    splits, report = build_splits(source, EchoTask(), forget, request_kind="fraction", seed=0, label_column="label")
    assert splits.sizes() == {"forget": 9, "retain": 81, "validation_tau": 15, "validation_stop": 15, "test": 30}
    assert splits.forget.indices == forget.tolist()
    assert sorted(splits.forget.indices + splits.retain.indices) == list(range(90))
    assert sorted(texts(splits.validation_tau) + texts(splits.validation_stop)) == sorted(source.validation["text"])
    labels = np.array(source.validation["label"])[splits.validation_tau.indices]
    assert np.bincount(labels).tolist() == [5, 5, 5]
    assert report.counts["train"] == 90 and report.notes == []
    with pytest.raises(AssertionError, match="both in forget and in retain"):
        check_disjoint(replace(splits, retain=splits.forget))


def test_validation_halves_do_not_divide_groups():
    source = full_source(validation=33)
    splits, _ = build_splits(source, EchoTask(), np.arange(5), request_kind="where", seed=0, group_column="group")
    groups = [
        {source.validation["group"][i] for i in part.indices}
        for part in (splits.validation_tau, splits.validation_stop)
    ]
    assert groups[0] and groups[1] and not groups[0] & groups[1]


def test_removed_classes_leave_validation_and_test():
    source = full_source()
    forget = ForgetRequest(classes=["b"]).select(source, "label", NAMES)
    splits, _ = build_splits(source, EchoTask(), forget, request_kind="classes", seed=0, label_column="label")
    assert splits.forgotten_classes == (1,)
    for part in (splits.retain, splits.validation_tau, splits.validation_stop, splits.test):
        assert 1 not in {part.source["label"][i] for i in part.indices}
    for part in (splits.forget, splits.unseen_forgotten):
        assert {part.source["label"][i] for i in part.indices} == {1}
    assert splits.nonmembers is splits.unseen_forgotten and len(splits.unseen_forgotten) == 10


def test_original_trained_here_gets_validation_and_test_from_training_rows():
    source = Source("mine", rows(100))
    done, notes = complete_source(source, trains_original=True, seed=0, label_column="label")
    assert [len(part) for part in done.splits().values()] == [64, 16, 20]
    assert sorted(text for part in done.splits().values() for text in part["text"]) == sorted(source.train["text"])
    assert sorted(done.held_out["text"]) == sorted([*done.validation["text"], *done.test["text"]])
    assert len(notes) == 2 and "20 of 100" in notes[0] and "16 of 80" in notes[1]
    for split, part in done.splits().items():  # every row still knows its place in the file
        assert [source.train["text"][done.place(split, i)] for i in range(len(part))] == part["text"][:]
    again, _ = complete_source(source, trains_original=True, seed=0, label_column="label")
    assert again.train["text"][:] == done.train["text"][:]


def test_given_model_takes_validation_from_test_only():
    source = Source("mine", rows(60), test=rows(30, "test"))
    done, notes = complete_source(source, trains_original=False, seed=0, label_column="label")
    assert done.train is source.train and len(done.validation) == len(done.test) == 15
    assert not set(done.validation["text"]) & set(done.test["text"]) and "15 of 30 test rows" in notes[0]
    by_group, _ = complete_source(source, trains_original=False, seed=0, group_column="group")
    assert not set(by_group.validation["group"]) & set(by_group.test["group"])
    for incomplete in (Source("mine", rows(60)), Source("mine", rows(60), validation=rows(30))):
        with pytest.raises(UserError, match="no test rows"):
            complete_source(incomplete, trains_original=False, seed=0)
    with pytest.raises(UserError, match="too few"):
        complete_source(Source("mine", rows(2)), trains_original=True, seed=0)


def test_complete_sources_stay_as_they_are():
    source = full_source()
    done, notes = complete_source(source, trains_original=True, seed=0)
    assert done is source and notes == []


def test_the_held_out_rows_do_not_depend_on_the_request():
    source = Source("mine", rows(100), test=rows(30, "test"))
    done, _ = complete_source(source, trains_original=True, seed=0, label_column="label")
    for request in (ForgetRequest(fraction=0.1), ForgetRequest(classes=["a"])):
        forget = request.select(done, "label", NAMES)
        splits, _ = build_splits(done, EchoTask(), forget, request_kind=request.kind, seed=0, label_column="label")
        assert texts(training_rows(splits)) == done.train["text"][:]


def test_exact_duplicates_are_counted_and_moved_on_request():
    source = full_source()
    source.train = datasets.concatenate_datasets([source.train, source.train.select([0, 0, 1])])
    arguments = {"request_kind": "where", "seed": 0, "label_column": "label"}
    splits, report = build_splits(source, EchoTask(), np.array([0, 1, 2]), **arguments)
    assert len(splits.forget) == 3 and report.counts["exact_duplicates"] == 3
    assert report.notes[0].startswith("3 retained rows repeat a forgotten row") and "train" not in report.notes[0]
    splits, report = build_splits(source, EchoTask(), np.array([0, 1, 2]), forget_duplicates=True, **arguments)
    assert splits.forget.indices == [0, 1, 2, 90, 91, 92] and report.counts["moved_duplicates"] == 3


def test_near_duplicates_move_to_forget():
    splits, _ = build_splits(full_source(), EchoTask(), np.array([0, 5]), request_kind="where", seed=0)
    moved = move_to_forget(splits, np.array([0, 3]))  # places among the retained rows: rows 1 and 4
    assert moved.forget.indices == [0, 1, 4, 5] and len(moved.retain) == 86
    check_disjoint(moved)
    with pytest.raises(UserError, match="nothing would be kept"):
        move_to_forget(splits, np.arange(88))


def test_every_row_is_read_once_and_kept():
    task = EchoTask()
    splits, _ = build_splits(full_source(), task, np.arange(9), request_kind="where", seed=0)
    assert task.encoded == 150
    assert splits.test[3] == {"value": "test 3", "position": 3} and splits.retain[0]["position"] == 9
    assert task.encoded == 150


@pytest.mark.parametrize("cache_rows", [True, False])
def test_a_row_that_cannot_be_used_is_named_by_its_place_in_the_file(cache_rows):
    train = rows(100)
    broken = train.map(lambda row, i: {"text": "" if i == 41 else row["text"]}, with_indices=True)
    source, _ = complete_source(Source("mine", broken), trains_original=True, seed=0)
    with pytest.raises(RowError, match="row 41: it has no text"):
        build_splits(source, EchoTask(), np.arange(5), request_kind="where", seed=0, cache_rows=cache_rows)


@pytest.mark.parametrize("cache_rows", [True, False])
def test_an_unreadable_image_is_found_before_anything_is_trained(cache_rows, tmp_path):
    digits = load_source("digits")
    raw = [dict(row) for row in digits.train.select(range(20)).cast_column("image", datasets.Image(decode=False))]
    raw[12]["image"] = {"bytes": b"no image", "path": None}
    broken = datasets.Dataset.from_list(raw, features=digits.train.features)
    source = replace(digits, train=broken)
    task = EchoTask(digits.columns)
    with pytest.raises(RowError, match=r"row 12: its image cannot be read \(train rows, counted from 0\): mend"):
        build_splits(source, task, np.arange(5), request_kind="where", seed=0, cache_rows=cache_rows)


def test_roles_without_rows_are_refused():
    source = full_source(test=3)
    source.test = source.test.select([1])  # of class b
    forget = ForgetRequest(classes=["b"]).select(source, "label", NAMES)
    with pytest.raises(UserError, match="no rows are left for 'test': more test rows"):
        build_splits(source, EchoTask(), forget, request_kind="classes", seed=0, label_column="label")


def test_a_removed_class_without_test_rows_is_no_obstacle():
    """As where test rows were drawn after the class had gone. Its membership is not measured, and a note says so."""
    source = full_source(test=3)
    source.test = source.test.select([0, 2])
    forget = ForgetRequest(classes=["b"]).select(source, "label", NAMES)
    splits, report = build_splits(source, EchoTask(), forget, request_kind="classes", seed=0, label_column="label")
    assert len(splits.nonmembers) == 0 and len(splits.test) == 2
    assert [note for note in report.notes if "none of a removed class" in note]


def test_guarded_rows_have_a_length_and_nothing_else():
    splits, _ = build_splits(full_source(), EchoTask(), np.arange(9), request_kind="where", seed=0)
    guarded = guard(splits)
    assert len(guarded.test) == 30 and guarded.unseen_forgotten is None and guarded.forget is splits.forget
    for read in (lambda: guarded.test[0], lambda: guarded.test.__getitems__([1]), lambda: guarded.test.select([0])[0]):
        with pytest.raises(GuardError, match="test rows only report"):
            read()
    assert isinstance(guarded.test, Rows)


def test_a_trial_takes_some_rows_in_proportion():
    source, notes = first_rows(full_source(), 30, 0, "label")
    assert len(source.train) == 30 and len(source.held_out) == 60
    assert np.bincount(source.train["label"]).tolist() == [10, 10, 10]
    assert notes == ["a trial: 30 of 90 training rows (seed 0); the others are not seen"]
    assert source.train["text"][0] == f"train {source.place('train', 0)}"
    assert first_rows(full_source(), 90, 0)[1] == []
    complete, _ = complete_source(replace(source, test=None), trains_original=True, seed=0, label_column="label")
    assert len(complete.held_out) == 66 and len(complete.train) == 24


def test_that_a_split_has_a_single_group_is_said_of_that_split():
    rows = datasets.Dataset.from_dict({"text": list("abcdefgh"), "owner": list("aabbccdd")})
    source = Source("mine", rows, test=rows.select([0, 1]))
    with pytest.raises(UserError, match="`group_column`: the test rows are of a single 'owner'"):
        complete_source(source, trains_original=False, seed=0, group_column="owner")
    source = Source("mine", rows, test=rows.remove_columns("owner"))
    with pytest.raises(UserError, match="`group_column` of the test rows: no column 'owner'"):
        complete_source(source, trains_original=False, seed=0, group_column="owner")
