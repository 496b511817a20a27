"""Retain rows are held where they stood: the loss by hand, and which rows are measured when."""

import numpy as np
import pytest
import torch
from toy import image_setup, lm_setup

from hf_unlearn.methods.nabla_tau import NablaTauConfig, NablaTauTrainer
from hf_unlearn.methods.salun import SalUnConfig, SalUnTrainer
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers.holding import HELD, SHARE
from hf_unlearn.trainers.schedule import RETAIN
from hf_unlearn.trainers.split_output import SplitOutput


def make(tmp_path, setup=image_setup, kind=NablaTauTrainer, config=NablaTauConfig, **values):
    model, splits, task = setup(torch.float64)
    options = {"per_device_train_batch_size": 4, "proxy_epochs": 1, "retrain_epochs": 3, "learning_rate": 1e-3}
    args = config(output_dir=str(tmp_path), use_cpu=True, report_to="none", **options | values)
    return kind(model, args, splits, task, quiet=True)


def test_the_loss_and_its_gradient_by_hand(tmp_path):
    t = make(tmp_path)
    losses = np.array([0.5, 0.21, 0.19, 0.05])
    p = np.exp(-losses)
    logits = torch.tensor(np.log(np.c_[p, 1 - p])).requires_grad_()
    retain = SplitOutput("retain", Predictions(logits, torch.zeros(4, dtype=torch.int64), 4), torch.arange(4), 1 / 4)
    t.method_state |= {HELD: torch.tensor([0.2, 0.2, 0.2, 0.2]), SHARE: torch.tensor(0.75)}
    loss = t.hold(retain)
    by_hand = np.array([0.3 - 0.05, 0.01**2 / 0.2, 0.01**2 / 0.2, 0.15 - 0.05])
    assert loss.item() == pytest.approx((0.25 * losses + 0.75 * by_hand).mean(), abs=1e-7)
    loss.backward()
    slope = (0.25 + 0.75 * np.array([1, 0.1, -0.1, -1])) * -(1 - p) / 4  # dℓ/dlogit of the label is p − 1
    assert np.allclose(logits.grad[:, 0], slope, atol=1e-7)


def test_rows_are_held_the_more_the_less_they_are_known(tmp_path):
    t = make(tmp_path)
    found = {}
    for known in (0.01, 0.2, 0.5, 3.0):
        t.settle_hold(known, 1.0)
        found[known] = float(t.method_state[SHARE])
    assert found == pytest.approx({0.01: 0.0, 0.2: 0.2, 0.5: 0.5, 3.0: 1.0})


def test_language_models_are_held_by_half_at_least_and_it_is_told_of_more(tmp_path, monkeypatch):
    for known, share in ((0.01, 0.5), (0.3, 0.5), (0.8, 0.8)):
        t = make(tmp_path / str(known), setup=lm_setup, variant="tokens", max_steps=1)
        settle = t.settle_hold
        monkeypatch.setattr(t, "settle_hold", lambda *_, settle=settle, known=known: settle(known, 1.0))
        t.train()
        assert t.hold_share == pytest.approx(share)
        assert int((~torch.isnan(t.method_state[HELD])).sum()) == 4  # the rows of the step
        assert any("not know its kept rows by heart" in note for note in t.notes) is (share > 0.5)


def test_a_model_that_knows_its_rows_by_heart_goes_on_with_descent(tmp_path):
    t = make(tmp_path)
    t.method_state = {}
    t.settle_hold(0.01, 1.0)
    t.measure_retain(0, 5)
    assert HELD not in t.method_state and "side_examples" not in t.method_state
    losses = torch.tensor([0.5, 1.5], requires_grad=True)
    logits = torch.stack([losses.neg(), torch.log1p(-losses.neg().exp())], dim=1)
    retain = SplitOutput("retain", Predictions(logits, torch.zeros(2, dtype=torch.int64), 2), torch.arange(2), 1 / 2)
    assert t.hold(retain).item() == pytest.approx(1.0)


@pytest.mark.parametrize(("kind", "config"), [(NablaTauTrainer, NablaTauConfig), (SalUnTrainer, SalUnConfig)])
def test_only_rows_that_steps_read_are_measured_and_counted(tmp_path, kind, config):
    t = make(tmp_path, kind=kind, config=config, max_steps=2)
    losses = t.score(t.splits.retain).loss
    t.train()
    known = t.method_state[HELD].numpy()
    sampler = t._sampler()
    read = {int(row) for step in range(2) for row in sampler.rows(step)[RETAIN]}
    assert len(read) == 8 < len(known) and {int(i) for i in np.flatnonzero(~np.isnan(known))} == read
    assert np.allclose(known[sorted(read)], losses[sorted(read)], rtol=1e-6)  # as the original had them
    assert t.rows_of_retain() == 8
    assert any("not know its kept rows by heart" in note for note in t.notes)


def test_a_prolonged_run_measures_the_rows_that_come(tmp_path):
    t = make(tmp_path)
    t.method_state = {}
    t.settle_hold(1.0, 1.0)
    t.measure_retain(0, 1)
    first = t.method_state[HELD].clone()
    with torch.no_grad():
        for weight in t.model.parameters():
            weight.mul_(0.5)
    t.measure_retain(0, 2)
    kept = ~torch.isnan(first)
    assert int(kept.sum()) == 4 and int((~torch.isnan(t.method_state[HELD])).sum()) == 8
    assert torch.equal(t.method_state[HELD][kept], first[kept])  # known rows keep their place


def test_language_models_hold_their_rows_too(tmp_path):
    t = make(tmp_path, setup=lm_setup, variant="tokens", max_steps=1)
    t.train()
    assert int((~torch.isnan(t.method_state[HELD])).sum()) == 4
