"""Relearn time: exact in its steps, deterministic, and without a trace on the model."""

import copy

import pytest
import torch
from toy import image_setup, lm_setup

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.relearn import fine_tuned_copy, relearn
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.models import lora

OPTIONS = {"original_accuracy": 1.0, "learning_rate": 1e-2, "batch_size": 4, "max_steps": 80}


@pytest.fixture(scope="module")
def setup():
    return image_setup()


def test_steps_end_where_the_accuracy_is_back(setup):
    model, splits, task = setup
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model.train()
    found = relearn(model, task, splits.forget, **OPTIONS)
    assert found.steps == len(found.accuracy) - 1 > 3
    assert found.accuracy[-1] >= found.target == 0.95 > max(found.accuracy[:-1])
    assert found == relearn(model, task, splits.forget, **OPTIONS)
    assert found != relearn(model, task, splits.forget, **OPTIONS, seed=1)
    # Nothing of it stays behind.
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_the_steps_are_plain_adamw(setup):
    model, splits, task = setup
    rows = splits.forget
    found = relearn(model, task, rows, **{**OPTIONS, "batch_size": 11, "learning_rate": 3e-3, "max_steps": 6})
    copied = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(copied.parameters(), lr=3e-3, weight_decay=0.0)
    batch = task.collate(rows.__getitems__(range(11)))
    accuracies = [score(copied, task, rows).accuracy]
    for _ in range(6):
        optimizer.zero_grad()
        logits = copied(pixel_values=batch["pixel_values"]).logits
        torch.nn.functional.cross_entropy(logits, batch["labels"]).backward()
        optimizer.step()
        accuracies.append(score(copied, task, rows).accuracy)
    assert len(found.accuracy) > 3 and found.accuracy == pytest.approx(accuracies[: len(found.accuracy)])


def test_a_model_that_knows_needs_no_step_and_one_that_cannot_gets_none(setup):
    model, splits, task = setup
    assert relearn(model, task, splits.forget, **{**OPTIONS, "original_accuracy": 0.0}).steps == 0
    capped = relearn(model, task, splits.forget, **{**OPTIONS, "learning_rate": 1e-9, "max_steps": 5}, every=2)
    assert capped.steps is None and len(capped.accuracy) == 3  # before, and after 2 and 4


def test_adapters_relearn_in_full(setup):
    model, splits, task = setup
    adapted = lora.add_lora(copy.deepcopy(model), r=2, alpha=4, dropout=0.0, task_type=task.peft_task_type)
    plain, merged = (relearn(one, task, splits.forget, **OPTIONS) for one in (model, adapted))
    assert plain == merged  # a fresh adapter changes nothing, and all weights are trained


@pytest.mark.parametrize("change", [{"batch_size": 0}, {"margin": 1.0}, {"learning_rate": 0.0}])
def test_senseless_numbers_are_refused(setup, change):
    model, splits, task = setup
    with pytest.raises(UserError):
        relearn(model, task, splits.forget, **OPTIONS | change)
    with pytest.raises(UserError, match="at least one"):
        relearn(model, task, splits.forget.select([]), **OPTIONS)


def test_half_precision_rounds_no_step_away():
    """Steps of 1e-5 are a fraction of what lies between two bfloat16 numbers of a weight's size."""
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        model, splits, task = lm_setup(dtype=dtype)
        tuned = fine_tuned_copy(model, task, splits.forget, steps=15, learning_rate=1e-5, batch_size=4)
        pairs = list(zip(model.parameters(), tuned.parameters(), strict=True))
        assert all(weight.dtype == dtype for weight, _ in pairs)
        moved[dtype] = sum(int((a.float() != b.float()).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)
    assert moved[torch.bfloat16] == pytest.approx(moved[torch.float32], abs=0.02)
