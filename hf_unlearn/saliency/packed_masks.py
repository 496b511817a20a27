"""Bool masks in one bit a weight: how files hold them, and memory where they are rarely asked for."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from hf_unlearn.saliency.shards import is_dtensor, local


class PackedMasks(Mapping[str, torch.Tensor]):
    """Masks by parameter name, each unpacked when it is asked for: as it was, on its device and spread as it was.

    Args:
        masks: bool tensors, or DTensors, of which this process packs its own part.
    """

    def __init__(self, masks: Mapping[str, torch.Tensor]):
        self._parts = {
            name: (pack(local(mask)), tuple(local(mask).shape), mask.device, _spread(mask))
            for name, mask in masks.items()
        }

    def __getitem__(self, name: str) -> torch.Tensor:
        bits, shape, device, spread = self._parts[name]
        part = unpack(bits, shape).to(device)
        if spread is None:
            return part
        from torch.distributed.tensor import DTensor

        mesh, placements, whole, stride = spread
        return DTensor.from_local(part, mesh, placements, run_check=False, shape=whole, stride=stride)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the bits take."""
        return sum(bits.nbytes for bits, *_ in self._parts.values())


def pack(mask: torch.Tensor) -> torch.Tensor:
    """Bool tensor to bits, eight to a byte, the first in the highest bit: `(ceil(numel / 8),)` uint8 on the CPU."""
    return torch.from_numpy(np.packbits(mask.detach().cpu().contiguous().view(-1).numpy()))


def unpack(bits: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The inverse of [`pack`]. Missing bits give a mask of `False`, which the count of kept weights betrays."""
    size = int(np.prod(shape, dtype=np.int64))
    flat = np.unpackbits(bits.cpu().numpy(), count=size).astype(bool)
    return torch.from_numpy(flat).view(shape)


def _spread(mask: torch.Tensor) -> Any:
    if not is_dtensor(mask):
        return None
    return mask.device_mesh, mask.placements, mask.shape, mask.stride()
