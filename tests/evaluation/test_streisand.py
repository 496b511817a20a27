import numpy as np
import pytest
from scipy.stats import ks_2samp

from hf_unlearn.evaluation.streisand import streisand


def test_distance_is_scipys_mean_and_the_floor_leaves_one_out():
    rng = np.random.default_rng(0)
    loss, twins = rng.exponential(2, 50), rng.exponential(1, (3, 50))
    found = streisand(loss, twins)
    assert found["distance"] == pytest.approx(np.mean([ks_2samp(loss, twin).statistic for twin in twins]))
    pairs = {(i, j): ks_2samp(twins[i], twins[j]).statistic for i in range(3) for j in range(3) if i != j}
    each = [np.mean([pairs[i, j] for j in range(3) if j != i]) for i in range(3)]
    assert (found["floor"], found["floor_max"]) == pytest.approx((np.mean(each), max(each)))
    assert found["direction"] == "over" and found["signed"] == found["distance"] > found["floor_max"]


def test_direction():
    twins = np.array([[1.0, 2.0, 3.0], [1.1, 2.1, 3.1]])
    low = streisand(np.array([0.1, 0.2, 0.3]), twins)
    assert (low["distance"], low["signed"], low["direction"]) == (1.0, -1.0, "under")
    same = streisand(twins[0], twins[:1])
    assert (same["distance"], same["signed"], same["direction"], same["floor"]) == (0.0, 0.0, None, None)
    assert streisand(np.array([1.0, np.inf, np.inf]), twins)["direction"] == "over"


@pytest.mark.parametrize("loss, twins", [([], np.empty((2, 0))), ([1.0], np.empty((0, 1))), ([np.nan], [[1.0]])])
def test_undefined_is_none(loss, twins):
    assert set(streisand(np.array(loss), np.array(twins)).values()) == {None}
