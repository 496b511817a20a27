"""What every registered method keeps: a method passes by standing in `METHODS`.

Steps do not depend on how they are divided, a resumed run is the run, LoRA moves the adapter alone, a mask holds the
other weights still, and an unfit task is refused in one line. Each on every task that the method serves.
"""

import inspect
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import processes
import pytest
import torch
from toy import SETUPS

from hf_unlearn.errors import UserError
from hf_unlearn.methods import METHODS, get_method
from hf_unlearn.models import lora

QUICK = {"max_steps": 2, "learning_rate": 1e-2, "use_cpu": True, "disable_tqdm": True, "logging_steps": 1}
# What makes a method quick, and what it cannot be asked without.
OPTIONS = {
    "nabla_tau": {"proxy_epochs": 1},
    "salun": {"proxy_epochs": 1},
    "altpo": {"alternates": 2, "alternate_tokens": 3},
    "scrub": {"adam_epsilon": 1e-3},  # its KL starts flat: Adam would take the rounding there for a gradient
    "ssd": {"selection": 1.01},
    "unsir": {"noise_steps": 1, "impair_steps": 1, "repair_steps": 1, "noise_rows": 8},
}
REMOVES_CLASSES = {"unsir"}
REFUSES_MASKS = {"unsir"}
REFUSES_FRESH_ADAPTERS = {"ssd", "msg"}
READS_UNPLANNED = {"altpo", "lotus"}  # answers may be drawn again, a run may end early
KINDS = ("image", "sets", "lm")
TWO_PROCESSES = (
    ("npo", "lm"),
    ("neg_grad_plus", "image"),
    ("boundary_expanding", "image"),
    ("msg", "image"),
    ("lotus", "sets"),
)


@lru_cache
def task_of(kind: str):
    return SETUPS[kind](torch.float64)[2]


def serves(method: str, kind: str) -> bool:
    try:
        get_method(method).check_task(task_of(kind))
    except UserError as error:
        assert "\n" not in str(error)
        return False
    return True


def case(method: str, kind: str):
    model, splits, task = SETUPS[kind](torch.float64)
    if method in REMOVES_CLASSES:
        splits.forgotten_classes = (0,)
    return model, splits, task


def make(folder, method: str, kind: str, adapter: bool = False, parts: int = 1, **more):
    model, splits, task = case(method, kind)
    if adapter:
        torch.manual_seed(0)
        model = lora.add_lora(model, r=2, alpha=4, dropout=0.0, task_type=task.peft_task_type)
    trainer_class = get_method(method)
    sizes = {"per_device_train_batch_size": 8 // parts, "per_device_forget_batch_size": 8 // parts}
    sizes["gradient_accumulation_steps"] = parts
    args = trainer_class.config_class(output_dir=str(folder), **QUICK | OPTIONS.get(method, {}) | sizes | more)
    return trainer_class(model, args, splits, task, quiet=True)


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def matrix() -> list:
    """Every method on every kind of task; `make test` has each method once, on one of those that it serves in turn."""
    served = {method: [kind for kind in KINDS if serves(method, kind)] for method in METHODS}
    cases = []
    for k, (method, kinds) in enumerate(served.items()):
        usual = kinds[k % len(kinds)]
        cases += [pytest.param(method, kind, marks=[pytest.mark.long] * (kind != usual)) for kind in kinds]
    return cases


each = pytest.mark.parametrize(("method", "kind"), matrix())


@each
def test_what_a_trainer_fills_in_is_its_own(method, kind, tmp_path):
    """Else the next trainer from the same config takes this one's rate and batches for the user's."""
    model, splits, task = case(method, kind)
    trainer_class = get_method(method)
    args = trainer_class.config_class(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True)
    before = {field.name: getattr(args, field.name) for field in fields(args)}
    trainer = trainer_class(model=model, args=args, splits=splits, task=task, quiet=True)
    assert {field.name: getattr(args, field.name) for field in fields(args)} == before
    assert trainer.args.learning_rate and trainer.args.per_device_forget_batch_size
    assert next(iter(inspect.signature(trainer_class).parameters)) == "model"


@each
def test_a_step_does_not_depend_on_its_division_and_a_mask_holds_the_others_still(tmp_path, method, kind):
    mask = {} if method in REFUSES_MASKS else {"saliency": 0.5}
    whole, divided = (make(tmp_path, method, kind, parts=parts, **mask) for parts in (1, 2))
    start = {name: p.detach().clone() for name, p in whole.model.named_parameters()}
    planned = whole.rows_of_steps() + whole.rows_beside_steps()
    whole.train()
    divided.train()
    if method not in READS_UNPLANNED:
        assert whole.examples == planned
    assert (weights(whole.model) - weights(divided.model)).abs().max() < 1e-9
    moved = {name: p != start[name] for name, p in whole.model.named_parameters()}
    assert any(m.any() for m in moved.values())
    if mask:
        kept = whole.lens.mask.masks
        assert not any((m & ~kept[name]).any() if name in kept else m.any() for name, m in moved.items())
    else:
        with pytest.raises(UserError):
            make(tmp_path, method, kind, saliency=0.5)


@each
def test_a_resumed_run_is_the_run_and_lora_moves_the_adapter_alone(tmp_path, method, kind):
    if method in REFUSES_FRESH_ADAPTERS:
        with pytest.raises(UserError):
            make(tmp_path, method, kind, adapter=True)
        return
    whole = make(tmp_path / "whole", method, kind, adapter=True, save_strategy="steps", save_steps=1)
    start = {name: p.detach().clone() for name, p in whole.model.named_parameters()}
    trained = {name for name, p in whole.model.named_parameters() if p.requires_grad}
    whole.train()
    again = make(tmp_path / "again", method, kind, adapter=True)
    torch.manual_seed(1)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))
    end, read = weights(whole.model), whole.examples
    assert torch.equal(end, weights(again.model)) and again.examples == read
    whole.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))  # its weights are the end's by now
    assert torch.equal(end, weights(whole.model)) and whole.examples == read
    moved = {name for name, p in whole.model.named_parameters() if not torch.equal(p, start[name])}
    assert moved and moved <= trained < start.keys()


@pytest.mark.parametrize("method", METHODS)
def test_an_unfit_task_is_refused(tmp_path, method):
    for kind in KINDS:
        if not serves(method, kind):
            with pytest.raises(UserError):
                make(tmp_path, method, kind)


TWO = """
import os, sys
import torch, torch.distributed as dist
sys.path[:0] = {paths!r}
import test_contract
for method, kind in test_contract.TWO_PROCESSES:
    trainer = test_contract.make({out!r}, method, kind, parts=2, gradient_accumulation_steps=1, ddp_backend="gloo")
    assert trainer.args.world_size == 2
    trainer.train()
    if trainer.args.process_index == 0:
        torch.save(test_contract.weights(trainer.model), os.path.join({out!r}, method))
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    here = Path(__file__).parent
    done = processes.run(TWO.format(paths=[str(here), str(here.parent)], out=str(tmp_path)), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    for method, kind in TWO_PROCESSES:
        one = make(tmp_path / "one", method, kind)
        one.train()
        assert (weights(one.model) - torch.load(tmp_path / method)).abs().max() < 1e-9
