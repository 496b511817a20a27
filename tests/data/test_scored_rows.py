"""Of large roles a seeded sample is scored, and the evidence says how far its figures may be off."""

import numpy as np
import pytest
from toy import image_rows, image_task, splits_of

from hf_unlearn.data import scored_rows as module
from hf_unlearn.data.scored_rows import scored_rows
from hf_unlearn.evaluation.sampled import standard_error

ROLES = {"forget": 12, "retain": 30, "validation_tau": 12, "validation_stop": 12, "test": 14}


@pytest.fixture
def splits(monkeypatch):
    monkeypatch.setattr(module, "MOST_SCORED", 10)
    return splits_of(image_rows(sum(ROLES.values())), image_task(), ROLES)


def test_large_roles_are_sampled_and_the_forget_rows_are_not(splits):
    found = scored_rows(splits, 0)
    assert found.sizes() == ROLES | {"retain": 10, "validation_stop": 10, "test": 10}
    assert set(found.retain.indices) < set(splits.retain.indices) and len(set(found.retain.indices)) == 10
    assert found.retain.indices == sorted(found.retain.indices) and found.nonmembers is found.test
    assert found.retain._cache is splits.retain._cache  # what is encoded once stays so


def test_a_sample_follows_from_the_seed(splits):
    assert scored_rows(splits, 0).retain.indices == scored_rows(splits, 0).retain.indices
    assert scored_rows(splits, 0).retain.indices != scored_rows(splits, 1).retain.indices


def test_all_rows_where_asked_for_or_where_they_are_few(splits, monkeypatch):
    assert scored_rows(splits, 0, every=True) is splits
    monkeypatch.setattr(module, "MOST_SCORED", 30)
    assert scored_rows(splits, 0) is splits


def test_the_standard_error_is_that_of_samples():
    rng = np.random.default_rng(0)
    rows = rng.exponential(size=200)
    means = [rng.choice(rows, 50, replace=False).mean() for _ in range(4000)]
    each = [standard_error(rng.choice(rows, 50, replace=False), 200) for _ in range(400)]
    assert np.sqrt(np.mean(np.square(each))) == pytest.approx(np.std(means), rel=0.08)
    assert standard_error(rows, 200) == 0 and standard_error(rows[:1], 200) is None
    assert standard_error(np.array([1.0, np.nan]), 200) is None
