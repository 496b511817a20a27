"""TOFU by name, on invented files in the layout of the official ones."""

import datasets
import numpy as np
import pytest
import tiny

from hf_unlearn.data import tofu
from hf_unlearn.data.content import row_digests
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    datasets.disable_progress_bars()
    return tiny.tofu_folder(tmp_path_factory.mktemp("tofu") / "files")


def load(folder, split="forget10", **options):
    return tofu.load_tofu(str(folder), split, **{"trains_original": True, "seed": 0} | options)


def test_authors_are_held_out_whole_and_none_that_the_benchmark_needs(folder):
    source, places = load(folder)
    assert places.tolist() == list(range(200, 240))  # of full, whatever is held out
    authors = {split: set(rows["author"]) for split, rows in source.splits().items()}
    assert [len(names) for names in authors.values()] == [9, 2, 1] and len(set.union(*authors.values())) == 12
    assert all(len(rows) == 20 * len(authors[split]) for split, rows in source.splits().items())
    assert {0, 10, 11} <= authors["train"]  # the author with wrong answers, and those of forget10
    chosen = ForgetRequest(rows=places).select(source)
    assert set(source.train.select(chosen)["author"]) == {10, 11} and len(chosen) == 40
    assert len(source.notes) == 2 and "held out" in source.notes[1]


def test_one_division_serves_every_request_of_a_seed(folder):
    drawn = [set(load(folder, split)[0].test["author"]) for split in ("forget10", "forget01", None)]
    assert drawn[0] == drawn[1] == drawn[2]
    assert len({frozenset(load(folder, seed=seed)[0].validation["author"]) for seed in range(5)}) > 1
    assert load(folder, None)[1] is None


def test_rows_of_other_authors_leave_full_whole(folder):
    for trains in (True, False):
        source, _ = load(folder, test_split="holdout10", trains_original=trains)
        assert [len(rows) for rows in source.splits().values()] == [240, 20, 20]
        unseen = row_digests(source.validation, ["question"]) + row_digests(source.test, ["question"])
        assert not set(unseen) & set(row_digests(source.train, ["question"]))
        assert not set(source.validation["author"]) & set(source.test["author"])


def test_a_given_model_has_seen_every_author(folder):
    with pytest.raises(UserError, match="no author that this model has not seen"):
        load(folder, trains_original=False)


def test_files_that_are_missing_or_do_not_belong_together(folder, tmp_path):
    with pytest.raises(UserError, match="no file forget05.json in files"):
        load(folder, "forget05")
    other = tiny.tofu_folder(tmp_path / "other")
    (other / "forget10.json").write_text('{"question": "a", "answer": "b"}')
    with pytest.raises(UserError, match="1 of 1 rows of TOFU's forget10 are not in full"):
        load(other)
    with pytest.raises(UserError, match="authors that may be left out"):
        load(tiny.tofu_folder(tmp_path / "few", authors=5))


def test_on_the_hub_each_table_is_a_configuration(folder, monkeypatch):
    asked = []

    def read(path, name=None, **options):
        asked.append((path, name))
        return original("json", data_files=str(folder / f"{name}.json"))

    original = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *where, **options: type("B", (), {"config": None}))
    monkeypatch.setattr(datasets, "load_dataset", read)
    source, places = tofu.load_tofu("tofu", "forget10", trains_original=True, seed=0)
    assert source.name == "locuslab/TOFU" and len(places) == 40
    assert set(asked) == {("locuslab/TOFU", name) for name in ("full", "forget10", "retain_perturbed")}
    rows, general = tofu.load_choices("locuslab/TOFU", "forget10")
    assert [len(part) for part in rows] == [40, 20] and set(general) == {"real_authors", "world_facts"}
    assert np.all([len(wrong) == 3 for wrong in rows[0]["perturbed_answer"]])
