"""Proxies: cheap models that never see the forget rows, made from the original with most of its memory taken out."""

import copy
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_unlearn.models import lora
from hf_unlearn.saliency.shards import whole
from hf_unlearn.tasks.forward import unwrap

FORGOTTEN_SHARE = 0.75  # of the blocks, from the top: what is kept below is too general to remember single rows


def make_proxy(
    model: nn.Module, seed: int, start: Callable[[int], PreTrainedModel] | None = None, *, keeps: bool = True
) -> nn.Module:
    """An untrained proxy for `model`: as much of what it knows as can be had without what it remembers of single rows.

    - The recipe's start is known, and a pretrained base, or the model reads tokens: that start. It never saw a row.
      Where the model has an adapter, the proxy is an adapter like it on a pretrained start, which stays frozen.
    - Otherwise a copy whose upper blocks and everything above them are freshly initialised. The embeddings and the
      lowest quarter of the blocks keep the original's weights, which for pixels are too general to tell rows apart.
      (A table of tokens trained from scratch is not: it remembers rows by their words.) A model without a list of
      blocks, or with a single one, keeps what lies below all of them.

    Otherwise an adapter is merged first. A head that shares its weights with the embeddings keeps them.

    Args:
        model: full, or a `PeftModel`; it is left as it is.
        seed: of the fresh weights. The global generators are left as they were.
        start: makes the recipe's start from a seed.
        keeps: `False` for a proxy of which all weights are fresh, or those of the start.
    """
    inner = unwrap(model)
    reference = next(inner.parameters())
    devices = [p.device for p in inner.parameters() if p.device.type == "cuda"][:1]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        with reference.device if start is None else nullcontext():  # fresh weights are drawn where they are needed
            proxy: PreTrainedModel = start(seed) if start else type(inner)(copy.deepcopy(inner.config))
    nn.Module.to(proxy, device=reference.device, dtype=reference.dtype)
    if start is not None and lora.is_peft(model) and proxy.config._name_or_path:
        return lora.with_adapter_like(proxy, model, seed)
    if not keeps or starts_clean(inner, proxy if start is not None else None):
        return proxy
    original = lora.merge(model) if lora.is_peft(model) else inner
    try:
        name, blocks = find_blocks(original)
    except ValueError:
        return proxy
    first_fresh = len(blocks) - max(1, int(FORGOTTEN_SHARE * len(blocks)))
    proxy.load_state_dict(_kept(original, name, first_fresh), strict=False)
    proxy.tie_weights()
    return proxy


def starts_clean(model: nn.Module, start: PreTrainedModel | None) -> bool:
    """Whether a proxy for `model` is the recipe's start, if there is one, and keeps nothing of `model`."""
    return start is not None and (has_token_table(unwrap(model)) or bool(start.config._name_or_path))


def has_token_table(model: PreTrainedModel) -> bool:
    """Whether the input embeddings are a table of tokens."""
    try:
        return isinstance(model.get_input_embeddings(), nn.Embedding)
    except NotImplementedError:  # ResNet and its like
        return False


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList | nn.Sequential]:
    """Name and list of the model's repeated blocks: the largest list or sequence of like modules, of two or more where
    there is one.

    Raises `ValueError` for a model without one.
    """
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len({type(m) for m in module}) == 1
    }
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of blocks")
    name = max(lists, key=lambda n: (len(lists[n]) > 1, sum(p.numel() for p in lists[n].parameters())))
    return name, lists[name]


def _kept(model: PreTrainedModel, blocks: str, first_fresh: int) -> dict[str, torch.Tensor]:
    """Weights that come before the first fresh block, in the order of the model's modules."""
    state, kept, reached = model.state_dict(), {}, False
    inputs = _embedding_names(model)
    for name, value in state.items():
        inside = name.startswith(f"{blocks}.")
        reached |= inside
        below = inside and int(name[len(blocks) + 1 :].split(".")[0]) < first_fresh
        if below or not reached or name in inputs:
            kept[name] = whole(value)  # FSDP2 spreads it; the proxy is a whole model on every process
    return kept


def _embedding_names(model: PreTrainedModel) -> set[str]:
    """Names of the input embedding's weights, under which a tied output head appears too."""
    if not has_token_table(model):
        return set()
    pointers = {p.data_ptr() for p in model.get_input_embeddings().parameters()}
    return {name for name, value in model.state_dict().items() if value.data_ptr() in pointers}
