import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from sklearn.svm import SVC

from hf_unlearn.evaluation import classifier_attacks, named_attacks
from hf_unlearn.evaluation.attack_comparison import ATTACKS
from hf_unlearn.evaluation.classifier_attacks import logistic_attack, svc_efficacy
from hf_unlearn.evaluation.scores import SplitScores

UNDEFINED = {"value": None, "interval": None}


def test_logistic_attack_is_cross_validated_logistic_regression():
    rng = np.random.default_rng(0)
    members, nonmembers = rng.exponential(0.5, 60), rng.exponential(1.5, 60)
    found = logistic_attack(members, nonmembers, seed=3)
    order = np.random.default_rng(3)
    feature = np.r_[order.permutation(members), order.permutation(nonmembers)][:, None]
    splits = StratifiedShuffleSplit(n_splits=10, test_size=0.1, random_state=3)
    expected = cross_val_score(LogisticRegression(), feature, np.repeat([1, 0], 60), cv=splits, scoring="accuracy")
    assert found["value"] == pytest.approx(expected.mean(), abs=1e-12)
    assert found["interval"][0] > 0.5 and found["null"] == 0.5


def test_logistic_attack_is_balanced():
    rng = np.random.default_rng(1)
    found = logistic_attack(rng.exponential(size=20), rng.exponential(size=2000))
    assert found["interval"][0] < 0.5 < found["interval"][1]  # always "non-member" would be right 99 times in 100


def test_logistic_interval_knows_that_splits_share_rows():
    rng = np.random.default_rng(2)
    found = [logistic_attack(rng.normal(size=60), rng.normal(size=60), seed=i) for i in range(5)]
    widths = [high - low for low, high in (f["interval"] for f in found)]
    # As if all 10 · 12 tested rows were independent and of use: a floor.
    assert np.mean(widths) > 2 * 1.96 * np.sqrt(0.25 / 120)
    assert sum(low <= 0.5 <= high for low, high in (f["interval"] for f in found)) >= 4


def test_svc_efficacy_by_hand():
    rng = np.random.default_rng(0)
    forget, retain, test = rng.beta(4, 1, 50), rng.beta(8, 1, 80), rng.beta(2, 1, 90)
    shares, called, left = [], 0, 0
    for members, nonmembers in classifier_attacks._balanced_draws(retain, test, None, None, seed=0):
        feature = np.r_[retain[members], test[nonmembers]][:, None]
        attack = SVC(C=3, gamma="auto", kernel="rbf").fit(feature, np.repeat(["in", "out"], 72))
        shares.append((attack.predict(forget[:, None]) == "out").mean())
        unseen = np.delete(test, nonmembers)
        called, left = called + (attack.predict(unseen[:, None]) == "out").sum(), left + len(unseen)
    found = svc_efficacy(forget, retain, test)
    assert (found["value"], found["null"]) == pytest.approx((np.mean(shares), called / left))


def test_svc_efficacy_of_rows_like_retain_and_rows_like_test():
    rng = np.random.default_rng(0)
    retain, test = rng.normal(0, 1, 400), rng.normal(3, 1, 300)
    remembered = svc_efficacy(rng.normal(0, 1, 100), retain, test)
    forgotten = svc_efficacy(rng.normal(3, 1, 100), retain, test)
    assert remembered["value"] < 0.15 and remembered["interval"][1] < remembered["null"]
    assert forgotten["interval"][0] <= forgotten["null"] <= forgotten["interval"][1]
    assert svc_efficacy(rng.normal(3, 1, 100), retain, test, seed=1) != forgotten


def test_draws_are_balanced_stratified_and_leave_test_rows_out():
    rng = np.random.default_rng(0)
    retain_label, test_label = rng.choice(4, 500, p=[0.7, 0.1, 0.1, 0.1]), rng.choice([1, 2, 3, 9], 100)
    draws = list(classifier_attacks._balanced_draws(np.zeros(500), np.zeros(100), retain_label, test_label, 0))
    assert len(draws) == 10
    for members, nonmembers in draws:
        assert len(set(members)) == len(members) == len(nonmembers) == len(set(nonmembers))
        labels, counts = np.unique(retain_label[members], return_counts=True)
        assert labels.tolist() == [1, 2, 3]
        assert np.array_equal(counts, np.unique(test_label[nonmembers], return_counts=True)[1])
        assert all(counts <= 0.8 * np.bincount(test_label)[1:4])
    assert not np.array_equal(draws[0][0], draws[1][0])


def test_draws_are_capped():
    for members, nonmembers in classifier_attacks._balanced_draws(np.zeros(5000), np.zeros(4000), None, None, 0):
        assert len(members) == len(nonmembers) == 500


def test_constant_figures_say_nothing():
    found = svc_efficacy(np.ones(30), np.ones(50), np.ones(50))
    assert found["value"] == found["null"]


@pytest.mark.parametrize(
    "bad", [np.empty(0), np.ones(9), np.array([1.0] * 20 + [np.nan]), np.array([1.0] * 20 + [np.inf])]
)
def test_what_is_undefined_is_none(bad):
    rows = np.arange(20.0)
    assert logistic_attack(bad, rows) == UNDEFINED | {"null": 0.5}
    for three in ((bad, rows, rows), (rows, bad, rows), (rows, rows, bad)):
        assert svc_efficacy(*three) == UNDEFINED | {"null": None}


def test_no_common_class_is_undefined():
    rows = np.arange(20.0)
    assert svc_efficacy(rows, rows, rows, np.zeros(20), np.ones(20))["value"] is None


def test_svc_interval_is_calibrated():
    """Against what the same classifiers call fresh rows: these are test rows of a class that no draw trains on."""
    rng = np.random.default_rng(0)
    inside = 0
    for i in range(30):
        forget, retain, test = rng.random(200), rng.random(100), rng.random(2100)
        labels = np.zeros(100), np.repeat([0, 1], [100, 2000])
        found = svc_efficacy(forget, retain, test, *labels, seed=i)
        inside += found["interval"][0] <= found["null"] <= found["interval"][1]
    assert inside >= 26


def scores(rng, size, scale):
    loss = rng.exponential(scale, size)
    entropy = rng.exponential(scale, size)
    return SplitScores(
        loss=loss, log_odds=-loss, correct=(loss < 0.7) * 1.0, confidence=np.exp(-entropy), entropy=entropy,
        modified_entropy=2 * loss, label=rng.integers(0, 3, size),
    )  # fmt: skip


def report(forget, retain, unseen, seed=0, **more):
    """Every attack of the package, by its name."""
    sides = {"forget": forget, "retain": retain, "nonmembers": unseen, **more}
    functions = {name: getattr(named_attacks, place.split(":")[1]) for name, place in ATTACKS.items()}
    return {name: function(sides, seed) for name, function in functions.items()}


def test_every_attack_in_json_types():
    import json

    rng = np.random.default_rng(0)
    forget, retain, unseen = scores(rng, 60, 0.2), scores(rng, 200, 0.2), scores(rng, 80, 1.0)
    found = report(forget, retain, unseen, seed=1)
    assert found == report(forget, retain, unseen, seed=1) == json.loads(json.dumps(found))
    assert found["loss"]["auc"]["value"] == found["modified_entropy"]["auc"]["value"] > 0.7
    assert set(found["logistic"]) == {"loss", "entropy"} and found["logistic"]["loss"]["interval"][0] > 0.5
    names = {"correctness", "confidence", "entropy", "modified_entropy", "probability"}
    assert set(found["svc_efficacy"]) == names
    # Forget rows are like retain rows: found to be members.
    assert all(f["value"] < f["null"] for f in found["svc_efficacy"].values())


def test_a_removed_class_trains_on_other_test_rows():
    rng = np.random.default_rng(0)
    forget, retain, unseen, test = (scores(rng, 60, 0.3) for _ in range(4))
    unseen.label[:] = 7
    assert report(forget, retain, unseen)["svc_efficacy"]["entropy"]["value"] is None
    assert report(forget, retain, unseen, test=test)["svc_efficacy"]["entropy"]["value"] is not None


def test_without_the_optional_arrays():
    rng = np.random.default_rng(0)
    sides = [scores(rng, 30, 1.0) for _ in range(3)]
    for side in sides:
        side.modified_entropy = side.label = None
    found = report(*sides)
    assert found["modified_entropy"] is None and "modified_entropy" not in found["svc_efficacy"]
