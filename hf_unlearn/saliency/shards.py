"""Tensors that lie on several processes: the part that is here, its place among the parts, sums over all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist

from hf_unlearn.errors import UserError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Reduce = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Shards:
    """Who holds a tensor. Parts of the first dimension lie on `size` processes in the order of `rank`.

    Args:
        rank, size: which part this process holds, of how many.
        reduce: sums a tensor over the processes; `None` where one process holds the whole.
        group: the process group to sum over instead of `reduce` (DTensor).
    """

    rank: int = 0
    size: int = 1
    reduce: Reduce | None = None
    group: Any = None

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum of `tensor` over the parts, the same on every process."""
        if self.group is not None:
            tensor = tensor.clone()
            dist.all_reduce(tensor, group=self.group)
            return tensor
        return tensor if self.reduce is None else self.reduce(tensor)


def default_processes(reduce: Reduce | None, rank: int | None, world_size: int | None) -> Shards:
    """The processes that share the work: as given, or those of `torch.distributed`, or this one alone."""
    running = dist.is_available() and dist.is_initialized()
    if world_size is None:
        world_size = dist.get_world_size() if running else 1
    if rank is None:
        rank = dist.get_rank() if running and world_size > 1 else 0
    if world_size > 1 and reduce is None:
        if not running:
            raise ValueError("several processes need a function that sums over them")
        return Shards(rank, world_size, group=dist.group.WORLD)
    return Shards(rank, world_size, reduce if world_size > 1 else None)


def is_dtensor(tensor: torch.Tensor) -> "TypeGuard[DTensor]":
    """Whether `tensor` is spread over processes by torch (FSDP2). By name: no import of what is not in use."""
    return type(tensor).__name__ == "DTensor"


def shards_of(tensor: torch.Tensor, plain: Shards | None = None, name: str = "a tensor") -> Shards:
    """The place of `tensor`; for one that is no DTensor it is `plain`, by default this process alone.

    Raises `UserError` for a DTensor that is split along anything but its first dimension, once.
    """
    if not is_dtensor(tensor):
        return plain or Shards()
    mesh = tensor.device_mesh
    split = [dim for dim, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    if not split:
        return Shards()
    if len(split) > 1 or not tensor.placements[split[0]].is_shard(0):
        raise UserError(f"{name} is split over processes along another dimension than its first: use FSDP2 alone")
    return Shards(mesh.get_local_rank(split[0]), mesh.size(split[0]), group=mesh.get_group(split[0]))


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of `tensor` that this process holds, without gradient."""
    tensor = tensor.detach()
    return tensor.to_local() if is_dtensor(tensor) else tensor


def rewrap(part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`part`, this process's share of a tensor of the whole shape of `like`, spread as `like` is."""
    if not is_dtensor(like):
        return part
    from torch.distributed.tensor import DTensor

    stride = torch.empty(like.shape, device="meta").stride()
    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=stride
    )


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of `tensor` on this process. Every process that holds a part must call this."""
    tensor = tensor.detach()
    return tensor.full_tensor() if is_dtensor(tensor) else tensor


def is_spread(model: torch.nn.Module) -> bool:
    """Whether weights of a model lie on several processes by torch (FSDP2)."""
    return any(is_dtensor(parameter) for parameter in model.parameters())


def gathered(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All weights of a model that is spread, on the CPU, one at a time; empty on every process but the first. All must
    call this."""
    first, found = not (dist.is_initialized() and dist.get_rank()), {}
    for name, value in model.state_dict().items():
        full = whole(value)
        if first:
            found[name] = full.cpu()
    return found


def spread(full: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`full`, known to every process, put where `like` lies: on its device, and split as it is."""
    full = full.to(like.device)
    if not is_dtensor(like):
        return full
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)
