"""The mask inside a `transformers.Trainer`: where it acts in a step, checkpoints, adapters, two processes, FSDP2."""

from pathlib import Path

import processes
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from hf_unlearn.saliency.apply import MaskedUpdates, freeze_buffers


class Regression(nn.Module):
    """With BatchNorm, and weights that are -0.0."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 5), nn.Linear(5, 1))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.view(-1)[::3] = -0.0

    def forward(self, x, y):
        return {"loss": (self.body(x).squeeze(-1) - y).square().mean()}


class MaskedTrainer(Trainer):
    def __init__(self, lens, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lens = lens

    def create_optimizer(self, *args):
        super().create_optimizer(*args)
        self.lens.attach(self.optimizer)
        return self.optimizer

    def compute_loss(self, model, inputs, *args, **kwargs):
        freeze_buffers(model)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:
            self.lens.mask_gradients()
        return loss


def rows(n: int = 24):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(1))
    return [{"x": x[i], "y": x[i].sum()} for i in range(n)]


def masks_for(model):
    generator = torch.Generator().manual_seed(2)
    return {n: torch.rand(p.shape, generator=generator) < 0.5 for n, p in model.named_parameters() if p.requires_grad}


def make_trainer(folder, model=None, masks=None, **more):
    model = model or Regression()
    masks = masks or masks_for(model)
    options = {
        "output_dir": str(folder), "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 50,
        "learning_rate": 0.05, "weight_decay": 0.1, "max_grad_norm": 0.5, "lr_scheduler_type": "cosine",
        "use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no",
    }  # fmt: skip
    args = TrainingArguments(**options | more)
    return MaskedTrainer(MaskedUpdates(masks, model), model, args, train_dataset=rows()), masks


def snapshot(model):
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {n: t.detach().clone().view(torch.int32) if t.is_floating_point() else t.clone() for n, t in tensors}


def assert_frozen(before, model, masks):
    moved = 0
    for name, after in snapshot(model).items():
        mask = masks.get(name, torch.zeros(after.shape, dtype=torch.bool))
        assert torch.equal(before[name][~mask], after[~mask]), name
        moved += int((before[name] != after)[mask].sum())
    assert moved > 20


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd", "rmsprop"])
def test_frozen(tmp_path, optim):
    model = Regression()
    before = snapshot(model)
    trainer, masks = make_trainer(tmp_path, model, optim=optim)
    trainer.train()
    assert_frozen(before, model, masks)
    assert trainer.optimizer.param_groups[0]["weight_decay"] == 0.1


def test_the_clip_sees_the_masked_gradient(tmp_path):
    """One step of SGD on all rows: the logged norm is that of the masked gradient, and the clip scales it."""
    model, reference = Regression(), Regression()
    once = {"max_steps": 1, "max_grad_norm": 1e-2, "optim": "sgd", "weight_decay": 0.0}
    trainer, masks = make_trainer(
        tmp_path, model, per_device_train_batch_size=12, lr_scheduler_type="constant", **once
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.train()
    freeze_buffers(reference)
    x, y = (torch.stack([row[key] for row in rows()]) for key in "xy")
    reference(x, y)["loss"].backward()
    gradients = {name: torch.where(masks[name], p.grad, 0) for name, p in reference.named_parameters()}
    norm = torch.cat([g.flatten() for g in gradients.values()]).norm().item()
    logged = next(entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry)
    assert logged == pytest.approx(norm, rel=1e-5)
    for name, parameter in model.named_parameters():
        expected = before[name] - 0.05 * gradients[name] * 1e-2 / norm
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-8)


def test_resume_is_exact(tmp_path):
    model = Regression()
    trainer, masks = make_trainer(tmp_path, model, max_steps=8, save_strategy="steps", save_steps=4)
    trainer.train()
    again, _ = make_trainer(tmp_path, max_steps=8)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.model.state_dict().values(), strict=True)
    )


def test_an_adapter(tmp_path):
    import peft

    config = peft.LoraConfig(r=2, target_modules=["body.0", "body.2"], modules_to_save=["body.3"])
    model = peft.get_peft_model(Regression(), config)
    before = snapshot(model)
    trainer, masks = make_trainer(tmp_path, model, label_names=["y"], remove_unused_columns=False)
    trainer.train()
    assert_frozen(before, model, masks)


WORKER = """
import os, sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

sys.path.insert(0, sys.argv[1])
import test_apply
import test_apply_trainer as here
from hf_unlearn.saliency.apply import MaskedUpdates

torch.set_num_threads(1)
dist.init_process_group("gloo")
assert dist.get_world_size() == 2
mesh = init_device_mesh("cpu", (2,))


def agree(model):
    for value in model.state_dict().values():
        other = value.clone()
        dist.broadcast(other, 0)
        assert torch.equal(other, value)


def whole(model):
    return {n: p.full_tensor() if isinstance(p, DTensor) else p.detach() for n, p in model.named_parameters()}


for optim in ("adamw_torch_fused", "sgd"):
    model = here.Regression()
    before = here.snapshot(model)
    trainer, masks = here.make_trainer(sys.argv[2], model, optim=optim, per_device_train_batch_size=2)
    assert trainer.args.world_size == 2
    trainer.train()
    here.assert_frozen(before, model, masks)
    agree(model)

names = ["sgd_maximize", "momentum", "adam", "adamw", "adamw_foreach", "adamw_fused", "nadam", "adagrad", "rmsprop"]
cases = [(name, 0.1, k % 4, 1 + k % 2) for k, name in enumerate(names)]
for name, decay, form, accumulation in cases + [("adamw_fused", 0.0, 0, 2), ("sgd", 0.0, 1, 1)]:
    plain, model = test_apply.perceptron(), test_apply.perceptron()
    before = test_apply.snapshot(plain)
    masks = test_apply.masks_for(plain)
    lens = MaskedUpdates(masks, model) if form == 0 else None  # before the model is sharded
    fully_shard(model, mesh=mesh)
    assert all(isinstance(p, DTensor) for p in model.parameters())
    given = dict(masks)
    for n, p in model.named_parameters():
        spread = distribute_tensor(masks[n], mesh, p.placements)
        given[n] = masks[n] if form == 1 else spread if form == 2 else spread.to_local()
    lens = lens or MaskedUpdates(given, model)
    runs = [(plain, MaskedUpdates(masks, plain)), (model, lens)]
    for one, its_lens in runs:
        optimizer = test_apply.make_optimizer(name, one.parameters(), decay)
        its_lens.attach(optimizer)
        test_apply.train(one, optimizer, its_lens, 10, None if form % 2 else 0.5, accumulation)
    found = whole(model)
    for n, p in plain.named_parameters():
        bits = found[n].contiguous().view(torch.int32)
        assert torch.equal(bits[~masks[n]], before[n][~masks[n]]), (name, n)
        torch.testing.assert_close(found[n], p.detach(), rtol=1e-4, atol=1e-5)
print("done", flush=True)
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    """DDP through Trainer, and FSDP2 with masks given whole, as a DTensor, as a shard, and before it shards."""
    done = processes.run(WORKER, str(Path(__file__).parent), str(tmp_path / "out"), processes=2)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("done") == 2
