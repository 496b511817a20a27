"""NegGrad+, l1-sparse, SCRUB, bad teacher, SSD and influence unlearning against values worked out by hand."""

import pytest
import torch
from toy import SETUPS, image_setup, outputs

from hf_unlearn.errors import UserError
from hf_unlearn.methods import get_method
from hf_unlearn.tasks.predictions import Predictions


def make(method, folder, dtype=torch.float64, **more):
    model, splits, task = image_setup(dtype, roles={"forget": 4, "retain": 8, "validation_tau": 4,
                                                            "validation_stop": 4, "test": 4})  # fmt: skip
    options = {"output_dir": str(folder), "use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 8}
    kind = get_method(method)
    return kind(model, kind.config_class(**options | more), splits, task, quiet=True)


def logits(model, rows):
    return model(pixel_values=torch.stack([row["pixel_values"] for row in rows]).double()).logits


def all_rows(rows):
    found = rows.__getitems__(range(len(rows)))
    return found, torch.tensor([row["labels"] for row in found])


def gradients(model, rows):
    """Of each row's loss, flat, one row at a time."""
    found = []
    for row in rows.__getitems__(range(len(rows))):
        loss = torch.nn.functional.cross_entropy(logits(model, [row]), torch.tensor([row["labels"]]))
        slopes = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        zeros = [torch.zeros_like(p) for p in model.parameters()]
        found.append(torch.cat([(z if g is None else g).flatten() for g, z in zip(slopes, zeros, strict=True)]))
    return torch.stack(found)


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_neg_grad_plus(tmp_path):
    trainer = make("neg_grad_plus", tmp_path, start_decay=0.3)
    trainer.method_state = trainer._measure_originals()
    with torch.no_grad():
        for p in trainer.model.parameters():
            p += 0.01
    found = outputs(trainer)
    loss = trainer.unlearning_loss(**found)
    distance = 0.01**2 * sum(p.numel() for p in trainer.model.parameters())
    expected = 0.95 * (found["retain"].loss.mean() + 0.15 * distance) - 0.05 * found["forget"].loss.mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)


def test_the_original_is_the_model_with_its_starting_weights(tmp_path):
    trainer = make("scrub", tmp_path)
    trainer.method_state = trainer._measure_originals()
    rows, _ = all_rows(trainer.splits.forget)
    before = logits(trainer.model, rows).detach()
    with torch.no_grad():
        for p in trainer.model.parameters():
            p += 0.05 * torch.randn_like(p)
    now = logits(trainer.model, rows).detach()
    forget = outputs(trainer, ("forget",))["forget"]
    assert torch.allclose(forget.original.predictions.logits, before, atol=1e-12)
    assert torch.allclose(forget.logits, now, atol=1e-12) and not torch.allclose(before, now, atol=1e-3)
    soft, hard = (x / 4 for x in (before, now))
    by_hand = -16 * (soft.softmax(1) * (soft.log_softmax(1) - hard.log_softmax(1))).sum(1).mean()
    assert trainer.unlearning_loss(forget=forget).item() == pytest.approx(by_hand.item(), abs=1e-9)


def test_the_original_is_itself_under_mixed_precision_too(tmp_path):
    """Autocast keeps rounded weights by the place of the parameters, which hold two models in turn."""
    trainer = make("scrub", tmp_path, torch.float32)
    trainer.method_state = trainer._measure_originals()
    with torch.autocast("cpu", torch.bfloat16):
        start = outputs(trainer, ("forget",))["forget"]
    with torch.no_grad():
        for p in trainer.model.parameters():
            p += 0.1 * torch.randn_like(p)
    with torch.autocast("cpu", torch.bfloat16):
        moved = outputs(trainer, ("forget",))["forget"]
        again = outputs(trainer, ("forget",))["forget"]
    assert torch.equal(moved.original.predictions.logits, start.logits)
    assert torch.equal(moved.logits, again.logits) and not torch.equal(moved.logits, start.logits)


def test_scrub_takes_turns_and_then_repairs(tmp_path):
    trainer = make("scrub", tmp_path, num_train_epochs=3, forget_epochs=2)
    names = [phase.name for phase in trainer.schedule.phases]
    assert names == ["forget pass", "retain pass", "forget pass", "retain pass", "retain pass"]


def test_bad_teacher(tmp_path):
    trainer = make("bad_teacher", tmp_path)
    trainer.method_state = trainer._measure_originals() | trainer.prepare()
    found = outputs(trainer)
    loss = trainer.unlearning_loss(**found)
    own = found["forget"].logits.log_softmax(1)
    teacher = trainer.method_state["teacher"].log_softmax(1)
    kl = (teacher.exp() * (teacher - own)).sum(1)  # the retain rows' is 0: the model has not moved
    assert loss.item() == pytest.approx(kl.sum().item() / (4 + 8), abs=1e-9) and loss > 0
    with pytest.raises(UserError, match="bad_teacher"):
        get_method("bad_teacher").check_task(SETUPS["lm"]()[2])


@pytest.mark.parametrize("dampening", [0.5, 5.0])  # with 5 some weights would grow
def test_ssd_dampens_what_matters_more_for_forget_rows(tmp_path, dampening):
    trainer = make("ssd", tmp_path, selection=1.5, dampening=dampening)
    start = flat(trainer.model)
    forget = gradients(trainer.model, trainer.splits.forget).square().mean(0)
    whole = (4 * forget + 8 * gradients(trainer.model, trainer.splits.retain).square().mean(0)) / 12
    chosen = forget > 1.5 * whole
    trainer.train()
    expected = torch.where(chosen, start * (dampening * whole / forget).clamp(max=1), start)
    assert chosen.any() and torch.allclose(flat(trainer.model), expected, atol=1e-12)
    assert trainer.state.global_step == 1 and trainer.examples == 12


def test_influence_follows_woodfishers_recursion(tmp_path):
    trainer = make("influence", tmp_path, alpha=0.3, fisher_rows=50)
    start = flat(trainer.model)
    forget, retain = (gradients(trainer.model, rows) for rows in (trainer.splits.forget, trainer.splits.retain))
    k = 4 / 12 * (forget.mean(0) - retain.mean(0))
    o = retain[0]
    for g in retain[1:]:
        k = k - (k @ g) / (50 + o @ g) * o
        o = o - (o @ g) / (50 + o @ g) * o
    trainer.train()
    assert torch.allclose(flat(trainer.model), start + 0.3 * k, atol=1e-12)


def test_the_l1_penalty_fades_with_the_epochs(tmp_path):
    trainer = make("fine_tune", tmp_path, l1=0.1, num_train_epochs=4)
    retain = outputs(trainer, ("retain",))["retain"]
    size = flat(trainer.model).abs().sum().item()
    for step, share in ((0, 1.0), (1, 0.75), (3, 0.25)):
        trainer.state.global_step = step
        loss = trainer.unlearning_loss(retain=retain).item()
        assert loss == pytest.approx(retain.loss.mean().item() + 0.1 * share * size, abs=1e-9)
    with pytest.raises(UserError, match="`l1` is -1"):
        make("fine_tune", tmp_path, l1=-1)


def test_a_classifiers_row_is_one_token():
    seen = Predictions(torch.zeros(3, 4), torch.tensor([0, 1, 2]), 3)
    assert seen.token_count.tolist() == [1, 1, 1]
