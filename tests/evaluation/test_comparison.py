import json

import numpy as np
import pytest
from scipy.stats import binomtest, t

from hf_unlearn.evaluation.attack_comparison import compare_attacks
from hf_unlearn.evaluation.comparison import compare
from hf_unlearn.evaluation.metrics import loss_auc
from hf_unlearn.evaluation.scores import SplitScores

AVERAGED = ("forget_accuracy", "retain_accuracy", "test_accuracy", "membership")


def split(accuracy, loss, phi=None, rows=10):
    """`accuracy` in tenths; `loss` one number or one per row."""
    loss = np.broadcast_to(np.asarray(loss, float), rows).copy()
    correct = (np.arange(rows) < round(accuracy * rows)).astype(float)
    phi = -loss if phi is None else np.asarray(phi, float)
    return SplitScores(loss=loss, log_odds=phi, correct=correct, confidence=loss, entropy=loss)


def model(forget, retain, test, forget_loss=1.0, forget_phi=None, test_phi=None):
    scores = {
        "forget": split(forget, forget_loss, forget_phi),
        "retain": split(retain, 0.1),
        "test": split(test, np.arange(10) / 10, test_phi),
    }
    return scores | {"nonmembers": scores["test"]}


def test_gap_and_floor_by_hand():
    twins = [model(0.8, 1.0, 0.9), model(0.6, 1.0, 0.7), model(0.7, 0.9, 0.8)]
    result = compare(model(1.0, 1.0, 0.9, forget_loss=0.0), model(0.9, 1.0, 0.7, forget_loss=0.35), twins)
    assert result["models"]["original"]["accuracy"] == {"forget": 1.0, "retain": 1.0, "test": 0.9}
    assert result["models"]["retrained"]["accuracy"]["forget"] == pytest.approx(0.7)
    assert result["models"]["retrained"]["twins"] == 3
    # Losses 0, 0.1 … 0.9: of the non-members 6 of 10 are above 0.35, none above the twins' 1.
    assert result["models"]["unlearned"]["membership"]["loss_auc"] == pytest.approx(0.6)
    expected = {"forget_accuracy": 20, "retain_accuracy": 10 / 3, "test_accuracy": 10, "membership": 60}
    for key, value in expected.items():
        assert result["gap"][key] == pytest.approx(value)
    assert result["gap"]["average"] == pytest.approx(np.mean(list(expected.values())))
    assert result["gap"]["forget_loss"] == pytest.approx(0.65)
    assert result["difference"]["test_accuracy"] == pytest.approx(-10)
    assert result["difference"]["forget_loss"] == pytest.approx(-0.65)
    # |0.8 − 0.65|, |0.6 − 0.75|, |0.7 − 0.7|: mean 10 points; retain: 5, 5, 10.
    assert result["floor"]["forget_accuracy"] == pytest.approx(10)
    assert result["floor"]["retain_accuracy"] == pytest.approx(20 / 3)
    assert result["floor"]["membership"] == 0


def test_standard_error_of_the_twins_is_that_of_one():
    twins = [model(0.8, 1, 1, forget_loss=np.arange(10) / 5), model(0.8, 1, 1, forget_loss=np.arange(10) / 7)]
    errors = [loss_auc(twin["forget"].loss, twin["test"].loss).standard_error for twin in twins]
    membership = compare(None, None, twins)["models"]["retrained"]["membership"]
    assert membership["loss_auc_se"] == pytest.approx(np.mean(errors))


def test_level_correction_takes_a_shift_of_all_rows_away():
    rng = np.random.default_rng(0)
    rows, unseen = rng.normal(0, 3, 10), rng.normal(0, 3, 10)

    def twin(shift):
        return model(
            1, 1, 1, forget_phi=rows + rng.normal(size=10) + shift, test_phi=unseen + 0.1 * rng.normal(size=10) + shift
        )

    twins = [twin(0) for _ in range(6)]
    blocks = compare(twin(0), twin(8), twins)["models"]
    assert blocks["unlearned"]["rows"]["remembered"] == 1.0
    assert blocks["unlearned"]["rows"]["level_corrected"]["remembered"] < 0.3
    assert blocks["unlearned"]["rows"]["test_rms_z"] > 20 > 3 > blocks["original"]["rows"]["test_rms_z"]
    assert blocks["retrained"]["rows"]["level_corrected"]["rms_z"] == pytest.approx(1, abs=0.4)


def test_one_twin_gives_a_gap_and_no_floor():
    result = compare(model(1, 1, 1), model(0.9, 1, 1), [model(0.8, 1, 1)])
    assert result["gap"]["forget_accuracy"] == pytest.approx(10)
    assert set(result["floor"]) == set(result["gap"])
    assert set(result["floor"].values()) == {None}
    assert result["models"]["unlearned"]["rows"]["rms_z"] is None
    assert result["models"]["unlearned"]["rows"]["level_corrected"]["rms_z"] is None
    assert result["models"]["unlearned"]["rows"]["median_forget_loss"] == 1.0


def test_without_twins_everything_about_them_is_none():
    result = compare(model(1, 1, 1), model(0.9, 1, 1), [])
    assert result["models"]["retrained"] is None
    for block in ("gap", "floor", "difference"):
        assert set(AVERAGED) <= set(result[block])
        assert set(result[block].values()) == {None}
    json.dumps(result, allow_nan=False)


def test_missing_and_empty_splits_are_none():
    incomplete = {"forget": split(0.9, 1.0), "test": split(1, 1.0, rows=0)}
    result = compare(None, incomplete, [incomplete, incomplete])
    block = result["models"]["unlearned"]
    assert block["accuracy"] == {"forget": 0.9, "retain": None, "test": None}
    assert block["membership"] == {"loss_auc": None, "loss_auc_se": None}
    assert result["gap"]["forget_accuracy"] == 0 and result["gap"]["average"] is None
    assert result["models"]["original"] is None


def test_class_removal_uses_unseen_rows_of_the_class():
    scores = model(0.0, 1, 1, forget_loss=5.0)
    scores["nonmembers"] = split(0.1, 6.0)
    block = compare(scores, None, [])["models"]["original"]
    assert block["membership"]["loss_auc"] == 1.0
    assert block["accuracy"]["nonmembers"] == 0.1


def test_intervals():
    twins = [model(0.8, 1.0, 0.9), model(0.6, 1.0, 0.7)]
    blocks = compare(model(1.0, 1.0, 0.9), None, twins)["models"]
    found = blocks["original"]["intervals"]
    assert found["forget_accuracy"] == pytest.approx([0.025**0.1, 1.0])  # all of ten right
    exact = binomtest(9, 10).proportion_ci()
    assert found["test_accuracy"] == pytest.approx([exact.low, exact.high])
    losses = np.arange(10) / 10
    half = t.ppf(0.975, 9) * losses.std(ddof=1) / np.sqrt(10)
    assert found["test_loss"] == pytest.approx([0.45 - half, 0.45 + half])
    assert blocks["retrained"]["intervals"]["forget_accuracy"] == pytest.approx([0.6, 0.8])
    assert blocks["retrained"]["intervals"]["forget_loss"] == [1.0, 1.0]
    shares = split(1, 1.0)
    shares.correct[:] = [0.5] * 5 + [1.0] * 5
    low, high = compare({"forget": shares}, None, [])["models"]["original"]["intervals"]["forget_accuracy"]
    assert 0.4 < low < 0.75 < high < 1


def test_perfect_separation_is_not_certain():
    """DeLong's error is 0 there; the interval is that of the attack, and below ten rows there is none."""
    scores = model(1.0, 1.0, 0.9, forget_loss=0.0)
    scores["test"].loss[:] = np.arange(10) + 5.0
    block = compare(scores, None, [])["models"]["original"]
    assert block["membership"]["loss_auc"] == 1.0 and block["membership"]["loss_auc_se"] == 0.0
    attack = compare_attacks(scores, None, [])["figures"]["loss: AUC"]["original"]
    assert block["intervals"]["membership"] == attack["interval"] and attack["interval"][0] < 0.75
    few = {name: SplitScores(**{k: v[:5] for k, v in vars(s).items() if v is not None}) for name, s in scores.items()}
    assert "membership" not in compare(few, None, [])["models"]["original"]["intervals"]
