"""FSDP2 as accelerate makes it, on two processes: a run ends where one process ends, and goes on from its shards."""

from pathlib import Path

import processes
import pytest
import torch
import toy

from hf_unlearn.methods import get_method

CASES = {
    "nabla_tau": {"proxy_epochs": 1},
    "grad_diff": {"saliency": 0.5},
}
REFUSED = ("scrub", "ssd")  # a copy of the weights, and the gradient of single rows
PROGRAM = """
import os
import sys
from pathlib import Path

kept_as, out = sys.argv[1], Path(sys.argv[2])
os.environ |= {{
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true", "FSDP_STATE_DICT_TYPE": kept_as, "ACCELERATE_TORCH_DEVICE": "cpu",
}}
import torch
import torch.distributed as dist
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

sys.path[:0] = {paths}
from test_fsdp2_launched import CASES, REFUSED, make, told, weights

# Of CPUs accelerate says MULTI_CPU, and takes DDP for FSDP there.
PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)
torch.set_num_threads(1)


class Spread(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.all = all(isinstance(p, DTensor) for p in model.parameters())


for method, options in CASES.items():
    seen = Spread()
    trainer = make(out / method, method, parts=2, callbacks=[seen], save_strategy="steps", save_steps=2, **options)
    assert trainer.args.world_size == 2 and trainer.is_fsdp_enabled
    trainer.train()
    assert seen.all
    found = weights(trainer.model), trainer.score(trainer.splits.forget).loss, trainer.examples
    again = make(out / method, method, parts=2, save_strategy="steps", save_steps=2, **options)
    again.train(resume_from_checkpoint=str(out / method / "checkpoint-2"))
    gone_on = weights(again.model)
    assert all(torch.equal(value, gone_on[name]) for name, value in found[0].items()), method
    if dist.get_rank() == 0:
        torch.save(found, out / f"{{method}}.pt")
for method in REFUSED if kept_as == "FULL_STATE_DICT" else ():
    assert "FSDP" in told(make(out / "not", method, parts=2).train), method
dist.barrier()
"""


def told(call) -> str:
    from hf_unlearn.errors import UserError

    with pytest.raises(UserError) as error:
        call()
    return str(error.value)


def make(folder, method: str, parts: int = 1, callbacks=None, **options):
    model, splits, task = toy.image_setup()
    kind = get_method(method)
    values = {
        "max_steps": 4, "learning_rate": 1e-3, "disable_tqdm": True, "logging_strategy": "no", "save_strategy": "no",
        "per_device_train_batch_size": 8 // parts, "per_device_forget_batch_size": 8 // parts, "use_cpu": parts == 1,
    }  # fmt: skip
    args = kind.config_class(output_dir=str(folder), **(values | options))
    return kind(model, args, splits, task, quiet=True, callbacks=callbacks)


def weights(model) -> dict[str, torch.Tensor]:
    full = {name: p.full_tensor() if hasattr(p, "full_tensor") else p for name, p in model.named_parameters()}
    return {name: p.detach().clone() for name, p in full.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kept_as", ["FULL_STATE_DICT", pytest.param("SHARDED_STATE_DICT", marks=pytest.mark.long)])
def test_a_run_ends_where_one_process_ends_and_goes_on(tmp_path, kept_as):
    here = Path(__file__).parent
    done = processes.run(PROGRAM.format(paths=[str(here), str(here.parent)]), kept_as, str(tmp_path), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    for method, options in CASES.items():
        one = make(tmp_path / "one", method, **options)
        start = weights(one.model)
        one.train()
        found, loss, examples = torch.load(tmp_path / f"{method}.pt", weights_only=False)
        own = weights(one.model)
        assert any(not torch.equal(own[name], start[name]) for name in own)
        assert max((own[name] - found[name]).abs().max() for name in own) < 1e-5, method
        assert abs(one.score(one.splits.forget).loss - loss).max() < 1e-4 and examples == one.examples
