"""What a model remembers: hand values, chance on rows that are alike, and a planted set that is found."""

import math

import numpy as np
import pytest

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.audit import LEAST_UNSEEN, chance, gain, judge_rows, settled_rate, standing_out
from hf_unlearn.evaluation.intervals import clopper_pearson
from hf_unlearn.report.audit import ALIKE, KNOWN, UNJUDGED


def test_standing_out_by_hand():
    """At 20 % of 10 unseen rows two may lie above: the threshold is the third highest, 8."""
    unseen, scores = np.arange(1.0, 11.0), np.array([8.5, 9.5, 11.0, 0.0, 8.0])
    threshold, found = standing_out(scores, unseen, 0.2)
    assert threshold == 8.0 and found["count"] == 3 and found["expected"] == pytest.approx(5 * 3 / 11)
    assert found["share"]["value"] == pytest.approx(0.6) and found["share"]["interval"] == clopper_pearson(3, 5)
    # Of the orders of 5 + 10 alike rows: P(exactly k of the 5 above the third highest of the 10).
    chance = [math.comb(k + 2, 2) * math.comb(12 - k, 7) / math.comb(15, 5) for k in range(6)]
    assert sum(chance) == pytest.approx(1) and found["p_value"] == pytest.approx(sum(chance[3:]))


def test_rows_that_are_alike_are_seldom_told_apart():
    rng = np.random.default_rng(0)
    p = [chance(rng.exponential(size=40), rng.exponential(size=200), 0.05, draws=200) for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.08


def test_rows_without_a_single_mistake_are_known():
    """Where a model is sure of nearly every unseen row, ranks hardly tell: that none is wrong does."""
    rng = np.random.default_rng(3)
    loss, unseen = rng.uniform(0, 0.01, 100), rng.uniform(0, 0.01, 700)
    unseen[:50] += 3
    found = judge_rows(loss, unseen)
    assert found.auc["interval"][0] < 0.55 and found.verdict == KNOWN and found.standing_out["p_value"] > 0.05


def test_chance_by_hand():
    """The two highest of five: one of ten pairs is as high in ranks and in the mean, and so the p-value is 1/10."""
    scores, unseen = np.array([4.0, 5.0]), np.array([1.0, 2.0, 3.0])
    assert chance(scores, unseen, 0.2, draws=20000) == pytest.approx(0.1, abs=0.01)
    assert chance(np.ones(20), np.ones(50), 0.2, draws=50) == 1.0  # equal rows


def test_a_planted_set_is_found_by_the_rows_that_stand_out():
    """Most audited rows are as unseen ones; a fifth is known by heart, which an average hardly shows."""
    rng = np.random.default_rng(1)
    loss, unseen = rng.exponential(size=100), rng.exponential(size=1000)
    loss[:20] = 1e-6
    found = judge_rows(loss, unseen)
    assert found.verdict == KNOWN and found.stands_out[:20].all() and found.stands_out[20:].mean() < 0.05
    assert found.standing_out["false_positive_rate"] == 0.01 and found.standing_out["p_value"] < 1e-9
    assert found.beaten[:20].min() > 0.99 and found.auc["value"] > 0.5


def test_a_base_takes_off_what_is_easy_for_any_model():
    """Audited rows are easier than unseen ones, for a base as well: without it they seem to be known."""
    rng = np.random.default_rng(2)
    easy, hard = rng.uniform(0, 1, 60), rng.uniform(1, 2, 120)
    model = [easy + rng.normal(0, 0.05, 60), hard + rng.normal(0, 0.05, 120)]
    assert judge_rows(*model).verdict == KNOWN and judge_rows(*model, easy, hard).verdict == ALIKE
    learned = judge_rows(model[0] - 0.5, model[1], easy, hard)
    assert learned.verdict == KNOWN and learned.gained["mean"] == pytest.approx(0.5, abs=0.02)


def test_a_base_alone_says_what_was_gained_and_no_more():
    found = judge_rows(np.full(12, 0.5), base_loss=np.r_[np.full(9, 1.0), np.full(3, 0.25)])
    assert found.verdict == UNJUDGED and found.auc is None and not found.stands_out.any()
    assert found.gained["mean"] == pytest.approx((9 * 0.5 - 3 * 0.25) / 12)
    assert found.gained["share"]["value"] == 0.75 and found.gained["share"]["interval"] == clopper_pearson(9, 12)
    mean, low = gain(np.array([1.0, 3.0]))["mean"], gain(np.array([1.0, 3.0]))["interval"][0]
    assert mean == 2 and low == pytest.approx(2 - 12.706, abs=1e-3)


def test_rates_follow_the_number_of_unseen_rows():
    assert [settled_rate(n) for n in (50, 99, 100, 200, 1000, 5000)] == [0.2, 0.2, 0.1, 0.05, 0.01, 0.01]
    assert settled_rate(100, 0.15) == 0.15 and LEAST_UNSEEN == 50
    for rows, rate, said in ((49, None, "too few: it takes 50"), (999, 0.01, "takes 1,000"), (50, 1.5, "a share")):
        with pytest.raises(UserError, match=said):
            settled_rate(rows, rate)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (([0.1] * 9, [0.1] * 99), "9 rows to audit are too few"),
        (([0.1] * 20,), "no unseen rows"),
        (([0.1] * 19 + [math.nan], [0.1] * 99), "not finite"),
    ],
)
def test_what_says_nothing_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        judge_rows(*(np.array(part) for part in given))
