"""The form of ∇τ for causal LMs, against values worked out by hand."""

import numpy as np
import pytest
import torch
from toy import image_setup, lm_setup

from hf_unlearn.errors import UserError
from hf_unlearn.methods.nabla_tau import NablaTauConfig, NablaTauTrainer
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers import token_pull
from hf_unlearn.trainers.config import KnownRecipe
from hf_unlearn.trainers.holding import HELD, SHARE
from hf_unlearn.trainers.split_output import SplitOutput
from hf_unlearn.trainers.token_instead import kept, packed

# Two rows of two tokens and three words; φ of a token is its label's logit minus the log-sum-exp of the others.
LOGITS = torch.log(torch.tensor([[0.9, 0.05, 0.05], [0.5, 0.25, 0.25], [0.2, 0.4, 0.4], [0.1, 0.6, 0.3]]).double())


def outputs():
    logits = LOGITS.clone().requires_grad_()
    forget = Predictions(logits, torch.zeros(4, dtype=torch.int64), 2, torch.tensor([0, 0, 1, 1]))
    return logits, SplitOutput("forget", forget, torch.tensor([1, 0]), 1 / 2)


def state(forget: SplitOutput, amounts, places, spread=2.0, token_spread=4.0):
    """Targets such that the rows of the batch, which are rows 1 and 0, lie `amounts` spreads above them."""
    targets = torch.zeros(2).double()
    targets[forget.index] = forget.log_odds.detach() - spread * torch.tensor(amounts).double()
    tokens = forget.predictions.label_log_odds.detach() - token_spread * torch.tensor(places).double()
    return {
        "targets": targets,
        "spread": torch.tensor(spread),
        "token_targets": torch.cat([tokens[2:], tokens[:2]]),  # row 0 of the split is the second of the batch
        "token_spread": torch.tensor(token_spread),
        "token_start": torch.tensor([0, 2, 4]),
    }


def test_the_loss_and_its_gradient_by_hand():
    logits, forget = outputs()
    known = state(forget, amounts=[1.5, -0.5], places=[0.25, -3.0, -0.75, 3.0])
    loss = token_pull.pull(known, forget)
    phi = [np.log(p / (1 - p)) for p in (0.9, 0.5, 0.2, 0.1)]
    # Above its target only the tokens above theirs are pulled down; below it only those below theirs are pulled up.
    above, below = 1.5 * (0.25 * phi[0] + 0.0) / 2, -0.5 * (0.75 * phi[2] + 0.0) / 2
    assert loss.item() == pytest.approx(0.6 * (above + below) / 2)
    loss.backward()
    slope = logits.grad[:, 0]  # dφ/dlogit of the label is 1
    expected = 0.6 / 2 * np.array([1.5 * 0.25 / 2, 0, -0.5 * 0.75 / 2, 0])
    assert np.allclose(slope.numpy(), expected)


def test_classifiers_have_no_tokens(tmp_path):
    model, splits, task = image_setup()
    args = NablaTauConfig(output_dir=str(tmp_path), use_cpu=True, variant="tokens")
    with pytest.raises(UserError, match="for causal_lm"):
        NablaTauTrainer(model, args, splits, task, quiet=True)


def test_the_pull_ends_at_the_target():
    logits, forget = outputs()
    token_pull.pull(state(forget, [0.0, 0.0], [1.0, 1.0, -1.0, -1.0]), forget).backward()
    assert torch.count_nonzero(logits.grad) == 0


def test_far_tokens_pull_no_more_than_one_spread_away():
    grads = []
    for place in (1.0, 5.0):
        logits, forget = outputs()
        token_pull.pull(state(forget, [2.0, 0.0], [place, 0.0, 0.0, 0.0]), forget).backward()
        grads.append(logits.grad)
    assert torch.equal(*grads)


def make(tmp_path, recipe=None, dtype=torch.float64, **values):
    model, splits, task = lm_setup(dtype)
    options = {"variant": "tokens", "proxy_epochs": 1, "retrain_epochs": 3} | values
    args = NablaTauConfig(output_dir=str(tmp_path), use_cpu=True, **options)
    return NablaTauTrainer(model, args, splits, task, quiet=True, recipe=recipe)


def test_the_defaults_of_the_form_and_what_the_user_sets(tmp_path):
    recipe = KnownRecipe(start=lambda seed: lm_setup()[0], epochs=3, learning_rate=1e-3)
    args = make(tmp_path, recipe).args
    assert (args.learning_rate, args.adam_beta1, args.warmup_steps) == (pytest.approx(3e-4), 0.0, 0.1)
    assert (args.per_device_train_batch_size, args.per_device_forget_batch_size) == (8, 4)
    given = {"learning_rate": 1e-2, "adam_beta1": 0.5, "warmup_steps": 1, "num_train_epochs": 1}
    given |= {"per_device_train_batch_size": 10, "per_device_forget_batch_size": 3}
    t = make(tmp_path, recipe, **given)
    assert {name: getattr(t.args, name) for name in given} == given
    assert t.schedule.total_steps == 3


def test_the_form_of_language_models_unless_they_start_from_random_weights(tmp_path):
    start = {"start": lambda seed: lm_setup()[0], "epochs": 3}
    forms = [make(tmp_path, recipe, variant=None).args.variant for recipe in (
        None, KnownRecipe(**start), KnownRecipe(**start, pretrained=False))]  # fmt: skip
    assert forms == ["tokens", "tokens", "rows"]
    model, splits, task = image_setup()
    args = NablaTauConfig(output_dir=str(tmp_path), use_cpu=True)
    assert NablaTauTrainer(model, args, splits, task, quiet=True).args.variant == "rows"


def test_steps_follow_the_forget_rows(tmp_path):
    assert make(tmp_path).schedule.total_steps == token_pull.LEAST_STEPS  # 11 forget rows, 4 a step
    few = make(tmp_path, per_device_forget_batch_size=1)
    assert few.schedule.total_steps == token_pull.VISITS * 11


def test_a_run_measures_once_and_brings_rows_down_to_their_targets(tmp_path):
    t = make(tmp_path, learning_rate=3e-3, max_steps=6)
    before, measure, calls = t.score(t.splits.forget).log_odds, t.prepare, []

    def lower():
        calls.append(measure())
        tokens = calls[0]["token_targets"]
        return calls[0] | {"targets": torch.tensor(before - 5), "token_targets": tokens - 5}

    t.prepare = lower
    t.train()
    assert len(calls) == 1 and calls[0]["targets"].shape == (11,)
    assert t.score(t.splits.forget).log_odds.mean() < before.mean() - 0.05


def test_micro_batches_do_not_change_the_step(tmp_path):
    ends = []
    for parts in (1, 2):
        t = make(
            tmp_path / str(parts), learning_rate=1e-2, max_steps=3, per_device_train_batch_size=8 // parts,
            per_device_forget_batch_size=4 // parts, gradient_accumulation_steps=parts,
        )  # fmt: skip
        fixed = {"targets": torch.linspace(-3, 1, 11).double()}
        fixed |= {name: torch.tensor(1.0) for name in ("spread", "token_spread")}
        labels = [f["labels"][f["labels"] != -100].numpy() for f in t.splits.forget.__getitems__(range(11))]
        counts = [len(of_row) for of_row in labels]
        fixed["token_start"] = torch.tensor([0, *np.cumsum(counts)])
        fixed["token_targets"] = torch.zeros(sum(counts)).double()
        words = torch.tensor((np.concatenate(labels)[:, None] + [1, 2, 3]) % t.model.config.vocab_size)
        fixed |= kept(packed(torch.tensor([0.0, 1.0, 2.0]).expand(words.shape), words).numpy())
        fixed |= {HELD: torch.linspace(0, 5, len(t.splits.retain)).double(), SHARE: torch.tensor(0.5)}
        t.prepare = lambda fixed=fixed: fixed
        t.train()
        ends.append(torch.cat([p.detach().flatten() for p in t.model.parameters()]))
    assert torch.allclose(*ends, atol=1e-9)
