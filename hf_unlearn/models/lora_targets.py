"""Which modules of a model an adapter sits on, and which it trains whole beside it."""

import re
from typing import TYPE_CHECKING

from torch import nn

from hf_unlearn.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HEAD_NAMES = ("classifier", "score", "head", "fc", "lm_head")


def default_lora_targets(model: nn.Module) -> list[str]:
    """Name suffixes of the backbone's linear layers (`Conv1D` included), such as `q_proj` or `output.dense`.

    Embeddings, poolers and heads are left out. Each suffix is as short as it can be without matching one of those, so
    BERT's `output.dense` is not shortened to `dense`, which would adapt its pooler too. Or a class's `lora_targets`.

    Raises `UserError` if the backbone has no linear layer.
    """
    if own := getattr(model, "lora_targets", ()):
        return [name for name in own if any(_ends_with(each, name) for each, _ in model.named_modules())]
    linear = _linear_layers(model)
    targets = [name for name in linear if _in_backbone(model, name)]
    if not targets:
        raise UserError("the model's backbone has no linear layers for LoRA: name layers with lora_target_modules")
    others = [name for name in linear if name not in set(targets)]
    return list(dict.fromkeys(_shortest_suffix(name, others) for name in targets))


def default_modules_to_save(model: "PreTrainedModel") -> list[str]:
    """Names of a classifier's head modules, trained in full and saved with the adapter; none for causal LMs.

    Poolers belong to the backbone here: they come trained with the model, and stay frozen.
    """
    if model.get_output_embeddings() is not None:
        return []
    backbone = model.base_model
    heads = [
        name
        for name, child in model.named_children()
        if child is not backbone and any(True for _ in child.parameters())
    ]
    return [name for name in heads if name in _HEAD_NAMES] if backbone is model else heads


def matched_modules(model: nn.Module, targets: list[str] | str) -> list[str]:
    """Names of the modules that `targets` match. Raises `UserError` for a target that matches none."""
    names = [name for name, _ in model.named_modules()]
    if isinstance(targets, str):
        matched = {targets: [name for name in names if re.fullmatch(targets, name)]}
    else:
        matched = {target: [name for name in names if _ends_with(name, target)] for target in targets}
    for target, found in matched.items():
        if not found:
            raise UserError(f"LoRA target {target!r} matches no layer: {what_exists(model)}")
    return [name for found in matched.values() for name in found]


def check_modules_to_save(model: nn.Module, wanted: list[str]) -> None:
    """Raises `UserError` for a name suffix that matches no module."""
    for module in wanted:
        if not any(_ends_with(name, module) for name, _ in model.named_modules()):
            heads = ", ".join(name for name, _ in model.named_children())
            raise UserError(f"lora_modules_to_save {module!r} matches no module: the model consists of {heads}")


def what_exists(model: nn.Module) -> str:
    """The end of a message: what the model's linear layers are called."""
    names = dict.fromkeys(name.rpartition(".")[2] for name in _linear_layers(model))
    return f"the model's linear layers are {', '.join(names)}"


def _linear_layers(model: nn.Module) -> list[str]:
    from transformers.pytorch_utils import Conv1D

    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
        # The output projection inside torch's own attention, which never calls it as a module.
        and type(module).__name__ != "NonDynamicallyQuantizableLinear"
    ]


def _in_backbone(model: nn.Module, name: str) -> bool:
    parts = name.split(".")
    if any("pooler" in part or "embed" in part for part in parts):
        return False
    if model.base_model is model:
        return not any(part in _HEAD_NAMES for part in parts)
    return getattr(model, parts[0]) is model.base_model


def _shortest_suffix(name: str, others: list[str]) -> str:
    parts = name.split(".")
    for start in range(len(parts) - 1, 0, -1):
        suffix = ".".join(parts[start:])
        if not any(_ends_with(other, suffix) for other in others):
            return suffix
    return name


def _ends_with(name: str, suffix: str) -> bool:
    return name == suffix or name.endswith(f".{suffix}")
