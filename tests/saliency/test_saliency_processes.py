"""Two processes: copies, tensors sharded by torch, and FSDP2 give one process's saliency and its very selection."""

from pathlib import Path

import processes
import pytest

WORKER = """
import os, sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

sys.path.insert(0, sys.argv[1])
import toy
from hf_unlearn.models import lora
from hf_unlearn.errors import UserError
from hf_unlearn.saliency.build import build_mask
from hf_unlearn.saliency.mask import SaliencyMask, model_digest
from hf_unlearn.saliency.packed_masks import PackedMasks
from hf_unlearn.saliency.measure import measure_saliency
from hf_unlearn.saliency.selection import select_top
from hf_unlearn.saliency.soft_threshold import SoftThreshold

torch.set_num_threads(1)
dist.init_process_group("gloo")
assert dist.get_world_size() == 2
rank = dist.get_rank()
mesh = init_device_mesh("cpu", (2,))
alone = {"rank": 0, "world_size": 1}


def sharded(model):
    blocks = [m for m in model.modules() if type(m).__name__ in ("ViTLayer", "BertLayer", "LlamaDecoderLayer")]
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert blocks and all(isinstance(p, DTensor) for p in model.parameters())
    return model


def full(tensors):
    return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in tensors.items()}


def agree(tensors):
    for t in tensors.values():
        other = t.clone()
        dist.broadcast(other, 0)
        assert torch.equal(other, t)


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def close(found, one):
    # One and the same selection, but for weights whose saliency is within rounding of the threshold.
    masks, gamma = select_top(one, share=0.3)
    others, _ = select_top(found, share=0.3)
    differing = {name: masks[name] != others[name] for name in masks}
    assert sum(int(d.sum()) for d in differing.values()) <= 1e-4 * sum(d.numel() for d in differing.values())
    assert all(((one[name][d] - gamma).abs() <= 1e-3 * gamma).all() for name, d in differing.items())
    for name, value in one.items():
        scale = value.max() + (1e-3 * max(v.max() for v in one.values()) if "bias" in name else 0)
        assert (found[name] - value).abs().max() <= 1e-5 * scale, name


def check_task(kind):
    model, splits, task = toy.SETUPS[kind]()
    assert len(splits.forget) % 2  # unequal shares
    one = measure_saliency(model, task, splits.forget, batch_size=4, **alone)
    ddp = torch.nn.parallel.DistributedDataParallel(model)
    two = measure_saliency(ddp, task, splits.forget, batch_size=3)
    agree(two)
    close(two, one)
    spread = measure_saliency(sharded(toy.SETUPS[kind]()[0]), task, splits.forget, batch_size=4)
    assert all(isinstance(t, DTensor) for t in spread.values())
    close(full(spread), one)
    few = splits.forget.select([0])  # fewer rows than processes
    found = full(measure_saliency(sharded(toy.SETUPS[kind]()[0]), task, few))
    close(found, measure_saliency(toy.SETUPS[kind]()[0], task, few, **alone))


def check_selection():
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (7, 3), "b": (1, 4), "c": (6,), "d": (5, 2, 2), "whole": (9,)}
    for scope in ("global", "per_tensor"):
        for levels in (2, 5, 10**6):
            scores = {n: (torch.rand(s, generator=generator) * levels).floor() / levels for n, s in shapes.items()}
            placements = {n: [Replicate()] if n == "d" else [Shard(0)] for n in shapes}
            spread = {n: t if n == "whole" else distribute_tensor(t, mesh, placements[n]) for n, t in scores.items()}
            for share in (0.1, 0.5, 0.9):
                masks, gamma = select_top(scores, share=share, scope=scope)
                found, threshold = select_top(spread, share=share, scope=scope)
                assert threshold == gamma and same(full(found), masks)
                assert all(isinstance(found[n], DTensor) == (n != "whole") for n in shapes)
    try:
        select_top({"x": distribute_tensor(torch.rand(4, 4), mesh, [Shard(1)])}, share=0.5)
    except UserError:
        return
    raise AssertionError("another dimension")


def check_mask(kind, adapter):
    model, splits, task = toy.SETUPS[kind]()
    other = toy.SETUPS[kind]()[0]
    if adapter:
        options = {"r": 4, "alpha": 8, "dropout": 0.0, "task_type": task.peft_task_type}
        torch.manual_seed(0)
        model = lora.add_lora(model, **options)
        torch.manual_seed(0)
        other = lora.add_lora(other, **options)
    one = build_mask(model, task, splits.forget, share=0.3, **alone)
    sharded(other)
    before = full({name: p.detach().clone() for name, p in other.named_parameters()})
    mask = build_mask(other, task, splits.forget, share=0.3)
    assert same(before, full(dict(other.named_parameters())))
    assert mask.model_digest == one.model_digest == model_digest(other)
    assert mask.kept == one.kept and mask.size == one.size and mask.notes == one.notes
    differing = sum(int((one.masks[n] != m).sum()) for n, m in full(mask.masks).items())
    assert differing <= 8, differing  # rows of 4, or single weights
    path = os.path.join(sys.argv[2], f"{kind}{adapter}.safetensors")
    mask.save(path)
    dist.barrier()
    for loaded in (
        SaliencyMask.load(path, other),
        SaliencyMask.from_tensors(mask.to_tensors(), other),
    ):
        assert all(isinstance(m, DTensor) for m in loaded.masks.values())
        assert same(full(loaded.masks), full(mask.masks))
        assert all(m.to_local().shape == mask.masks[n].to_local().shape for n, m in loaded.masks.items())
    bits = PackedMasks(mask.masks)
    assert all(isinstance(m, DTensor) for m in bits.values()) and same(full(bits), full(mask.masks))
    assert same(SaliencyMask.load(path, model).masks, full(mask.masks))  # a file does not know how it was sharded


def check_soft_threshold():
    models = [toy.vit(), sharded(toy.vit())]
    soft = [SoftThreshold(model, 0.6, 4) for model in models]
    moved = toy.vit(seed=1)
    with torch.no_grad():
        for model in models:
            for p, q in zip(model.parameters(), moved.parameters(), strict=True):
                p.copy_(distribute_tensor(q.detach(), mesh, p.placements) if isinstance(p, DTensor) else q)
    assert soft[0].apply(1) == soft[1].apply(1)
    assert same(full(dict(models[1].named_parameters())), dict(models[0].named_parameters()))
    tensors = soft[1].to_tensors()
    assert same(tensors, soft[0].to_tensors())
    soft[1].load_tensors(tensors)


for kind in toy.SETUPS:
    check_task(kind)
check_selection()
check_soft_threshold()
check_mask("image", False)
check_mask("text", False)
check_mask("image", True)
dist.barrier()
dist.destroy_process_group()
print("fine", flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.long
def test_two_processes(tmp_path):
    done = processes.run(WORKER, str(Path(__file__).parents[1]), str(tmp_path), processes=2)
    assert done.returncode == 0 and done.stdout.count("fine") == 2, done.stderr[-4000:]
