import numpy as np
import pytest
import torch

from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers.token_targets import TokenLogOdds, agreeing, fit_targets, leave_one_out, on_line, row_targets


def test_a_rows_log_odds_follow_from_those_of_its_tokens():
    torch.manual_seed(0)
    logits, labels = 4 * torch.randn(7, 5, dtype=torch.float64), torch.tensor([0, 3, 1, 4, 2, 2, 0])
    said = Predictions(logits, labels, 3, torch.tensor([0, 0, 1, 1, 1, 1, 2]))
    tokens = TokenLogOdds(said.label_log_odds.numpy(), np.array([2, 4, 1]))
    assert np.allclose(tokens.of_rows, said.log_odds.numpy())
    assert tokens.start.tolist() == [0, 2, 6, 7]


def test_a_row_known_by_heart_has_finite_log_odds():
    tokens = TokenLogOdds(np.array([80.0, 90.0]), np.array([2]))
    assert np.isfinite(tokens.of_rows).all()


def test_the_line_by_hand():
    mapped = on_line(np.array([0.0, 5.0]), np.array([1.0, 2.0, 3.0]), np.array([-4.0, 1.0, 0.0]))
    assert mapped.tolist() == [-5.0, 5.0]  # slope 2 through (2, −1): of the spread 2.16 / 0.82, times r = 0.76
    assert leave_one_out(np.array([0.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0])).tolist() == [0.0, 2.0, 4.0]


def rows(rng, n, of_place: float):
    """Log-odds of the model and the proxy, and places of which one coordinate moves only the model's."""
    places, level = rng.normal(size=(n, 60)), rng.normal(size=n)
    return 2 * level - 1 + of_place * places[:, 0], level, places


@pytest.mark.parametrize("n, of_place, better", [(16, 0.3, "line"), (200, 3.0, "regressed")])
def test_validation_rows_choose_how_rows_are_translated(n, of_place, better):
    rng = np.random.default_rng(0)
    model, seen, at = rows(rng, n, of_place)
    truth, asked, wanted = rows(rng, 300, of_place)
    found = row_targets(model, seen, asked, (at, wanted))
    line = on_line(asked, seen, model)
    assert np.array_equal(found, line) == (better == "line")
    assert np.std(found - truth) <= np.std(line - truth)


def test_easy_tokens_keep_high_targets():
    seen = TokenLogOdds(np.array([-2.0, 0.0, 2.0, 4.0, -1.0, 3.0]), np.array([2, 2, 2]))
    model = TokenLogOdds(2 * seen.values, seen.count)
    asked = TokenLogOdds(np.array([4.0, -2.0, 0.0]), np.array([2, 1]))
    found = fit_targets(model, seen, asked, (np.zeros((3, 2)), np.zeros((2, 2))))
    easy, hard, alone = found["token_targets"].tolist()
    assert easy - hard == pytest.approx(12.0)  # 8 − (−4) on the model's scale
    assert alone == pytest.approx(found["targets"][1].item())
    assert found["token_start"].tolist() == [0, 2, 3]
    assert found["token_spread"] == pytest.approx(model.values.std())


def test_tokens_at_their_targets_give_the_row_its_target():
    rng = np.random.default_rng(0)
    tokens, rows = TokenLogOdds(3 * rng.normal(size=9), np.array([1, 5, 3])), np.array([2.0, -1.5, 0.3])
    moved = agreeing(tokens, rows)
    assert TokenLogOdds(moved, tokens.count).of_rows == pytest.approx(rows, abs=1e-5)
    assert np.diff(moved[1:6]) == pytest.approx(np.diff(tokens.values[1:6]))  # alike within a row
