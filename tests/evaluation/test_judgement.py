import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from hf_unlearn.evaluation import account
from hf_unlearn.evaluation.judged_figures import MARGINS, judge_model
from hf_unlearn.evaluation.judgement import AnotherTwin, Measured, judge
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.report.verdict import TOLD, outcomes


def model(seed, forget=0.0, test=0.0, rows=80, level=0.1):
    """Rows have a difficulty; each model has a level, and each row an error of its own."""
    truth, noise = np.random.default_rng(5), np.random.default_rng(seed)
    own = noise.normal(0, level)

    def split(mean, size):
        phi = mean + own + truth.normal(0, 2, size) + noise.normal(0, 0.7, size)
        loss = np.log1p(np.exp(-phi))
        return SplitScores(loss, phi, (phi > 0) * 1.0, loss, loss)

    found = {"forget": split(2 + forget, rows), "retain": split(6, 300), "test": split(2 + test, 200)}
    return found | {"nonmembers": found["test"]}


def told_apart(scores, twins):
    found = outcomes({"judged": {"unlearned": judge_model(scores, twins)}})
    return [outcome.key for outcome in found if outcome.found == TOLD]


@pytest.mark.parametrize("twins", [2, 4, 8])
def test_one_more_twin_is_seldom_told_apart(twins):
    alarms = [
        bool(told_apart(model(1000 * case), [model(1000 * case + i) for i in range(1, twins + 1)]))
        for case in range(1, 41)
    ]
    assert np.mean(alarms) <= 0.05


def test_what_many_rows_share_in_is_not_told_apart(monkeypatch):
    """Two twins that happen to lie near each other say little of a third one's level, however many rows there are."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    removed_class = importlib.import_module("verdict_calibration").removed_class
    alarms = [bool(told_apart(*removed_class(case, twins=2, rows=2000))) for case in range(1, 41)]
    assert np.mean(alarms) <= 0.05


def test_what_is_remembered_or_lost_is_told_apart():
    twins = [model(i) for i in range(1, 5)]
    assert {"forget_accuracy", "membership", "row_shift"} <= set(told_apart(model(9, forget=3.0), twins))
    assert told_apart(model(9, test=-2.0), twins).count("test_accuracy") == 1
    assert "row_shift" in told_apart(model(9, forget=-1.5), twins)


def test_single_rows_that_stay_are_seen_where_averages_are_right():
    twins, scores = [model(i) for i in range(1, 5)], model(9)
    push = np.where(np.arange(80) % 2 == 0, 3.0, -3.0)  # half of the rows remembered, the others over-forgotten
    scores["forget"].log_odds = scores["forget"].log_odds + push
    assert told_apart(scores, twins) == ["row_spread"]


def test_with_many_twins_it_is_the_normal_distribution():
    rng = np.random.default_rng(0)
    twins = rng.normal(0, 2, 400)
    another = AnotherTwin(twins, row_variance=1.0)  # the design effect, 4, is learned from them
    assert another.sd() == pytest.approx(np.sqrt(1 + 1 / 400) * twins.std(ddof=1), rel=0.03)
    assert another.quantile(0.025) == pytest.approx(1.96 * another.sd(), rel=0.02)
    assert another.tail(3.0) == pytest.approx(norm.sf(3 / another.sd()), rel=0.05)


def test_few_twins_widen_the_tails():
    few, many = (AnotherTwin(np.array([-1.0, 1.0] * n), 1.0) for n in (1, 50))
    assert few.quantile(0.005) / few.quantile(0.16) > 1.2 * many.quantile(0.005) / many.quantile(0.16)


def test_interval_p_and_power_agree():
    figure = Measured(5.0, np.array([0.0, 1.0, -1.0, 0.5]), 1.0, margin=3.0)
    found = judge(figure)
    low, high = found["interval"]
    assert found["difference"] == pytest.approx(4.875) and (low + high) / 2 == pytest.approx(4.875)
    edge = judge(Measured(0.125 + (high - low) / 2, figure.twins, 1.0, margin=3.0))
    assert edge["p"] == pytest.approx(0.05, abs=1e-3)  # an end at 0 is a p of 5 %
    assert found["seen"] > (high - low) / 2
    one_sided = judge(Measured(5.0, figure.twins, 1.0, margin=3.0, worse="lower"))
    assert one_sided["p"] > 0.99


def test_twins_needed_is_none_where_one_model_scatters_too_much():
    twins = np.array([-3.0, 3.0, -2.0, 2.0])
    assert judge(Measured(0.5, twins, 6.0, margin=1.0))["twins_needed"] is None
    assert judge(Measured(0.0, twins / 10, 0.06, margin=1.0))["twins_needed"] == 2


def test_rows_on_which_all_twins_agree_may_still_flip():
    def exact(wrong):
        correct = np.ones(200)
        correct[:wrong] = 0
        arrays = np.ones(200)
        return SplitScores(arrays, arrays, correct, arrays, arrays)

    def judged(wrong):
        return judge_model({"retain": exact(wrong)}, [{"retain": exact(0)} for _ in range(4)])["retain_accuracy"]

    assert judged(1)["p"] > 0.01 and judged(1)["interval"][0] > -2.5
    assert judged(20)["p"] < 1e-3


def test_what_cannot_be_known_is_none():
    assert judge_model(None, [model(1), model(2)]) is None
    assert judge_model(model(0), [model(1)]) is None
    two = judge_model(model(0), [model(1), model(2)])
    assert two["row_spread"] is None and two["row_shift"] is not None and set(two) == set(MARGINS)
    bare = judge_model({"retain": model(0)["retain"]}, [{"retain": model(i)["retain"]} for i in (1, 2)])
    assert [key for key, figure in bare.items() if figure] == ["retain_accuracy"]


@pytest.mark.parametrize(("split", "of_a_twin"), [("forget", False), ("test", True)])
def test_why_rows_are_not_judged_is_noted(split, of_a_twin):
    """A logit that is infinite leaves a loss of 0, which nothing else shows."""

    def evidence(value):
        models = [model(i) for i in range(4)]
        models[int(of_a_twin)][split].log_odds[3] = value
        return account.make_evidence(
            account.Scored(None, models[0], models[1:]), method={"name": "fine_tune"}, task="image_classification",
            model={}, data={}, seeds={"run": 0}, device=torch.device("cpu"), notes=["before"],
        )  # fmt: skip

    for value, judged in ((2.0, True), (np.inf, False), (np.nan, False)):
        found = evidence(value)
        assert (found["judged"]["unlearned"]["row_shift"] is not None) == judged
        told = [] if judged else [f"Some log-odds of {split} rows are infinite or no numbers"]
        assert [note.split(", so")[0] for note in found["notes"]] == ["before", *told]
