"""Optimizer state of weights that are not selected: what must stay 0 there, and what may not be 0 for speed."""

import functools
from typing import Any

import torch

from hf_unlearn.saliency.masked_ops import fill_outside_

# State that moves a weight whose gradient is 0: torch's names, and bitsandbytes'.
_MOMENTUM = ("exp_avg", "momentum_buffer", "state1")
# Second moments. An update of 0 is divided by their root, so outside the mask their value is of no effect.
_SQUARES = ("exp_avg_sq", "square_avg", "sum")


def has_momentum_outside(state: dict[str, Any], keep: torch.Tensor) -> bool:
    """Whether the state of one tensor would move a weight outside the mask (`keep` 0) without any gradient."""
    for key in _MOMENTUM:
        if (value := state.get(key)) is not None:
            zero = _code_of_zero(state["qmap1"]) if value.dtype == torch.uint8 else 0
            if bool(((_local(value) != zero) & (keep == 0)).any()):
                return True
    return False


def keep_eight_bits_still_(state: dict[str, Any], keep: torch.Tensor) -> None:
    """Set bitsandbytes' 8-bit momentum outside the mask to 0, which it may round to the smallest other code."""
    momentum = state.get("state1")
    if momentum is not None and momentum.dtype == torch.uint8:
        fill_outside_(momentum, keep, _code_of_zero(state["qmap1"]))


def raise_squares_(state: dict[str, Any], keep: torch.Tensor) -> None:
    """Set second moments outside the mask to 1: a CPU may take ten times longer for the root of 0 (MKL does)."""
    for key in _SQUARES:
        if key in state:
            _local(state[key]).masked_fill_(keep == 0, 1.0)


@functools.lru_cache(maxsize=4096)
def _code_of_zero(codes: torch.Tensor) -> int:
    """Which of bitsandbytes' 256 codes stands for 0."""
    return codes.tolist().index(0.0)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
