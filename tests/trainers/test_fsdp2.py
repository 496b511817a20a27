"""FSDP2 on two processes, in truth: parameters are shards, and a run ends where one process ends."""

from pathlib import Path

import processes
import pytest
import torch
import toy

from hf_unlearn.methods import get_method

CASES = {
    "grad_diff": {},
    "nabla_tau": {"proxy_epochs": 1, "saliency": 0.5},
}
REFUSED = ("scrub", "ssd")  # a copy of the weights, and the gradient of single rows
PROGRAM = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

sys.path[:0] = {paths}
from test_fsdp2 import CASES, REFUSED, load, make, weights
from hf_unlearn.errors import UserError
from hf_unlearn.trainers.handover import final_model, save_model

torch.set_num_threads(1)
out = Path("{out}")
dist.init_process_group("gloo")
for method, options in CASES.items():
    trainer = make(out / method, method, load("{out}", 2), parts=2, **options)
    assert trainer.args.world_size == 2 and all(isinstance(p, DTensor) for p in trainer.model.parameters())
    trainer.train()
    found = weights(trainer.model), trainer.score(trainer.splits.forget).loss, trainer.examples
    save_model(trainer, out / f"{{method}}-saved", final_model(trainer))
    if dist.get_rank() == 0:
        torch.save(found, out / f"{{method}}.pt")
for method in REFUSED:
    try:
        make(out / method, method, load("{out}", 2), parts=2).train()
    except UserError as error:
        assert "FSDP" in str(error)
    else:
        raise AssertionError(method)
dist.barrier()
"""


def load(folder, shards: int = 1):
    """The saved model, whole or as `shards` shards."""
    from transformers import ViTForImageClassification
    from transformers.distributed import DistributedConfig

    spread = {"distributed_config": DistributedConfig(fsdp_size=shards)} if shards > 1 else {}
    return ViTForImageClassification.from_pretrained(Path(folder) / "base", **spread)


def saved_in(folder):
    """What anyone loads from the folder of a result."""
    from transformers import AutoModelForImageClassification

    return AutoModelForImageClassification.from_pretrained(folder)


def make(folder, method: str, model, parts: int = 1, **options):
    _, splits, task = toy.image_setup()
    kind = get_method(method)
    args = kind.config_class(
        output_dir=str(folder), use_cpu=True, max_steps=3, learning_rate=1e-3, disable_tqdm=True,
        per_device_train_batch_size=8 // parts, per_device_forget_batch_size=8 // parts, logging_strategy="no",
        **options,
    )  # fmt: skip
    return kind(model, args, splits, task, quiet=True)


def weights(model) -> dict[str, torch.Tensor]:
    full = {name: p.full_tensor() if hasattr(p, "full_tensor") else p for name, p in model.named_parameters()}
    return {name: p.detach().clone() for name, p in full.items()}  # plain ones lie in what the next forward frees


@pytest.mark.slow
def test_shards_end_where_one_process_ends(tmp_path):
    toy.vit().save_pretrained(tmp_path / "base")
    here = Path(__file__).parent
    done = processes.run(PROGRAM.format(paths=[str(here), str(here.parent)], out=tmp_path), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    for method, options in CASES.items():
        one = make(tmp_path / "one", method, load(tmp_path), **options)
        start = weights(one.model)
        start = {name: p.clone() for name, p in start.items()}
        one.train()
        found, loss, examples = torch.load(tmp_path / f"{method}.pt", weights_only=False)
        own = weights(one.model)
        assert any(not torch.equal(own[name], start[name]) for name in own)
        assert max((own[name] - found[name]).abs().max() for name in own) < 1e-5, method
        saved = weights(saved_in(tmp_path / f"{method}-saved"))
        assert saved.keys() == own.keys() and all(torch.equal(saved[name], found[name]) for name in own), method
        assert abs(one.score(one.splits.forget).loss - loss).max() < 1e-4 and examples == one.examples
