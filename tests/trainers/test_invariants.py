"""Runs that must agree: however a step is divided, wherever a run is stopped, however often it is repeated."""

import json
from pathlib import Path

import processes
import pytest
import torch
from toy import SETUPS, image_setup

from hf_unlearn.methods.nabla_tau import NablaTauConfig, NablaTauTrainer


def trainer(tmp_path, setup, *, batch=8, forget_batch=4, accumulation=1, **kwargs):
    model, splits, task = setup
    kwargs = {"num_train_epochs": 4, "proxy_epochs": 2} | kwargs
    args = NablaTauConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=batch, per_device_forget_batch_size=forget_batch,
        gradient_accumulation_steps=accumulation, learning_rate=1e-2, use_cpu=True, disable_tqdm=True,
        logging_steps=1, **kwargs,
    )  # fmt: skip
    return NablaTauTrainer(model, args, splits, task, quiet=True)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


FORMS = [(kind, variant) for kind in SETUPS for variant in ("rows", "held", "paper")] + [("lm", "tokens")]


@pytest.mark.parametrize("kind, variant", FORMS)
def test_accumulation_gives_the_same_weights(tmp_path, kind, variant):
    runs = []
    for accumulation in (1, 2, 4):
        t = trainer(
            tmp_path, SETUPS[kind](torch.float64), batch=8 // accumulation, forget_batch=4 // accumulation,
            accumulation=accumulation, variant=variant,
        )  # fmt: skip
        t.train()
        runs.append(t)
    for run in runs[1:]:
        assert (weights(run.model) - weights(runs[0].model)).abs().max() < 1e-9
        for key in ("loss", "grad_norm", "forget_loss", "retain_loss"):
            ours = [log[key] for log in run.state.log_history if key in log]
            theirs = [log[key] for log in runs[0].state.log_history if key in log]
            assert ours == pytest.approx(theirs, rel=1e-6) and len(ours) > 5
    assert runs[0].state.log_history[0]["loss"] != runs[0].state.log_history[1]["loss"]


TWO = """
import os, sys, json, torch
sys.path.insert(0, {tests!r})
from toy import SETUPS
from hf_unlearn.methods.nabla_tau import NablaTauConfig, NablaTauTrainer
import torch.distributed as dist
model, splits, task = SETUPS[{kind!r}](torch.float64)
splits.forget = splits.forget.select(range({forget}))
args = NablaTauConfig(output_dir={out!r}, per_device_train_batch_size=4, per_device_forget_batch_size=2,
    learning_rate=1e-2, use_cpu=True, disable_tqdm=True, logging_steps=1, variant={variant!r}, ddp_backend="gloo",
    num_train_epochs=4, proxy_epochs=2)
t = NablaTauTrainer(model, args, splits, task, quiet=True)
assert args.world_size == 2
t.train()
metrics = t.evaluate()
if args.process_index == 0:
    flat = torch.cat([p.detach().flatten() for p in t.model.parameters()])
    found = {{"weights": flat, "log": t.state.log_history, "world": dist.get_world_size(), "metrics": metrics}}
    torch.save(found, {out!r} + "/two.pt")
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # torch's own threads sometimes abort while the interpreter shuts down, with nothing left to do
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, variant, forget",
    [
        ("image", "rows", 11),
        pytest.param("image", "paper", 1, marks=pytest.mark.long),
        pytest.param("lm", "rows", 11, marks=pytest.mark.long),
        ("lm", "tokens", 11),
    ],
)
def test_two_processes_give_the_same_weights(tmp_path, kind, variant, forget):
    """Also where there is one forget row, and one of the processes never has any."""
    values = {"kind": kind, "out": str(tmp_path), "variant": variant, "forget": forget}
    done = processes.run(TWO.format(tests=str(Path(__file__).parents[1]), **values), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    two = torch.load(tmp_path / "two.pt")
    assert two["world"] == 2
    setup = SETUPS[kind](torch.float64)
    setup[1].forget = setup[1].forget.select(range(forget))
    one = trainer(tmp_path, setup, variant=variant)
    one.train()
    assert (weights(one.model) - two["weights"]).abs().max() < 1e-9
    ours = [log["loss"] for log in one.state.log_history if "grad_norm" in log]
    theirs = [log["loss"] for log in two["log"] if "grad_norm" in log]
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert one.evaluate()["eval_forget_loss"] == pytest.approx(two["metrics"]["eval_forget_loss"], rel=1e-9)


@pytest.mark.parametrize("variant", ["rows", "held", "paper"])
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_stopping_and_resuming_is_bit_identical(tmp_path, stop, variant):
    whole = trainer(tmp_path / "whole", image_setup(dropout=0.1), variant=variant, disable_dropout=False)
    whole.train()
    first = trainer(
        tmp_path / "cut", image_setup(dropout=0.1), variant=variant, disable_dropout=False, save_steps=stop,
        save_strategy="steps",
    )  # fmt: skip
    first.train()
    second = trainer(tmp_path / "again", image_setup(dropout=0.1), variant=variant, disable_dropout=False)
    second.train(resume_from_checkpoint=str(tmp_path / "cut" / f"checkpoint-{stop}"))
    assert torch.equal(weights(whole.model), weights(second.model))
    assert second.examples == whole.examples
    assert not list((tmp_path / "cut").glob("**/training_args.bin"))


def test_the_same_seed_twice_is_bit_identical_and_another_seed_is_not(tmp_path):
    runs = [trainer(tmp_path, image_setup(dropout=0.1), disable_dropout=False, seed=seed) for seed in (1, 1, 2)]
    for run in runs:
        run.train()
    assert torch.equal(weights(runs[0].model), weights(runs[1].model))
    assert not torch.equal(weights(runs[0].model), weights(runs[2].model))


@pytest.mark.parametrize("options", [{}, {"saliency": 0.5}], ids=str)
def test_training_once_more_from_the_same_weights_is_bit_identical(tmp_path, options):
    t = trainer(tmp_path, image_setup(), **options)
    start = {name: value.clone() for name, value in t.model.state_dict().items()}
    t.train()
    once = weights(t.model)
    t.model.load_state_dict(start)
    t.train()
    assert torch.equal(weights(t.model), once)


def test_an_optimizer_of_the_users_own_is_masked_and_kept(tmp_path):
    t = trainer(tmp_path, image_setup(), saliency=0.5, variant="held")
    own = t.optimizer = torch.optim.AdamW(t.model.parameters(), lr=1e-2, weight_decay=0.1)
    start = {name: p.detach().clone() for name, p in t.model.named_parameters()}
    t.train()
    moved = {name: p != start[name] for name, p in t.model.named_parameters()}
    assert own.state and any(m.any() for m in moved.values())
    assert not any((m & ~t.lens.mask.masks[name]).any() for name, m in moved.items())


def test_evaluating_while_training_changes_nothing(tmp_path):
    plain = trainer(tmp_path, image_setup(dropout=0.1), disable_dropout=False)
    watched = trainer(tmp_path, image_setup(dropout=0.1), disable_dropout=False, eval_strategy="steps", eval_steps=2)
    plain.train()
    watched.train()
    assert torch.equal(weights(plain.model), weights(watched.model))
    logs = [log for log in watched.state.log_history if "eval_forget_accuracy" in log]
    assert len(logs) == watched.state.max_steps // 2
    assert {"eval_retain_accuracy", "eval_test_accuracy", "eval_membership_auc", "eval_membership_auc_se"} <= logs[
        0
    ].keys()
    json.dumps(watched.state.log_history)
