import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score, roc_curve

from hf_unlearn.evaluation import attacks
from hf_unlearn.evaluation.intervals import clopper_pearson, mean_interval, mean_share_interval

SHIFT = math.sqrt(2) * norm.ppf(0.60)  # between two normals: an AUC of 0.60


def losses(rng, members, nonmembers, shift=0.0):
    return np.exp(rng.normal(-shift, 1, members)), np.exp(rng.normal(0, 1, nonmembers))


def inside(found):
    return found["interval"][0] <= found["null"] <= found["interval"][1]


def calibration(attack, size, draws, seed=0):
    """Coverage of the null, mean width of the interval, share of planted signals found."""
    rng = np.random.default_rng(seed)
    null = [attack(*losses(rng, *size), i) for i in range(draws)]
    planted = [attack(*losses(rng, *size, SHIFT), i) for i in range(draws // 4)]
    width = np.mean([found["interval"][1] - found["interval"][0] for found in null])
    return np.mean([inside(f) for f in null]), width, np.mean([not inside(f) for f in planted])


def test_figures_match_references():
    rng = np.random.default_rng(0)
    members, nonmembers = (side.round(2) for side in losses(rng, 400, 1200, 0.8))  # with ties
    found = attacks.loss_attack(members, nonmembers)
    label, score = np.repeat([1, 0], [400, 1200]), -np.concatenate([members, nonmembers])
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    fpr, tpr, _ = roc_curve(label, score, drop_intermediate=False)
    assert found["tpr"]["0.01"]["value"] == pytest.approx(tpr[fpr <= 0.01].max())
    assert found["tpr"]["0.001"] == {"value": None, "interval": None, "null": None}
    best = (tpr + 1 - fpr).max() / 2
    assert best - 0.05 < found["balanced_accuracy"]["value"] < best
    assert (found["members"], found["nonmembers"]) == (400, 1200)


def test_tpr_by_hand():
    nonmembers = np.arange(1000.0)  # ten may lie above the threshold, which is 989
    members = np.array([1005.0, 990.0, 989.0, 3.0])
    found = attacks.tpr_at_fpr(members, nonmembers, 0.01)
    assert found["value"] == 0.5 and found["null"] == 11 / 1001
    assert attacks.tpr_at_fpr(members, nonmembers[:999], 0.01)["value"] is None
    assert attacks.tpr_at_fpr(members, np.arange(10_000.0), 0.001)["value"] is not None


def test_ties_are_never_false_positives_beyond_the_rate():
    nonmembers = np.repeat([0.0, 1.0], [900, 100])
    assert attacks.tpr_at_fpr(np.ones(50), nonmembers, 0.01)["value"] == 0.0  # at 1 all 100 would be mistaken
    assert attacks.tpr_at_fpr(np.full(50, 2.0), nonmembers, 0.01)["value"] == 1.0


def test_many_nonmembers_leave_clopper_pearson():
    """Where the threshold is known, the interval is scipy's exact one."""
    rng = np.random.default_rng(1)
    members, nonmembers = rng.normal(1, 1, 200), rng.normal(0, 1, 1_000_000)
    found = attacks.tpr_at_fpr(members, nonmembers, 0.01)
    exact = binomtest(round(found["value"] * 200), 200).proportion_ci(method="exact")
    assert found["interval"] == pytest.approx([exact.low, exact.high], abs=2e-3)


@pytest.mark.parametrize("k, n", [(0, 12), (12, 12), (3, 40)])
def test_clopper_pearson_is_scipys(k, n):
    exact = binomtest(k, n).proportion_ci(method="exact")
    assert clopper_pearson(k, n) == pytest.approx([exact.low, exact.high])


def test_share_interval_of_yes_and_no_is_nearly_clopper_pearson():
    votes = np.repeat([1.0, 0.0], [30, 70])
    assert mean_share_interval(votes) == pytest.approx(clopper_pearson(30, 100), abs=2e-3)
    assert mean_share_interval(np.full(50, 1.0)) == clopper_pearson(50, 50)
    # Shares that hardly differ between rows say more than yes and no.
    close = mean_share_interval(np.repeat([0.35, 0.25], 50))
    assert close[1] - close[0] < 0.05 and close[0] < 0.3 < close[1]
    assert mean_share_interval(np.empty(0)) is None and clopper_pearson(0, 0) is None


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_the_intervals_of_few_shares_and_values_hold_their_mean(rows):
    """95 % as promised, where a normal quantile for a measured spread would cover 70 to 90 %."""
    rng = np.random.default_rng(rows)
    shares = rng.beta(4, 2, (1000, rows))
    found = [mean_share_interval(each) for each in shares]
    assert np.mean([low <= 4 / 6 <= high for low, high in found]) > 0.93
    values = rng.normal(2, 1, (1000, rows))
    found = [mean_interval(each) for each in values]
    assert np.mean([low <= 2 <= high for low, high in found]) == pytest.approx(0.95, abs=0.02)


def test_perfect_separation_and_constant_losses_are_not_certain():
    apart = attacks.loss_attack(np.arange(20.0), np.arange(100.0, 140.0))
    assert apart["auc"]["value"] == 1.0 and apart["auc"]["interval"] == clopper_pearson(20, 20)
    assert apart["balanced_accuracy"]["value"] >= 0.95 and apart["balanced_accuracy"]["interval"][0] < 0.97
    same = attacks.loss_attack(np.ones(20), np.ones(2000))
    assert same["auc"]["value"] == same["balanced_accuracy"]["value"] == 0.5
    assert same["auc"]["interval"][0] < 0.4 < 0.6 < same["auc"]["interval"][1]
    assert same["tpr"]["0.01"]["value"] == 0.0 and same["tpr"]["0.01"]["interval"][0] == 0.0


@pytest.mark.parametrize("members, nonmembers", [([], []), ([1.0], [2.0]), ([1.0, math.nan] * 9, [2.0] * 20)])
def test_what_is_undefined_is_none(members, nonmembers):
    found = attacks.loss_attack(np.array(members), np.array(nonmembers))
    figures = [found["auc"], found["balanced_accuracy"], *found["tpr"].values()]
    assert all(figure["value"] is None and figure["interval"] is None for figure in figures)


def test_fewer_than_ten_rows_have_an_auc_and_no_interval():
    found = attacks.loss_attack(np.arange(9.0), np.arange(50.0))
    assert found["auc"]["value"] is not None and found["auc"]["interval"] is None
    assert found["balanced_accuracy"]["value"] is None


def test_infinite_losses_are_only_large():
    finite = attacks.loss_attack(np.arange(30.0), np.r_[np.arange(29.0), 99.0])
    assert attacks.loss_attack(np.arange(30.0), np.r_[np.arange(29.0), np.inf]) == finite


def test_threshold_is_chosen_on_other_rows():
    """Where there is nothing to find, the best threshold of the same rows finds something all the same."""
    rng = np.random.default_rng(2)
    honest, optimistic = [], []
    for i in range(200):
        members, nonmembers = losses(rng, 30, 30)
        honest.append(attacks.balanced_accuracy(-members, -nonmembers, i)["value"])
        fpr, tpr, _ = roc_curve(np.repeat([1, 0], 30), -np.r_[members, nonmembers])
        optimistic.append((tpr + 1 - fpr).max() / 2)
    assert np.mean(honest) == pytest.approx(0.5, abs=0.015) and np.mean(optimistic) > 0.56


def test_same_seed_same_figure():
    sides = losses(np.random.default_rng(3), 100, 100, 0.3)
    assert attacks.loss_attack(*sides, seed=5) == attacks.loss_attack(*sides, seed=5)
    values = {attacks.loss_attack(*sides, seed=seed)["balanced_accuracy"]["value"] for seed in range(5)}
    assert len(values) > 1


def test_auc_is_calibrated():
    coverage, width, power = calibration(lambda m, n, i: attacks.auc(-m, -n), (300, 300), 1000)
    theory = 2 * 1.96 * math.sqrt(601 / (12 * 300 * 300))
    assert 0.92 <= coverage <= 0.98 and width <= 1.2 * theory and power >= 0.9


def test_balanced_accuracy_is_calibrated():
    coverage, width, _ = calibration(lambda m, n, i: attacks.balanced_accuracy(-m, -n, i), (300, 300), 600)
    assert 0.92 <= coverage <= 0.98 and width <= 1.2 * 2 * 1.96 * math.sqrt(0.5 / 300) / 2


@pytest.mark.parametrize("size", [(2000, 4000), (2000, 1000)])
def test_tpr_is_calibrated_although_its_threshold_is_measured(size):
    coverage, width, _ = calibration(lambda m, n, i: attacks.tpr_at_fpr(-m, -n, 0.01), size, 1000)
    assert 0.92 <= coverage <= 0.98
    assert width <= 1.2 * 2 * 1.96 * math.sqrt(0.01 * 0.99 * (1 / size[0] + 1 / size[1]))


def test_tpr_interval_holds_where_there_is_something_to_find():
    rng = np.random.default_rng(4)
    truth = norm.sf(norm.isf(0.01) - 1)
    found = [attacks.tpr_at_fpr(rng.normal(1, 1, 500), rng.normal(0, 1, 2000), 0.01) for _ in range(500)]
    assert np.mean([low <= truth <= high for low, high in (f["interval"] for f in found)]) >= 0.9
