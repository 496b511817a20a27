"""A reference that knows the forgotten rows, or is far worse than the original, is no yardstick, and that is said."""

import numpy as np
import pytest

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.references import check_apart, check_reference, knows_forgotten
from hf_unlearn.evaluation.scores import SplitScores


def model(seed: int, forget: float = 2.0, retain: float = 5.0, test: float = 2.0):
    """Log-odds around these levels; a row's difficulty is the same for all models."""
    noise, truth = np.random.default_rng(seed), np.random.default_rng(99)

    def split(level, rows):
        phi = level + truth.normal(0, 1.5, rows) + noise.normal(0, 0.5, rows)
        loss = np.log1p(np.exp(-phi))
        return SplitScores(loss=loss, log_odds=phi, correct=(phi > 0) * 1.0, confidence=loss, entropy=loss)

    scores = {"forget": split(forget, 100), "retain": split(retain, 400), "test": split(test, 150)}
    return scores | {"nonmembers": scores["test"]}


def test_an_honest_twin_passes():
    original = model(0, forget=5.0)
    assert [check_reference(original, model(seed), "it") for seed in range(1, 21)] == [[]] * 20
    assert check_reference(original, model(1, forget=4.0), "it") == []  # a request of easier rows
    assert not knows_forgotten(model(1, retain=2.0))  # nothing is memorized, so nothing can be told


def test_one_that_knows_the_rows_is_told():
    (warning,) = check_reference(model(0, forget=5.0), model(1, forget=5.0), "reference 2")
    assert warning.startswith("Attention: reference 2 knows the forgotten rows")


def test_one_that_is_far_worse_is_told():
    (warning,) = check_reference(model(0, forget=5.0), model(1, forget=-1.0, retain=0.0, test=-1.0), "reference 1")
    assert "far worse" in warning and "% right" in warning
    assert check_reference(None, model(1, forget=-1.0, test=-1.0), "reference 1") == []


def test_one_that_is_there_twice_is_refused():
    check_apart({"first": model(1), "second": model(2)})
    with pytest.raises(UserError, match="third is first once more"):
        check_apart({"first": model(1), "second": model(2), "third": model(1)})


def test_the_original_itself_is_refused():
    with pytest.raises(UserError, match="reference 1 is the original"):
        check_reference(model(0), model(0), "reference 1")
