import itertools
import math

import numpy as np
import pytest

from hf_unlearn.evaluation.lira import Models
from hf_unlearn.evaluation.row_epsilon import epsilon, row_epsilons, summary


def brute_force(unlearned, never, delta):
    """Every interval between values, and its outside, as the attack; an error rate of 0 counts as one model."""
    values = [-math.inf, *sorted({*unlearned, *never}), math.inf]
    best = 0.0
    for low, high in itertools.combinations(values, 2):
        for inside in (True, False):

            def says_unlearned(phi):
                return (low <= phi < high) == inside  # noqa: B023

            fnr = np.mean([not says_unlearned(phi) for phi in unlearned])
            fpr = np.mean([says_unlearned(phi) for phi in never])
            for miss, other, n in ((fnr, fpr, len(unlearned)), (fpr, fnr, len(never))):
                if 1 - delta - other > 0:
                    best = max(best, math.log((1 - delta - other) / max(miss, 1 / n)))
    return best


@pytest.mark.parametrize("delta", [0.0, 0.1])
@pytest.mark.parametrize("decimals", [6, 0])
def test_epsilon_is_the_best_of_all_attacks(delta, decimals):
    rng = np.random.default_rng(decimals)
    for shift in (0.0, 1.0, 3.0):
        unlearned, never = rng.normal(shift, 1, 9).round(decimals), rng.normal(0, 2, 7).round(decimals)
        assert epsilon(unlearned, never, delta) == pytest.approx(brute_force(unlearned, never, delta), abs=1e-12)


def test_models_bound_epsilon_at_the_log_of_their_number():
    far = Models(
        np.r_[np.full(16, 50.0), np.zeros(16)][:, None], (np.arange(32) < 16)[:, None], (np.arange(32) >= 16)[:, None]
    )
    found = row_epsilons(far)
    assert found["epsilon"] == found["bound"] == pytest.approx(math.log(16))
    assert summary(found) == pytest.approx(
        {"rows": 1, "epsilon_median": math.log(16), "epsilon_p95": math.log(16), "null_median": found["null"][0],
         "null_p95": found["null"][0], "at_bound": 1.0}
    )  # fmt: skip
    assert epsilon(np.ones(8), np.ones(8)) == 0.0


def test_null_shows_what_choosing_the_attack_is_worth():
    rng = np.random.default_rng(0)
    unlearned = np.argsort(rng.random((48, 40)), axis=0) < 24
    phi = rng.normal(size=(48, 40))
    same = summary(row_epsilons(Models(phi, unlearned, ~unlearned)))
    assert same["epsilon_median"] == pytest.approx(same["null_median"], abs=0.25) and same["null_median"] > 0.5
    apart = summary(row_epsilons(Models(phi + 2 * unlearned, unlearned, ~unlearned)))
    assert apart["epsilon_median"] > apart["null_p95"] - 0.3 and apart["epsilon_median"] > same["epsilon_median"] + 0.5
    # Two thresholds find a change of spread, one does not.
    spread = summary(row_epsilons(Models(np.where(unlearned, 0.1, 1) * phi, unlearned, ~unlearned)))
    assert spread["epsilon_median"] > same["epsilon_median"] + 0.5


def test_rows_without_models_are_unknown():
    never = np.array([[True, True], [True, False], [False, False]])
    found = row_epsilons(Models(np.ones((3, 2)), ~never, never))
    assert np.isnan(found["epsilon"]).all()
    assert summary(found) == dict.fromkeys(
        ("epsilon_median", "epsilon_p95", "null_median", "null_p95", "at_bound")
    ) | {"rows": 0}
