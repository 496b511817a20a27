"""The forget term after some steps of relearning: its gradient worked out beside, and what must not change."""

import copy

import numpy as np
import pytest
import torch
from toy import image_setup, lm_setup

from hf_unlearn.errors import UserError
from hf_unlearn.methods.nabla_tau import NablaTauConfig, NablaTauTrainer
from hf_unlearn.trainers.lookahead import GAIN, Lookahead
from hf_unlearn.trainers.split_output import SplitOutput


def make(tmp_path, forget=None, dtype=torch.float64, **values):
    model, splits, task = lm_setup(dtype)
    if forget is not None:
        splits.forget = splits.forget.select(range(forget))
    options = {"proxy_epochs": 1, "retrain_epochs": 3, "max_steps": 6, "learning_rate": 3e-3}
    options |= {"per_device_forget_batch_size": 2} | values
    args = NablaTauConfig(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, variant="tokens", **options)
    return NablaTauTrainer(model, args, splits, task, quiet=True)


class Watching(Lookahead):
    """Keeps what the model and its gradients were around each change."""

    def __init__(self, trainer):
        super().__init__(trainer)
        self.seen = []

    def change_gradients(self):
        model = self.trainer.model
        before = copy.deepcopy(model)
        for kept, own in zip(before.parameters(), model.parameters(), strict=True):
            kept.grad = own.grad.clone()
        super().change_gradients()
        after = {name: p.grad.clone() for name, p in model.named_parameters()}
        same = all(torch.equal(p, q) for p, q in zip(before.parameters(), model.parameters(), strict=True))
        self.seen.append((self.trainer.state.global_step, before, after, same))


@pytest.fixture
def watched(tmp_path, monkeypatch):
    monkeypatch.setattr(NablaTauTrainer, "lenses", (Watching,))
    trainer = make(tmp_path)
    trainer.train()
    return trainer, trainer.active_lenses[0]


def test_the_gradient_is_that_of_the_forget_term_after_the_attack(watched):
    trainer, lens = watched
    step, model, after, _ = lens.seen[4]
    own, attacks = lens.rows_of(step)
    assert step == 4 and [len(rows) for rows in attacks] == [2] * 3
    assert set(own) == set(trainer._sampler().rows(step)["forget"])
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    for rows in attacks:
        assert not set(rows) & set(own)
        model.zero_grad()
        batch = trainer.task.collate(trainer.splits.forget.__getitems__(rows.tolist()))
        trainer.task.predict(model, batch).loss.mean().backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= trainer.relearning_rate * p.grad / (p.grad.abs() + 1e-8)
    model.zero_grad()
    batch = trainer.task.collate(trainer.splits.forget.__getitems__(own.tolist()))
    predictions = trainer.task.predict(model, batch)
    forget, higher = SplitOutput("forget", predictions, torch.tensor(own), 1 / len(own)), trainer.method_state[GAIN]
    assert higher > 0
    trainer.forget_term(forget, float(higher)).backward()
    for name, p in model.named_parameters():
        assert torch.allclose(after[name], found[name] + p.grad, rtol=1e-9, atol=1e-12)
        assert p.grad.abs().max() > 0


def test_weights_stay_and_the_first_third_and_the_last_fifth_of_the_steps_look_nowhere(watched):
    _, lens = watched
    assert all(same for *_, same in lens.seen)
    changed = [
        any(not torch.equal(p.grad, after[name]) for name, p in model.named_parameters())
        for _, model, after, _ in lens.seen
    ]
    assert changed == [False, False, True, True, True, False]


def test_examples_are_those_that_were_planned(tmp_path):
    """Of a step of two rows three attacks with as many, and its own once more; of nineteen validation rows ten
    are learned and nine are looked at twice, and the other way round."""
    plain, ahead = make(tmp_path, relearn_steps=0), make(tmp_path)
    planned = ahead.rows_beside_steps() - plain.rows_beside_steps()
    plain.train()
    ahead.train()
    assert ahead.examples - plain.examples == planned == 4 * (2 + 2 + 2) + 2 * 3 * 2 + 2 * 19
    assert any("learn others of them again" in line for lens in ahead.active_lenses for line in lens.plan())
    assert not plain.active_lenses


def test_spread_weights_are_not_moved_ahead_and_that_is_told(tmp_path):
    trainer = make(tmp_path)
    trainer.is_fsdp_enabled = True
    lens = Lookahead(trainer)
    assert not lens.prepare() and not lens.rows_of(5)[1] and not lens.plan()
    assert "did not look ahead" in trainer.notes[-1]


def test_an_adapter_looks_ahead_too_and_its_base_stays(tmp_path):
    from hf_unlearn.models.lora import add_lora

    model, splits, task = lm_setup()
    model = add_lora(model, r=2, alpha=4, dropout=0.0, task_type=task.peft_task_type)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    options = {"max_steps": 3, "proxy_epochs": 1, "retrain_epochs": 3, "per_device_forget_batch_size": 2}
    args = NablaTauConfig(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, variant="tokens", **options)
    trainer = NablaTauTrainer(model, args, splits, task, quiet=True)
    assert trainer.args.relearn_steps == 3 and trainer.active_lenses[0].rows_of(2)[1]
    trainer.train()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all("lora_" in name for name in moved)


@pytest.mark.parametrize("rows, steps", [(1, 0), (3, 0), (4, 1), (7, 2), (8, 3), (11, 3)])
def test_no_row_is_learned_twice_for_a_step(tmp_path, rows, steps):
    trainer = make(tmp_path, forget=rows)
    lens = trainer.active_lenses[0]
    assert max((len(attacks) for attacks in (lens.rows_of(step)[1] for step in range(6))), default=0) == steps
    assert bool(lens.plan()) == bool(steps) != any("Hardly more rows" in note for note in trainer.notes)


def test_too_few_rows_are_forgotten_as_without(tmp_path):
    few, plain = make(tmp_path, forget=3), make(tmp_path, forget=3, relearn_steps=0)
    few.train()
    plain.train()
    assert all(torch.equal(p, q) for p, q in zip(few.model.parameters(), plain.model.parameters(), strict=True))
    assert few.examples == plain.examples


def test_what_is_not_asked_for_may_not_move(tmp_path):
    """A mask holds what is looked ahead for, too."""
    trainer = make(tmp_path, saliency=0.5)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    masks = trainer.lens.mask.masks
    moved = {name: p.detach() != before[name] for name, p in trainer.model.named_parameters()}
    assert all(not (moved[name] & ~masks[name].bool()).any() for name in masks)
    assert np.sum([m.sum() for m in moved.values()]) > 0


@pytest.mark.parametrize(
    "options, words",
    [
        ({"relearn_steps": -1}, "`relearn_steps` is -1"),
        ({"relearn_steps": 2, "variant": "rows"}, "is for `variant` tokens; this is rows"),
    ],
)
def test_bad_steps(tmp_path, options, words):
    model, splits, task = image_setup()
    with pytest.raises(UserError, match=words):
        args = NablaTauConfig(output_dir=str(tmp_path), use_cpu=True, **options)
        NablaTauTrainer(model, args, splits, task, quiet=True)
