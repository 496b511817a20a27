import json
import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.attacks import auc, tpr_at_fpr
from hf_unlearn.evaluation.intervals import clopper_pearson
from hf_unlearn.evaluation.lira import Models, attack_figures, likelihood_ratio, u_lira
from hf_unlearn.evaluation.metrics import loss_auc


def population(rng, hardness, number, shift=0.0, level=0.3):
    """Models of rows, half of these unlearned and half never seen in each, drawn anew."""
    rows = len(hardness)
    unlearned = np.argsort(rng.random((number, rows)), axis=1) < rows // 2
    phi = hardness + rng.normal(0, level, (number, 1)) + rng.normal(0, 1, (number, rows)) + shift * unlearned
    return Models(phi, unlearned, ~unlearned)


def test_likelihood_ratio_by_hand():
    shadows = Models([[1.0, 5.0], [3.0, 5.0], [-1.0, 4.0], [0.0, 6.0]], [[1, 1], [1, 1], [0, 0], [0, 0]],
                     [[0, 0], [0, 0], [1, 1], [1, 1]])  # fmt: skip
    targets = Models([[2.5, 5.5]], [[True, False]], [[False, True]])
    by_row = likelihood_ratio(targets, shadows, "row")
    expected = norm.logpdf(2.5, 2, math.sqrt(2)) - norm.logpdf(2.5, -0.5, math.sqrt(0.5))
    assert by_row[0, 0] == pytest.approx(expected)
    assert math.isnan(by_row[0, 1])  # unlearned, this row's two shadows agree exactly: no variance of its own
    pooled = likelihood_ratio(targets, shadows, "pooled")  # (2 + 0)/2 and (0.5 + 2)/2
    expected = norm.logpdf(5.5, 5, 1) - norm.logpdf(5.5, 5, math.sqrt(1.25))
    assert pooled[0, 1] == pytest.approx(expected)


def test_retained_and_broken_rows_are_left_out():
    rng = np.random.default_rng(0)
    shadows, targets = population(rng, np.zeros(20), 16), population(rng, np.zeros(20), 2)
    before = likelihood_ratio(targets, shadows, "pooled")
    shadows.phi[0, 3] = np.inf
    shadows.unlearned[1, 4] = shadows.never[1, 4] = False
    shadows.phi[1, 4] = 1e9  # retained there: never looked at
    targets.unlearned[0, 0] = targets.never[0, 0] = False
    targets.phi[1, 1] = np.nan
    after = likelihood_ratio(targets, shadows, "pooled")
    assert np.isnan(after[[0, 1], [0, 1]]).all() and np.isfinite(after).sum() == after.size - 2
    assert np.nanmax(abs(after - before)) < 1.5
    shadows.never[:, 7] = False
    assert np.isnan(likelihood_ratio(targets, shadows, "pooled")[:, 7]).all()


def test_with_many_shadows_it_is_the_best_attack():
    """Known distributions: AUC of N(μ + 1, 1) against N(μ, 1) with μ known is Φ(1/√2), whatever μ is."""
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 5, 300)
    shadows, targets = (population(rng, hardness, number, shift=1.0, level=0) for number in (400, 20))
    found = u_lira(targets, shadows)
    assert found["variance"] == "row" and found["shadows"] == 400 and found["shadows_per_row"] > 150
    for name in ("row", "pooled"):
        assert found[name]["auc"]["value"] == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.015)
        assert found[name]["auc"]["interval"][0] < norm.cdf(1 / math.sqrt(2)) < found[name]["auc"]["interval"][1]
    plain = loss_auc(-targets.phi[targets.unlearned], -targets.phi[targets.never]).value
    assert plain < 0.6  # without the rows' own scales


def test_few_shadows_pool_their_variance():
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 5, 100)
    found = u_lira(population(rng, hardness, 4, 1.0), population(rng, hardness, 32, 1.0))
    assert found["variance"] == "pooled"
    assert found["pooled"]["auc"]["value"] > found["row"]["auc"]["value"]
    assert json.loads(json.dumps(found)) == found


def test_interval_counts_models_not_rows():
    """A level of its own for each model: rows of one model are no independent trials."""
    rng = np.random.default_rng(0)
    unlearned = np.argsort(rng.random((5, 400)), axis=1) < 200
    level = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])[:, None]
    scores = rng.normal(0, 1, (5, 400)) + level * unlearned  # how well each model can be attacked differs
    found = attack_figures(scores, Models(scores, unlearned, ~unlearned))
    areas = [loss_auc(-s[u], -s[~u]).value for s, u in zip(scores, unlearned, strict=True)]
    half = 2.776445 * np.std(areas, ddof=1) / math.sqrt(5)  # Student, 4 degrees of freedom
    assert found["auc"]["value"] == pytest.approx(np.mean(areas))
    assert found["auc"]["interval"] == pytest.approx([np.mean(areas) - half, np.mean(areas) + half])
    assert found["clustered"] and half > 3 * loss_auc(-scores[unlearned], -scores[~unlearned]).standard_error
    rows_only = tpr_at_fpr(scores[unlearned], scores[~unlearned], 0.01)
    assert found["tpr"]["0.01"]["value"] == rows_only["value"]
    clustered, alone = found["tpr"]["0.01"]["interval"], rows_only["interval"]
    assert clustered[1] - clustered[0] > alone[1] - alone[0]


def test_models_that_agree_are_not_certain():
    """Of few unlearned rows a model, none lies above a low rate of false positives in any model, by chance alone."""
    held, points = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        unlearned = np.argsort(rng.random((4, 300)), axis=1) < 15
        scores = rng.normal(size=(4, 300))
        found = attack_figures(scores, Models(scores, unlearned, ~unlearned))["tpr"]["0.01"]
        held.append(found["interval"][0] <= found["null"] <= found["interval"][1])
        points.append(found["interval"][0] == found["interval"][1])
    assert np.mean(held) > 0.9 and not any(points)
    found = attack_figures(np.where(unlearned, 9.0, 0.0), Models(scores, unlearned, ~unlearned))
    assert found["auc"] == {"value": 1.0, "interval": clopper_pearson(15, 15), "null": 0.5}


def test_one_target_model_has_intervals_of_its_rows():
    rng = np.random.default_rng(0)
    scores, unlearned = rng.normal(size=(1, 60)), np.arange(60)[None] < 30
    found = attack_figures(scores, Models(scores, unlearned, ~unlearned))
    assert found["auc"] == auc(scores[unlearned], scores[~unlearned]) and not found["clustered"]


def test_no_targets_or_one_kind_only_is_undefined():
    none, all_rows = np.empty((0, 5)), np.ones((2, 5), bool)
    for models in (Models(none, none, none), Models(np.ones((2, 5)), all_rows, ~all_rows)):
        found = attack_figures(models.phi, models)
        assert found["targets"] == 0 and found["auc"]["value"] is None and found["tpr"]["0.01"]["value"] is None


def test_mistakes_are_refused():
    with pytest.raises(UserError, match="shape"):
        Models(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(UserError, match="both"):
        Models(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3)))


def test_u_lira_is_calibrated_and_finds_what_is_there():
    rng = np.random.default_rng(0)
    inside, width, power = [], [], []
    for i in range(200):
        hardness = rng.normal(2, 3, 200)
        found = u_lira(population(rng, hardness, 6), population(rng, hardness, 32))["pooled"]["auc"]
        inside.append(found["interval"][0] <= 0.5 <= found["interval"][1])
        width.append(np.diff(found["interval"]))
        if i < 40:
            found = u_lira(population(rng, hardness, 6, 0.5), population(rng, hardness, 32, 0.5))["pooled"]["auc"]
            power.append(found["interval"][0] > 0.5)
    theory = 2 * 2.571 * math.sqrt(201 / (12 * 100 * 100)) / math.sqrt(6)  # Student, 5 degrees of freedom
    assert 0.92 <= np.mean(inside) <= 0.98 and np.mean(width) <= 1.2 * theory and np.mean(power) >= 0.9


def test_gaussian_ratio_matches_scipy_over_many_rows():
    rng = np.random.default_rng(1)
    shadows, targets = population(rng, np.zeros(6), 30), population(rng, np.zeros(6), 1)
    means = [[shadows.phi[m[:, j], j].mean() for j in range(6)] for m in (shadows.unlearned, shadows.never)]
    sds = [[shadows.phi[m[:, j], j].std(ddof=1) for j in range(6)] for m in (shadows.unlearned, shadows.never)]
    total = [
        multivariate_normal(m, np.diag(np.square(s))).logpdf(targets.phi[0]) for m, s in zip(means, sds, strict=True)
    ]
    assert likelihood_ratio(targets, shadows, "row").sum() == pytest.approx(total[0] - total[1])
