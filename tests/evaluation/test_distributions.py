import json

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from hf_unlearn.evaluation.distributions import ROC_POINTS, distributions
from hf_unlearn.evaluation.metrics import row_z
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.evaluation.streisand import streisand


def split(phi):
    loss = np.log1p(np.exp(-phi))
    return SplitScores(loss=loss, log_odds=phi, correct=(phi > 0) * 1.0, confidence=loss, entropy=loss)


def model(seed, forget=60, test=80, level=2.0):
    rng = np.random.default_rng(seed)
    scores = {
        name: split(rng.normal(level, 2, n)) for name, n in (("forget", forget), ("retain", 200), ("test", test))
    }
    return scores | {"nonmembers": scores["test"]}


def test_counts_add_up_and_stand_where_numpy_puts_them():
    models, twins = {"original": model(0), "unlearned": model(1)}, [model(2), model(3), model(4)]
    found = distributions(models["original"], models["unlearned"], twins)
    edges, counts = found["loss"]["edges"], found["loss"]["counts"]
    for name, scores in models.items():
        for role, rows in (("forget", "forget"), ("retain", "retain"), ("unseen", "test")):
            assert sum(counts[name][role]) == len(scores[rows])
            assert counts[name][role] == np.histogram(scores[rows].loss, edges)[0].tolist()
    assert sum(counts["twins"]["forget"]) == 3 * 60
    used = np.sum([c for roles in counts.values() for c in roles.values()], axis=0)
    assert used[0] and used[-1] and len(used) == len(edges) - 1
    phi = np.stack([twin["forget"].log_odds for twin in twins])
    z = row_z(models["unlearned"]["forget"].log_odds, phi)
    assert found["row_z"]["counts"]["unlearned"] == np.histogram(z, found["row_z"]["edges"])[0].tolist()
    held_out = np.concatenate([row_z(phi[i], np.delete(phi, i, axis=0)) for i in range(3)])
    assert found["row_z"]["counts"]["twins"] == np.histogram(held_out, found["row_z"]["edges"])[0].tolist()
    of_twins = np.stack([twin["forget"].loss for twin in twins])
    assert found["ks"]["unlearned"] == streisand(models["unlearned"]["forget"].loss, of_twins)


def test_edges_are_no_rows_figures():
    one, other = (distributions(model(seed), None, []) for seed in (0, 1))
    edges = set(one["loss"]["edges"]) & set(other["loss"]["edges"])
    assert len(edges) > 10
    losses = np.concatenate([rows.loss for rows in model(0).values()])
    assert not set(losses) & set(one["loss"]["edges"])


def test_what_lies_beyond_the_grid_is_counted_in_its_last_bins():
    scores = model(0)
    scores["forget"].loss[:3] = [0.0, 1e9, np.inf]
    found = distributions(scores, None, [])["loss"]
    assert sum(found["counts"]["original"]["forget"]) == 60
    assert found["edges"][0] == pytest.approx(1e-6) and found["edges"][-1] == pytest.approx(100)
    assert found["counts"]["original"]["forget"][-1] == 2


@pytest.mark.parametrize("test", [80, 5000])
@pytest.mark.parametrize("ties", [False, True])
def test_roc_is_scikit_learns(test, ties):
    scores = model(0, test=test)
    if ties:
        for rows in (scores["forget"], scores["test"]):
            rows.loss = rows.loss.round(1)
    found = distributions(scores, None, [])["roc"]
    member, unseen = scores["forget"].loss, scores["test"].loss
    label = np.repeat([1, 0], [len(member), len(unseen)])
    fpr, tpr, _ = roc_curve(label, -np.concatenate([member, unseen]), drop_intermediate=False)
    expected = [tpr[fpr <= rate + 1e-5].max() for rate in found["fpr"]]
    assert found["tpr"]["original"] == pytest.approx(expected, abs=1e-5)
    assert (found["fpr"][0], found["fpr"][-1], found["tpr"]["original"][-1]) == (0, 1, 1)
    assert len(found["fpr"]) <= ROC_POINTS + 1 and (found["members"], found["nonmembers"]) == (60, test)


def test_the_twins_curve_is_their_mean_and_their_band_its_range():
    twins = [model(2), model(3)]
    found = distributions(None, None, twins)["roc"]
    each = np.array([distributions(twin, None, [])["roc"]["tpr"]["original"] for twin in twins])
    assert found["tpr"]["twins"] == pytest.approx(each.mean(axis=0), abs=1e-5)
    assert np.array(found["twins_range"]) == pytest.approx(np.array([each.min(axis=0), each.max(axis=0)]), abs=1e-5)


def test_what_cannot_be_known_is_none():
    without = distributions(model(0), model(1), [])
    assert without["row_z"] is None and without["ks"] is None and "twins" not in without["loss"]["counts"]
    one = distributions(model(0), model(1), [model(2)])
    assert one["row_z"] is None and one["ks"]["unlearned"]["floor"] is None
    two = distributions(model(0), model(1), [model(2), model(3)])
    assert set(two["row_z"]["counts"]) == {"original", "unlearned"}
    assert distributions(None, None, []) == {"loss": None, "roc": None, "row_z": None, "ks": None}
    broken = model(0)
    broken["forget"].loss[0] = np.nan
    found = distributions(broken, None, [model(2), model(3)])
    assert found["roc"] is None and found["ks"]["original"]["distance"] is None
    assert sum(found["loss"]["counts"]["original"]["forget"]) == 59
    json.dumps([without, one, two, found], allow_nan=False)
