import math

import numpy as np
import pytest
from scipy.stats import entropy

from hf_unlearn.evaluation.klom import klom, row_kloms, summary
from hf_unlearn.evaluation.lira import Models


def test_by_hand():
    """Bins of width 1 from 0 to 20: of four unlearned models one in the first, one in the third, two in the last; of
    two retrained ones one in the first and one in the third."""
    q = np.array([0.5, 0.5, *[1e-5] * 18])
    q /= q.sum()
    expected = 0.25 * math.log(0.25 / q[0]) + 0.25 * math.log(0.25 / q[1]) + 0.5 * math.log(0.5 / q[2])
    assert klom([0.0, 2.5, 19.5, 20.0], [0.2, 2.9]) == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx(5.0635, abs=1e-3)


def test_it_is_that_of_the_release_where_its_bins_hold_all():
    """`compute_binned_KL_div`: bins by np.digitize, q clipped at 1e-5, SciPy's entropy; its last edge is the maximum,
    which is in no bin there, so that here the highest value of all is taken away from both."""
    rng = np.random.default_rng(0)
    p, q = rng.normal(1, 1, 90), rng.normal(0, 1, 110)
    edges = np.linspace(min(p.min(), q.min()), max(p.max(), q.max()), 21)
    inside = [side[side < edges[-1]] for side in (p, q)]
    counts = [np.array([(np.digitize(side, edges) == i).sum() for i in range(1, 21)]) for side in inside]
    shares = [count / len(side) for count, side in zip(counts, (p, q), strict=True)]
    top = [float((side == edges[-1]).sum()) / len(side) for side in (p, q)]
    for share, more in zip(shares, top, strict=True):
        share[-1] += more
    assert sum(top) > 0
    assert klom(p, q) == pytest.approx(entropy(shares[0], np.clip(shares[1], 1e-5, None)), abs=1e-12)


def test_alike_is_zero_and_nothing_exceeds_the_bound():
    same = np.array([1.0, 2.0, 3.0])
    assert klom(same, same) == pytest.approx(0, abs=1e-3) and klom(np.ones(4), np.ones(2)) == 0
    assert klom(np.zeros(50), np.full(50, 1.0)) == pytest.approx(math.log(1e5), abs=1e-3)
    assert klom([-1e9, 1e9], [-100.0, 100.0]) == pytest.approx(0, abs=1e-3)  # cut to ±100


def test_rows_and_their_null():
    rng = np.random.default_rng(0)
    unlearned = np.argsort(rng.random((80, 30)), axis=0) < 40
    phi = rng.normal(size=(80, 30))
    alike = summary(row_kloms(Models(phi, unlearned, ~unlearned)))
    assert alike["rows"] == 30 and alike["klom_median"] == pytest.approx(alike["null_median"], rel=0.5)
    apart = summary(row_kloms(Models(phi + 3 * unlearned, unlearned, ~unlearned)))
    assert apart["klom_median"] > 2.5 * apart["null_p95"] > 0 and apart["klom_p95"] >= apart["klom_median"]
    row = row_kloms(Models(phi, unlearned, ~unlearned))["klom"]
    assert row[7] == klom(phi[unlearned[:, 7], 7], phi[~unlearned[:, 7], 7])


def test_rows_without_models_are_unknown():
    never = np.array([[True, True], [True, False], [False, False]])
    found = row_kloms(Models(np.ones((3, 2)), ~never, never))
    assert np.isnan(found["klom"]).all()
    assert summary(found) == {"rows": 0} | dict.fromkeys(("klom_median", "klom_p95", "null_median", "null_p95"))
