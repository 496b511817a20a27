"""Near duplicates: of held-out rows of the request too, and among the rows that count as unseen."""

import datasets
import numpy as np
import pytest
import torch

from hf_unlearn.data.build import SplitReport, build_splits, complete_source
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.data.rows import Rows
from hf_unlearn.data.sources import Source
from hf_unlearn.run.nearby import handle_near_duplicates

NAMES = ["cat", "dog", "owl"]
DIM = 64


class PlaceTask:
    """A row's content is where a model places it."""

    name = "places"
    partly_read: dict = {}
    left_out: dict = {}
    columns = {"text": "place", "label": "label"}

    def encode(self, rows, positions):
        return [{"place": torch.tensor(place)} for place in rows["place"]]

    def collate(self, rows):
        return {"place": torch.stack([row["place"] for row in rows])}

    def embed(self, model, batch):
        return batch["place"]


def rows(count: int, seed: int) -> datasets.Dataset:
    places = np.random.default_rng(seed).normal(size=(count, DIM))
    features = datasets.Features(
        {
            "place": datasets.List(datasets.Value("float32")),
            "label": datasets.ClassLabel(names=NAMES),
            "person": datasets.Value("string"),
        }
    )
    columns = {
        "place": list(places.astype(np.float32)),
        "label": [i % 3 for i in range(count)],
        "person": [f"p{i % 30}" for i in range(count)],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def changed(data: datasets.Dataset, place: int, like: list[float]) -> datasets.Dataset:
    """The rows with one of them placed next to another row."""
    near = [value + 0.001 for value in like]
    return data.map(lambda row, i: {"place": near} if i == place else {}, with_indices=True)


def three() -> Source:
    """Rows that have nothing to do with each other, but for a dog of the validation rows (the cosine of it and a
    retained one is 0.8): nearer than that counts as a near duplicate."""
    source = Source("mine", rows(90, 0), validation=rows(30, 1), test=rows(30, 2))
    dog, alike = np.array(source.train["place"][first(source.train, "dog")]), source.validation["place"][:]
    alike[28] = list(0.8 * dog / np.linalg.norm(dog) + 0.6 * np.array(alike[28]) / np.linalg.norm(alike[28]))
    assert source.validation["label"][28] == NAMES.index("dog")
    source.validation = source.validation.map(lambda row, i: {"place": alike[i]}, with_indices=True)
    return source


def find(source: Source, request: ForgetRequest, move: bool = False):
    task, label = PlaceTask(), "label"
    forget = request.select(source, label, NAMES)
    splits, report = build_splits(source, task, forget, request_kind=request.kind, seed=0, label_column=label)
    held_out = [Rows(each, task) for each in request.held_out(source, label, NAMES)]
    report = SplitReport(counts=report.counts)
    return handle_near_duplicates(splits, report, task, torch.nn.Linear(1, 1), move=move, held_out=held_out)


def first(data: datasets.Dataset, label: str) -> int:
    return data["label"][:].index(NAMES.index(label))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_retained_row_like_a_held_out_one_of_a_removed_class_is_told_and_moved(split):
    source = three()
    cat, owl = first(getattr(source, split), "cat"), first(source.train, "owl")
    source.train = changed(source.train, owl, getattr(source, split)["place"][cat])
    request = ForgetRequest(classes=["cat"])
    _, report, _ = find(source, request)
    assert report.notes == [
        "1 retained row repeats or nearly repeats a row of the request that was held out: pass --forget_duplicates to "
        "move them"
    ]
    assert report.counts["near_duplicates"] == 1 and report.counts["moved_near_duplicates"] == 0
    splits, report, _ = find(source, request, move=True)
    assert owl in splits.forget.indices
    assert report.counts["forget"] == 31 and report.counts["moved_near_duplicates"] == 1


def test_a_retained_row_like_a_held_out_one_of_a_person_is_told():
    whole = three()
    source, _ = complete_source(
        Source("mine", whole.train, validation=whole.validation), trains_original=True, seed=0, label_column="label"
    )
    person = next(p for p in source.test["person"] if p in source.train["person"][:])
    held = source.test["person"][:].index(person)
    other = next(i for i, p in enumerate(source.train["person"]) if p != person)
    source.train = changed(source.train, other, source.test["place"][held])
    request = ForgetRequest(where=[f"person={person}"])
    _, report, _ = find(source, request)
    assert len(report.notes) == 1 and "nearly repeats a row of the request that was held out" in report.notes[0]
    assert person not in report.notes[0]


@pytest.mark.parametrize("label", ["cat", "dog"])
def test_unseen_rows_like_a_forgotten_one_are_told(label):
    source = three()
    forgotten = first(source.train, "cat")
    source.test = changed(source.test, first(source.test, label), source.train["place"][forgotten])
    _, report, read = find(source, ForgetRequest(classes=["cat"]))
    of = {"cat": "10 test rows of removed classes", "dog": "20 test rows"}[label]
    assert report.notes == [f"1 of {of} repeat or nearly repeat a forgotten row, so they may not count as unseen"]
    assert report.counts["near_duplicates"] == 0
    assert read == 90 + 20 + 30 + 20  # the class's validation and test rows once more, as rows of the request


def test_nothing_is_told_of_rows_that_have_nothing_to_do_with_each_other():
    source = three()
    for request in (ForgetRequest(classes=["cat"]), ForgetRequest(fraction=0.2)):
        assert find(source, request)[1].notes == []
