import math

import numpy as np
import pytest
from scipy.stats import gaussian_kde, norm

from hf_unlearn.evaluation.lira import Models
from hf_unlearn.evaluation.ruli import game, kernel_ratio, most_memorized


def population(rng, number, rows, gain=0.0):
    """Models of rows, a random half of these unlearned in each, which adds `gain` `(rows,)` to their φ."""
    unlearned = np.argsort(rng.random((number, rows)), axis=1) < rows // 2
    return Models(rng.normal(size=(number, rows)) + gain * unlearned, unlearned, ~unlearned)


def test_kernel_ratio_is_that_of_scipy():
    rng = np.random.default_rng(0)
    shadows, targets = population(rng, 24, 5), population(rng, 3, 5)
    found = kernel_ratio(targets, shadows)
    for target in range(3):
        for row in range(5):
            phi = shadows.phi[:, row]
            sides = [gaussian_kde(phi[mask[:, row]]) for mask in (shadows.unlearned, shadows.never)]
            expected = math.log(sides[0](targets.phi[target, row])[0] / sides[1](targets.phi[target, row])[0])
            assert found[target, row] == pytest.approx(expected, abs=1e-9)


def test_kernel_ratio_by_hand():
    """Two shadows a side: standard deviation √2·half the gap, times 2^(−1/5)."""
    shadows = Models([[0.0], [2.0], [5.0], [6.0]], [[1], [1], [0], [0]], [[0], [0], [1], [1]])
    found = kernel_ratio(Models([[2.0]], [[1]], [[0]]), shadows)[0, 0]
    wide, narrow = (2 ** (-1 / 5) * math.sqrt(2) / 2 * gap for gap in (2, 1))
    expected = math.log((norm.pdf(2, 0, wide) + norm.pdf(2, 2, wide)) / 2)
    expected -= math.log((norm.pdf(2, 5, narrow) + norm.pdf(2, 6, narrow)) / 2)
    assert found == pytest.approx(expected, abs=1e-9)


def test_rows_that_cannot_be_judged_are_left_out():
    rng = np.random.default_rng(0)
    shadows, targets = population(rng, 16, 6), population(rng, 2, 6)
    before = kernel_ratio(targets, shadows)
    shadows.never[:, 0] = False  # nobody to compare with
    shadows.unlearned[:, 1] = np.arange(16) < 1  # one only
    shadows.phi[shadows.unlearned[:, 2], 2] = 3.0  # all alike
    shadows.phi[0, 3] = np.inf
    targets.phi[0, 4] = np.nan
    targets.unlearned[1, 5] = targets.never[1, 5] = False
    after = kernel_ratio(targets, shadows)
    assert np.isnan(after[:, :3]).all() and np.isfinite(after[:, 3]).all()
    assert np.isnan([after[0, 4], after[1, 5]]).all() and after[1, 4] == before[1, 4]


def test_the_most_memorized_rows():
    """(μ_in − μ_out)/(σ_in + σ_out): row 0 gains much for its spread, row 1 more, but rows of its kind vary."""
    inside = np.array([[4.0, 0.0, 1.0, 5.0, 1.0], [6.0, 20.0, 2.0, 5.0, 2.0]])
    outside = np.array([[0.0, -10.0, 1.0, 0.0, 2.0], [1.0, 10.0, 2.0, 0.0, 3.0]])
    member = np.repeat([[True], [True], [False], [False]], 5, axis=1)
    models = Models(np.concatenate([inside, outside]), member, ~member)
    sd = math.sqrt(2) / 2
    scores = [4.5 / (2 * sd + sd), 10 / (20 * sd + 20 * sd), 0, math.nan, -1 / (2 * sd)]  # row 3: without any spread
    order = [0, 1, 2, 4]
    assert sorted(order, key=lambda row: -scores[row]) == order
    assert np.flatnonzero(most_memorized(models, 0.25)).tolist() == [0]
    assert np.flatnonzero(most_memorized(models, 0.3)).tolist() == [0, 1]
    assert not most_memorized(models, 1.0)[3]


def test_memorized_rows_stand_apart():
    """What a method leaves of a few rows drowns among all of them."""
    rng = np.random.default_rng(0)
    gain = np.where(np.arange(200) < 20, 3.0, 0.0)
    shadows, targets = population(rng, 40, 200, gain), population(rng, 6, 200, gain)
    memorized = most_memorized(shadows, 0.1)
    assert memorized[:20].all()
    found = game(targets, shadows, memorized)
    assert found["memorized"]["auc"]["value"] > 0.9 and found["all"]["auc"]["value"] < 0.65
    nothing = population(rng, 40, 200), population(rng, 6, 200)
    interval = game(nothing[1], nothing[0], memorized)["all"]["auc"]["interval"]
    assert interval[0] < 0.5 < interval[1] and interval[1] - interval[0] < 0.1


def test_no_form_is_assumed():
    """Two humps around the other side's one: a Gaussian of the same mean tells less."""
    from hf_unlearn.evaluation.lira import attack_figures, likelihood_ratio

    rng = np.random.default_rng(0)
    shadows, targets = population(rng, 64, 100), population(rng, 6, 100)
    for models in (shadows, targets):
        hump = rng.choice([-4.0, 4.0], size=models.phi.shape)
        outlier = np.where(rng.random(models.phi.shape) < 0.5, 0.3, 8.0)
        models.phi = np.where(models.unlearned, hump + 0.3 * models.phi, outlier * models.phi)
    kernel, gauss = kernel_ratio(targets, shadows), likelihood_ratio(targets, shadows, "row")
    assert attack_figures(kernel, targets)["auc"]["value"] > attack_figures(gauss, targets)["auc"]["value"] + 0.1
