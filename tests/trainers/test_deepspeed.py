"""DeepSpeed's ZeRO-2 and ZeRO-3 on two processes, in truth: a run ends where one process ends, and goes on."""

import json
from pathlib import Path

import processes
import pytest
import torch
import toy
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from transformers import AutoModelForImageClassification, TrainerCallback

from hf_unlearn.methods import get_method

pytest.importorskip("deepspeed")

CASES = {
    "grad_diff": {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 2},
    "nabla_tau": {"proxy_epochs": 1},
    "scrub": {},
}
REFUSED = {"ssd": {}, "nabla_tau": {"saliency": 0.5}}  # edits weights; masks gradients
AUTO = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
WHOLE_WEIGHTS = ("scrub", "neg_grad_plus")  # a copy of them, which ZeRO-3 spreads
PROGRAM = """
import os
import sys
from pathlib import Path

stage, out = int(sys.argv[1]), Path(sys.argv[2])
os.environ |= {{"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(out / "zero.json")}}
os.environ["DS_ACCELERATOR"] = "cpu"
import torch
import torch.distributed as dist

sys.path[:0] = {paths}
from test_deepspeed import CASES, REFUSED, WHOLE_WEIGHTS, SizesSeen, by_recipe, make, told, weights
from hf_unlearn.errors import NonFiniteLossError, UserError
from hf_unlearn.trainers.handover import final_model, save_model

torch.set_num_threads(1)
for method, options in CASES.items():
    if stage == 3 and method in WHOLE_WEIGHTS:
        continue
    seen = SizesSeen()
    trainer = make(out / method, method, parts=2, callbacks=[seen], **options)
    assert trainer.args.world_size == 2 and trainer.zero_stage == stage
    trainer.train()
    assert seen.engine == "DeepSpeedEngine" and (seen.held == 0) == (stage == 3), (seen.engine, seen.held)
    found = weights(trainer.model), trainer.score(trainer.splits.forget).loss, trainer.examples
    save_model(trainer, out / f"{{method}}-saved", final_model(trainer))
    if dist.get_rank() == 0:
        torch.save(found, out / f"{{method}}.pt")
made = by_recipe(out / "cache", spread=True)
if dist.get_rank() == 0:
    torch.save(made, out / "recipe.pt")
again = make(out / "grad_diff", "grad_diff", parts=2, **CASES["grad_diff"])
again.train(resume_from_checkpoint=str(out / "grad_diff" / "checkpoint-2"))
whole = torch.load(out / "grad_diff.pt", weights_only=False)[0] if dist.get_rank() == 0 else {{}}
assert all(torch.equal(value, weights(again.model)[name]) for name, value in whole.items())
for method, options in REFUSED.items():
    assert "DeepSpeed" in told(UserError, lambda: make(out / "not", method, parts=2, **options)), method
for method in WHOLE_WEIGHTS if stage == 3 else ():
    assert "ZeRO-3" in told(UserError, lambda: make(out / "not", method, parts=2)), method
broken = make(out / "broken", "grad_diff", parts=2, max_grad_norm=0.0)
with torch.no_grad():
    next(broken.model.parameters()).fill_(float("nan"))
assert "not finite at step 1" in told(NonFiniteLossError, broken.train)
assert not list((out / "broken").glob("checkpoint-*"))
dist.barrier()
"""


class SizesSeen(TrainerCallback):
    """Which engine there is at a step, and how many numbers of the weights it leaves this process."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        import gc

        engines = [type(each).__name__ for each in gc.get_objects() if type(each).__name__ == "DeepSpeedEngine"]
        self.engine = engines[0] if engines else None
        self.held = sum(p.numel() for p in model.parameters())


def told(kind, call) -> str:
    """What the error of this kind says that `call` raises."""
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def make(folder, method: str, parts: int = 1, callbacks=None, **options):
    model, splits, task = toy.image_setup()
    kind = get_method(method)
    where = {"ddp_backend": "gloo"} if parts > 1 else {"use_cpu": True}  # with use_cpu accelerate would take DDP
    size = 8 // parts // options.get("gradient_accumulation_steps", 1)
    values = {
        "max_steps": 3, "learning_rate": 1e-3, "disable_tqdm": True, "logging_strategy": "no", "save_strategy": "no",
        "per_device_train_batch_size": size, "per_device_forget_batch_size": size,
    }  # fmt: skip
    args = kind.config_class(output_dir=str(folder), **(values | where | options))
    return kind(model, args, splits, task, quiet=True, callbacks=callbacks)


def by_recipe(cache, spread: bool = False) -> dict[str, torch.Tensor]:
    """Weights of an original; `spread`: under DeepSpeed, as on GPUs. On CPUs recipes are trained by DDP."""
    from hf_unlearn.run import recipe

    ended, make_whole = [], recipe.make_whole
    recipe.make_whole = lambda model, engine: ended.append(type(engine).__name__) or make_whole(model, engine)
    if spread:
        PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.NO)
        recipe.device_kind = lambda use_cpu: "accelerator"
    _, splits, task = toy.image_setup()
    config = {"image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 16, "intermediate_size": 32}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    how = recipe.Recipe(model_type="vit", model_config=json.dumps(config), num_train_epochs=1, batch_size=8)
    trained = recipe.train_recipe(how, task, splits.retain, 0, cache_dir=cache)
    recipe.make_whole = make_whole
    assert ended == ["DeepSpeedEngine"] * spread
    return weights(trained.model)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_run_ends_where_one_process_ends_and_goes_on(tmp_path, stage):
    here = Path(__file__).parent
    spread = {"stage": stage} | ({"stage3_param_persistence_threshold": 0} if stage == 3 else {})
    config = dict.fromkeys(AUTO, "auto") | {"zero_optimization": spread}
    (tmp_path / "zero.json").write_text(json.dumps(config))
    program = PROGRAM.format(paths=[str(here), str(here.parent)])
    done = processes.run(program, str(stage), str(tmp_path), processes=2)  # the first time it compiles for a minute
    assert done.returncode == 0, done.stderr[-3000:]
    found, own = torch.load(tmp_path / "recipe.pt"), by_recipe(tmp_path / "own cache")
    assert max((own[name] - found[name]).abs().max() for name in own) < 1e-5
    for method, options in CASES.items():
        if stage == 3 and method in WHOLE_WEIGHTS:
            continue
        one = make(tmp_path / "one", method, **(options | {"save_strategy": "no"}))
        start = weights(one.model)
        one.train()
        found, loss, examples = torch.load(tmp_path / f"{method}.pt", weights_only=False)
        own = weights(one.model)
        assert any(not torch.equal(own[name], start[name]) for name in own)
        assert max((own[name] - found[name]).abs().max() for name in own) < 1e-5, method
        saved = weights(AutoModelForImageClassification.from_pretrained(tmp_path / f"{method}-saved"))
        assert saved.keys() == own.keys() and all(torch.equal(saved[name], found[name]) for name in own), method
        assert abs(one.score(one.splits.forget).loss - loss).max() < 1e-4 and examples == one.examples
