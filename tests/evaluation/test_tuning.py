"""How a candidate of a search is valued: by hand, and that what is better is valued better."""

import numpy as np
import pytest

from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.evaluation.tuning import rate_factors, validation_distance


def scores(loss, correct) -> SplitScores:
    loss = np.array(loss, float)
    return SplitScores(loss, -loss, np.array(correct, float), loss, loss)


def test_by_hand():
    forget = scores([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 0])  # 75 %
    unseen = scores([2.5, 3.5], [1, 0])  # 50 %
    before = scores([1.0, 1.0], [1, 1])  # 100 %: 50 points are lost
    # Of 8 pairs the forget row has the lower loss in 5: 1 and 2 against both, 3 against one. AUC 0.625.
    assert validation_distance(forget, unseen, before) == pytest.approx((25 + 12.5) / 2 + 50)
    assert validation_distance(forget, unseen, unseen) == pytest.approx((25 + 12.5) / 2)
    assert validation_distance(forget, unseen, scores([5.0], [0])) == pytest.approx((25 + 12.5) / 2)  # no reward
    assert validation_distance(forget, unseen, before, removes_classes=True) == pytest.approx(75 + 50)


def test_a_loss_that_is_not_finite_is_the_worst():
    fine, broken = scores([1.0, 2.0], [1, 0]), scores([1.0, float("nan")], [1, 0])
    assert validation_distance(fine, fine, fine) == 0
    assert validation_distance(broken, fine, fine) == validation_distance(fine, broken, fine) == float("inf")


def test_remembering_and_overdoing_it_are_both_far():
    unseen = scores(np.linspace(0.5, 2, 20), [1, 0] * 10)
    remembered, overdone = scores(np.full(20, 0.01), np.ones(20)), scores(np.full(20, 9.0), np.zeros(20))
    for far in (remembered, overdone):
        assert validation_distance(far, unseen, unseen) == pytest.approx(50)
    assert validation_distance(scores(unseen.loss, unseen.correct), unseen, unseen) == 0


def test_rates_begin_with_the_default_and_go_both_ways():
    assert rate_factors(5) == pytest.approx([1, 10**-0.5, 10**0.5, 0.1, 10])
    assert rate_factors(2) == rate_factors(5)[:2]
