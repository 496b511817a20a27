"""Fewer forget rows than micro-batches: some micro-batches have none, or no row at all, and nothing else changes."""

import pytest
import torch
from toy import SETUPS, image_rows, image_task, splits_of, vit

from hf_unlearn.errors import UserError
from hf_unlearn.methods import get_method
from hf_unlearn.trainers.sampler import JointSampler, StreamSize
from hf_unlearn.trainers.schedule import FILLER, FORGET, RETAIN, Phase, Schedule

SHORT = {"num_train_epochs": 1}
TARGETS = SHORT | {"proxy_epochs": 1}
VARIANTS = {
    "nabla_tau": [TARGETS, SHORT | {"variant": "held"}, SHORT | {"variant": "paper", "max_steps": 4}],
    "salun": [TARGETS, TARGETS | {"mixing": "sequential"}, SHORT | {"variant": "paper"},
              SHORT | {"variant": "paper", "mixing": "sequential"}],
    "unsir": [{"noise_steps": 2, "impair_steps": 3, "repair_steps": 2, "noise_rows": 1, "variant": "fresh"}],
    "fine_tune": [SHORT],
    "idk_dpo": [{"max_steps": 3, "retain_term": "kl"}],  # forwards of its own, and the original's
    "rmu": [{"max_steps": 3}],  # hidden states
}  # fmt: skip
CASES = [(method, kind, options) for method in VARIANTS for options in VARIANTS[method] for kind in ("image", "lm")]


def few(kind, forget=2):
    """A float64 model and splits of which `forget` holds two rows; one class is gone where a method wants that."""
    model, splits, task = SETUPS[kind](torch.float64)
    splits.forget = splits.forget.select(range(forget))
    splits.forgotten_classes = (1,) if task.has_classes else ()
    return model, splits, task


def make(folder, setup, method, options, parts, batch=8, **more):
    model, splits, task = setup
    trainer_class = get_method(method)
    args = trainer_class.config_class(
        output_dir=str(folder), use_cpu=True, disable_tqdm=True, logging_steps=1, learning_rate=1e-2,
        per_device_train_batch_size=batch // parts, per_device_forget_batch_size=max(1, 2 // parts),
        gradient_accumulation_steps=parts, **options, **more,
    )  # fmt: skip
    return trainer_class(model, args, splits, task, quiet=True)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("method, kind, options", CASES)
def test_accumulation_gives_the_same_weights(tmp_path, method, kind, options):
    try:
        get_method(method).check_task(few(kind)[2])
    except UserError as error:
        pytest.skip(str(error))
    found = []
    for parts in (1, 4):
        trainer = make(tmp_path / str(parts), few(kind), method, options, parts)
        before = weights(trainer.model)
        trainer.train()
        found.append((weights(trainer.model), [log["loss"] for log in trainer.state.log_history if "loss" in log]))
        assert not torch.equal(before, found[-1][0])
    assert (found[0][0] - found[1][0]).abs().max() < 1e-9
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-6)


def test_only_a_micro_batch_without_any_row_gets_a_filler():
    phases = [Phase("forget", 1, (FORGET,)), Phase("both", 1), Phase("none", 1, ())]
    sampler = JointSampler(Schedule(phases), {FORGET: StreamSize(2, 2), RETAIN: StreamSize(30, 8)}, 0, 4)
    alone, both, none = (sampler.micro_batches(step) for step in range(3))
    assert [[name for name, _ in batch] for batch in alone] == [[FORGET]] * 2 + [[FILLER]] * 2
    assert alone[2] == [(FILLER, alone[0][0])]  # a row that the step reads anyway
    assert [[name for name, _ in batch] for batch in both] == [[FORGET] + [RETAIN] * 2] * 2 + [[RETAIN] * 2] * 2
    assert none == [[]] * 4


def test_a_filler_moves_neither_weights_nor_batchnorm(tmp_path):
    class Normed(torch.nn.Module):
        """A ViT behind a BatchNorm on its pixels."""

        def __init__(self, inner):
            super().__init__()
            self.inner, self.norm, self.config = inner, torch.nn.BatchNorm2d(1), inner.config

        def forward(self, pixel_values):
            return self.inner(pixel_values=self.norm(pixel_values))

    task = image_task()
    splits = splits_of(image_rows(74), task)
    trainer = make(tmp_path, (Normed(vit()), splits, task), "fine_tune", SHORT, 1, disable_dropout=False)
    trainer.current_gradient_accumulation_steps = 1
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.model.train()
    batch = trainer.data_collator(trainer.train_dataset.__getitems__([(FILLER, (RETAIN, 3))]))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    assert loss.item() == 0 and not batch["index"].numel()
    assert all(not p.grad.any() for p in trainer.model.parameters())  # zeros, not None: DDP waits for each
    assert trainer.model.training
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name
