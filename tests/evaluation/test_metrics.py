import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hf_unlearn.evaluation.metrics import (
    evaluation_metrics,
    loss_auc,
    row_statistics,
    row_statistics_floor,
    row_z,
    top5_loss_share,
)
from hf_unlearn.evaluation.scores import SplitScores


def split(loss, correct=None):
    loss = np.asarray(loss, float)
    correct = np.ones_like(loss) if correct is None else np.asarray(correct, float)
    return SplitScores(loss=loss, log_odds=-loss, correct=correct, confidence=loss, entropy=loss)


def brute_force_delong(members, nonmembers):
    """The textbook double loop over pairs; a member wins with the lower loss."""
    wins = np.array([[1.0 if x < y else 0.5 if x == y else 0.0 for y in nonmembers] for x in members])
    variance = wins.mean(1).var(ddof=1) / len(members) + wins.mean(0).var(ddof=1) / len(nonmembers)
    return wins.mean(), np.sqrt(variance)


@pytest.mark.parametrize("decimals", [8, 1, 0])  # fewer decimals, more ties
def test_auc_and_its_error_match_references(decimals):
    rng = np.random.default_rng(decimals)
    members = rng.exponential(0.8, 60).round(decimals)
    nonmembers = rng.exponential(1.3, 45).round(decimals)
    auc = loss_auc(members, nonmembers)
    labels = np.r_[np.ones(60), np.zeros(45)]
    assert auc.value == pytest.approx(roc_auc_score(labels, -np.r_[members, nonmembers]), abs=1e-12)
    assert (auc.value, auc.standard_error) == pytest.approx(brute_force_delong(members, nonmembers), abs=1e-12)


def test_standard_error_is_the_spread_over_samples():
    rng = np.random.default_rng(0)
    draws = [loss_auc(rng.normal(0, 1, 80), rng.normal(0.5, 1, 120)) for _ in range(600)]
    spread = np.std([auc.value for auc in draws])
    assert np.mean([auc.standard_error for auc in draws]) == pytest.approx(spread, rel=0.1)


def test_lower_loss_means_member():
    assert loss_auc([0.1, 0.2, 0.3], [1.0, 2.0]).value == 1.0
    assert loss_auc([1.0, 2.0], [0.1, 0.2, 0.3]).value == 0.0


def test_auc_of_constant_losses_is_a_coin():
    auc = loss_auc([0.5] * 4, [0.5] * 7)
    assert (auc.value, auc.standard_error) == (0.5, 0.0)


@pytest.mark.parametrize(
    "members, nonmembers", [([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0]), ([], []), ([1, np.nan], [1, 2])]
)
def test_undefined_auc_is_none(members, nonmembers):
    auc = loss_auc(np.array(members), np.array(nonmembers))
    assert (auc.value, auc.standard_error) == (None, None)


def test_infinite_losses_are_only_large():
    assert loss_auc([0.0, np.inf], [np.inf, np.inf]).value == 0.75


def test_row_z_by_hand():
    twins = np.array([[0.0, 10.0], [2.0, 14.0]])  # row variances 2 and 8, pooled 5; means 1 and 12
    unit = np.sqrt(5 * 1.5)
    assert row_z(np.array([1.0, 12 + 3 * unit]), twins) == pytest.approx([0.0, 3.0])
    statistics = row_statistics(np.array([1.0, 12 + 3 * unit]), twins)
    assert statistics == pytest.approx({"rms_z": np.sqrt(4.5), "remembered": 0.5, "over_forgotten": 0.0})
    assert row_statistics(np.array([1 - 3 * unit, 12.0]), twins)["over_forgotten"] == 0.5


@pytest.mark.parametrize("count", [2, 4, 10])
def test_another_twin_has_rms_z_one(count):
    rng = np.random.default_rng(count)
    truth = rng.normal(0, 3, 20000)
    phi, twins = truth + rng.normal(size=20000), truth + rng.normal(size=(count, 20000))
    assert row_statistics(phi, twins)["rms_z"] == pytest.approx(1, abs=0.03)
    if count > 2:
        assert row_statistics_floor(twins)["rms_z"] == pytest.approx(1, abs=0.03)


def test_floor_leaves_the_judged_twin_out():
    twins = np.array([[0.0, 1.0], [1.0, 0.0], [50.0, -50.0]])
    each = [row_statistics(twins[i], np.delete(twins, i, axis=0))["rms_z"] for i in range(3)]
    assert row_statistics_floor(twins)["rms_z"] == pytest.approx(np.mean(each))
    assert each[2] > 30 * each[0]


def test_rows_need_two_twins_and_the_floor_three():
    phi = np.array([1.0, 2.0])
    nothing = {"rms_z": None, "remembered": None, "over_forgotten": None}
    assert row_statistics(phi, np.empty((0, 2))) == row_statistics(phi, phi[None]) == nothing
    assert row_statistics(phi, np.stack([phi, phi])) == nothing  # no spread, no unit
    for count in (0, 1, 2):
        assert row_statistics_floor(np.arange(2.0 * count).reshape(count, 2)) == nothing


def test_top_rows_carry_the_loss():
    assert top5_loss_share(np.array([1.0] * 38 + [31.0, 31.0])) == pytest.approx(0.62)  # 5 % of 40 are 2 rows
    assert top5_loss_share(np.array([1.0, 3.0])) == 0.75
    assert top5_loss_share(np.array([0.0, 0.0])) is None


def test_evaluation_metrics_names_and_values():
    metrics = evaluation_metrics({"forget": split([1.0, 2.0], [1, 0]), "retain": split([]), "test": split([2.0, 3.0])})
    assert metrics.pop("membership_auc_se") > 0
    assert metrics == {
        "forget_accuracy": 0.5,
        "forget_loss": 1.5,
        "test_accuracy": 1.0,
        "test_loss": 2.5,
        "membership_auc": 0.875,
    }


def test_membership_compares_with_nonmembers_where_they_differ_from_test():
    scores = {"forget": split([1.0, 2.0]), "test": split([9.0, 9.0]), "nonmembers": split([0.0, 0.0])}
    assert evaluation_metrics(scores)["membership_auc"] == 0.0
    assert "nonmembers_loss" not in evaluation_metrics(scores)
