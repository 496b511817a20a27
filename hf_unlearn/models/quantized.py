"""Weights as a quantized model would have them: rounded and widened again, so that any device computes with them."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from hf_unlearn.models.nf4 import nf4_rounded
from hf_unlearn.models.noise import input_module
from hf_unlearn.tasks.forward import unwrap

WHAT = {
    "int8": "linear layers, 255 levels per output channel; embeddings and a head that shares their weights stay",
    "nf4": "linear layers but for the head, NF4 in blocks of 64; embeddings stay",
}


@torch.no_grad()
def round_to_int8(model: nn.Module) -> None:
    """Round the weights of linear layers to 255 levels per output channel, symmetric around 0, in place.

    Embeddings, and an output head that shares their weights, are left as they are.
    """
    shared = getattr(input_module(model), "weight", None)
    for module, transposed in _linear_layers(model):
        held: Any = module.weight
        if held is not shared:
            weight = held.float()
            scale = weight.abs().amax(dim=0 if transposed else 1, keepdim=True) / 127
            rounded = torch.where(scale > 0, (weight / scale).round() * scale, weight)
            held.copy_(rounded.to(held.dtype))


@torch.no_grad()
def round_to_nf4(model: nn.Module) -> None:
    """Round the weights of linear layers to NF4, in place: those that bitsandbytes' 4-bit layers would hold.

    Embeddings and the head are left as they are: that of a language model, and what stands behind the backbone of a
    classifier.
    """
    left = _heads(model)
    for module, transposed in _linear_layers(model):
        if module not in left:
            held: Any = module.weight
            rounded = nf4_rounded((held.T if transposed else held).contiguous())  # blocks run along (out, in)
            held.copy_(rounded.T if transposed else rounded)


def share_rounded(model: nn.Module, weights: str) -> float:
    """How many of the weights but those of the input embeddings `int8` or `nf4` may change, in [0, 1]: those of
    convolutions, and of experts that are no linear layers, stay as they are."""
    table = getattr(input_module(model), "weight", None)
    left = _heads(model) if weights == "nf4" else set()
    rounded = {id(layer.weight) for layer, _ in _linear_layers(model) if layer not in left}
    sizes = {id(p): p.numel() for p in model.parameters() if p is not table}
    return sum(size for key, size in sizes.items() if key in rounded) / max(1, sum(sizes.values()))


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """Linear layers, and whether their weight is `(in, out)`, as that of GPT-2's."""
    from transformers.pytorch_utils import Conv1D

    for module in model.modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            yield module, isinstance(module, Conv1D)


def _heads(model: nn.Module) -> set[nn.Module]:
    """Modules that are no part of the backbone, those inside them too, and the output embeddings."""
    inner = unwrap(model)
    found: set[nn.Module] = set()
    backbone = getattr(inner, "base_model", inner)
    if backbone is not inner:
        found |= set(inner.modules()) - set(backbone.modules())
    try:
        output = inner.get_output_embeddings()
    except (NotImplementedError, AttributeError):
        output = None
    return found | ({output} if output is not None else set())
