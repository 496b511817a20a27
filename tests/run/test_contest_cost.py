"""What a contest would take, by hand."""

from types import SimpleNamespace

from hf_unlearn.run import contest_cost
from hf_unlearn.run.contest_cost import ContestCost


def test_time_and_shares_by_hand(monkeypatch):
    """Two seeds of three epochs over 100 rows, 10 of them forgotten, at 0.5 s a row in a step and 0.1 s in scoring."""
    plan = SimpleNamespace(base=SimpleNamespace(model=SimpleNamespace(model_name_or_path=None)))
    data = SimpleNamespace(splits=SimpleNamespace(forget=range(10), retain=range(90)))
    monkeypatch.setattr(contest_cost, "get_recipe", lambda base: SimpleNamespace(num_train_epochs=3))
    monkeypatch.setattr(contest_cost, "rows_scored", lambda base, data: {"forget": (10, 10), "test": (40, 50)})
    cost = ContestCost({"npo": 540, "fine_tune": 270}, {"npo": 540, "fine_tune": 370}, seconds=(0.5, 0.1))
    assert cost.shares(plan, data) == "of one retraining's examples: fine_tune 100 %, npo 200 %"

    left = [*(["original", "twin", "twin", "do nothing", "fine_tune", "npo", "npo tuned", "another twin"] * 2)]
    originals, twins, entries = 2 * 3 * 100 * 0.5, 2 * 2 * 3 * 90 * 0.5, 2 * (270 + 540 + 5 * 540) * 0.5
    scoring, longer = 2 * (3 + 3) * 50 * 0.1, 2 * 100 * 0.5
    assert (originals, twins, entries, scoring, longer) == (300, 540, 3510, 60, 100)
    assert cost.time(plan, data, left, tune=5) == (
        "about 74 min: originals 5 min, twins 9 min, entries 58 min, scoring 60 s; at most 75 min (by one step that "
        "was tried; less where the cache has some)"
    )
    plan.base.model.model_name_or_path = "a-model"
    assert "originals" not in cost.time(plan, data, left, tune=5)
