import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers.row_targets import (
    RegressedTargets,
    RowTargets,
    Unmet,
    class_log_odds,
    mixture,
    quantile_map,
)


def pairs(rng, rows, own_mean, wrong_mean, sd=1.0, classes=5):
    """Log-odds `(rows, classes)` and which pairs are right."""
    right = np.zeros((rows, classes), dtype=int)
    right[np.arange(rows), rng.integers(0, classes, rows)] = 1
    return rng.normal(np.where(right == 1, own_mean, wrong_mean), sd), right


def test_class_log_odds_against_float64_softmax():
    logits = torch.tensor([[2.0, 0.5, -1.0], [40.0, 0.0, -3.0]], dtype=torch.float64)
    p = torch.softmax(logits, 1)
    expected = torch.log(p) - torch.log1p(-p)
    found = class_log_odds(Predictions(logits, torch.tensor([0, 1]), 2))
    assert torch.allclose(found[0], expected[0])
    exact = 40 - np.log(1 + np.exp(-3))  # where 1 − p in float64 has lost it
    assert found[1, 0].item() == pytest.approx(exact, abs=1e-9)
    own = Predictions(logits, torch.tensor([0, 0]), 2).log_odds
    assert torch.allclose(found[:, 0], own)


def test_quantile_map_by_hand():
    source, target = np.array([0.0, 1.0, 2.0]), np.array([10.0, 30.0, 20.0])
    mapped = quantile_map(np.array([0.0, 0.5, 2.0, 9.0, -9.0]), source, target, np.ones(3))
    assert mapped.tolist() == [10.0, 15.0, 30.0, 30.0, 10.0]


def test_ordinary_rows_get_the_distribution_of_validation_rows():
    rng = np.random.default_rng(0)
    proxy, right = pairs(rng, 4000, 2.0, -3.0)
    model, _ = 4.0 + 2.0 * proxy, None
    forget = rng.normal(2.0, 1.0, 3000)
    targets, spread = RowTargets(proxy, forget, right).fit(model)
    own = model[right == 1]
    assert targets.mean() == pytest.approx(own.mean(), abs=0.15)
    assert targets.std() == pytest.approx(own.std(), rel=0.06)
    assert spread == pytest.approx(own.std())
    assert np.all(np.diff(targets[np.argsort(forget)]) >= 0)  # a harder row keeps a lower target


def test_ordinary_rows_get_it_from_a_weak_proxy_too():
    """Where right and wrong pairs overlap in the proxy's eyes, wrong ones must not pull ordinary rows down."""
    rng = np.random.default_rng(4)
    proxy, right = pairs(rng, 4000, 0.6, -0.6)
    model = np.where(right == 1, 3.0, -6.0) + 0.3 * proxy
    targets, _ = RowTargets(proxy, rng.normal(0.6, 1.0, 3000), right).fit(model)
    assert targets.mean() == pytest.approx(model[right == 1].mean(), abs=0.8)


def test_rows_with_wrong_labels_get_the_distribution_of_wrong_pairs():
    rng = np.random.default_rng(1)
    proxy, right = pairs(rng, 4000, 2.0, -3.0)
    model = np.where(right == 1, 6.0, -8.0) + 0.5 * proxy
    targets, _ = RowTargets(proxy, rng.normal(-3.0, 1.0, 3000), right).fit(model)
    assert targets.mean() == pytest.approx(model[right == 0].mean(), abs=0.15)


def test_pairs_with_a_removed_class_are_left_out():
    proxy = np.array([[1.0, -1.0, 99.0], [-1.5, 1.5, 99.0]])
    right = np.array([[1, 0, -1], [0, 1, -1]])
    targets, _ = RowTargets(proxy, np.array([-5.0]), right).fit(10 * proxy)
    assert targets[0] == pytest.approx(-15.0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_right_labels_is_found(share):
    rng = np.random.default_rng(2)
    own, wrong = rng.normal(2, 1.5, 500), rng.normal(-3, 1.5, 4500)
    values = np.concatenate([rng.normal(2, 1.5, int(1000 * share)), rng.normal(-3, 1.5, 1000 - int(1000 * share))])
    assert mixture(values, own, wrong)[0] == pytest.approx(share, abs=0.05)


def test_regressed_targets_use_the_level_and_the_place_of_a_row():
    rng = np.random.default_rng(3)

    def rows(n):
        places, level = rng.normal(size=(n, 6)), rng.normal(size=(n, 1))
        truth = 0.5 * level[:, 0] + places[:, 2]
        return np.concatenate([level, places], axis=1), truth

    (seen, log_odds), (asked, truth) = rows(200), rows(300)
    targets, spread = RegressedTargets(seen, asked).fit(log_odds[:, None])
    assert np.corrcoef(targets, truth)[0, 1] > 0.98
    assert spread == pytest.approx(log_odds.std())
    shifted, _ = RegressedTargets(seen, asked).fit(log_odds[:, None] - 2)
    assert shifted.mean() == pytest.approx(targets.mean() - 2, abs=0.05)
    assert targets.max() <= log_odds.max() and targets.min() >= log_odds.min()


def test_targets_of_right_labels_are_drawn_to_the_median_as_far_as_the_source_is_unsure():
    rng = np.random.default_rng(4)
    truth = rng.normal(3, 2, 400)
    proxy, right = np.full((400, 2), -9.0), np.tile([1, 0], (400, 1))
    proxy[:, 0], model = truth + rng.normal(0, 3, 400), np.stack([truth, np.full(400, -9.0)], 1)
    model[:, 1] += rng.normal(0, 0.1, 400)
    proxy[:, 1] += rng.normal(0, 0.1, 400)
    asked = np.r_[rng.choice(proxy[:, 0], 20), [-9.0] * 5]  # the last five look like rows with wrong labels
    plain, _ = RowTargets(proxy, asked, right).fit(model)
    made = RowTargets(proxy, asked, right, steadies=True)
    drawn, _ = made.fit(model)
    kept = np.corrcoef(proxy[:, 0], truth)[0, 1] ** 0.5
    _, sure = made.mixture()
    assert sure[:20].min() > 0.9 and sure[20:].max() < 0.1
    level = np.median(truth)
    assert drawn[:20] == pytest.approx(plain[:20] + (1 - kept) * (level - plain[:20]))
    assert drawn[20:] == pytest.approx(plain[20:])
    against = np.c_[-truth, proxy[:, 1]]  # then nothing is said but the level
    targets, _ = RowTargets(against, np.zeros(3), np.tile([1, -1], (400, 1)), steadies=True).fit(model)
    assert targets == pytest.approx(level)


@pytest.mark.parametrize("kept", [[0, 1, 2], [0, 2]])
def test_targets_go_on_as_they_were_from_a_checkpoints_tensors(tmp_path, kept):
    rng = np.random.default_rng(0)
    seen, asked, now = rng.normal(size=(40, 3)), rng.normal(size=(9, 3)), rng.normal(size=(40, 3))
    labels = np.arange(40) % 3, np.arange(9) % 3, np.array(kept)
    made = RowTargets.from_answers(seen, asked, *labels, steadies=len(kept) == 3, unmet=Unmet(asked[:, 1] - 3))
    assert (
        not np.array_equal(made.fit(now)[0], RowTargets.from_answers(seen, asked, *labels).fit(now)[0]) or made.removed
    )
    assert (made.removed is None) == (len(kept) == 3)
    save_file({**made.to_tensors(), "tau": torch.zeros(())}, tmp_path / "state.safetensors")
    again = RowTargets.from_tensors(load_file(tmp_path / "state.safetensors"))
    assert np.array_equal(made.fit(now)[0], again.fit(now)[0]) and made.fit(now)[1] == again.fit(now)[1]
    regressed = RegressedTargets(seen, asked)
    other = RegressedTargets.from_tensors(regressed.to_tensors())
    assert np.array_equal(regressed.fit(now)[0], other.fit(now)[0])


def test_pairs_of_classes_that_nobody_keeps_are_left_out():
    labels, own, kept = np.array([0, 1]), np.array([1]), np.array([0, 2, 2])
    made = RowTargets.from_answers(np.zeros((2, 3)), np.array([[1.0, 2.0, 3.0]]), labels, own, kept)
    assert made.right.tolist() == [[1, -1, 0], [0, -1, 0]]
    assert made.proxy_forget.tolist() == [2.0] and made.removed.label.tolist() == [1]
    assert made.removed.sure_forget.tolist() == [3.0]
