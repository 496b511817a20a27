"""Low-rank adapters (LoRA, arXiv 2106.09685, through peft): how they begin, what the original is, and how they end.

The original model is always at hand without a second copy of the weights. For an adapter that this run added it is the
model with the adapter switched off; for a model that was given with an adapter it is a frozen copy of that adapter.
"""

import copy
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from hf_unlearn.errors import UserError
from hf_unlearn.models.given_adapter import put_on
from hf_unlearn.models.lora_targets import (
    check_modules_to_save,
    default_lora_targets,
    default_modules_to_save,
    matched_modules,
    what_exists,
)
from hf_unlearn.models.tied import untied
from hf_unlearn.models.weights import load_weights
from hf_unlearn.tasks.forward import kept_randomness, without_wrappers

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER = "default"
REFERENCE = "reference"
PROXY = "proxy"
_HUB_KEYS = ("token", "cache_dir", "local_files_only", "force_download")


def add_lora(
    model: "PreTrainedModel",
    *,
    r: int,
    alpha: int,
    dropout: float,
    target_modules: list[str] | str | None = None,
    modules_to_save: list[str] | None = None,
    task_type: str | None,
    seed: int = 0,
) -> "PeftModel":
    """Put a fresh adapter on `model`; only the adapter and `modules_to_save` remain trainable.

    Args:
        r, alpha, dropout: rank, scaling numerator and dropout of the adapter.
        target_modules: name suffixes, or one regular expression for whole names. Default: [`default_lora_targets`].
        modules_to_save: name suffixes. Default: [`default_modules_to_save`], less what `target_modules` adapt.
        task_type: the task's `peft_task_type`.
        seed: of the adapter's own weights. The global generators are left as they were.

    Raises:
        `UserError`: a name matches nothing.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    if target_modules is None or target_modules in ("all-linear", ["all-linear"]):
        target_modules = default_lora_targets(model)
    matched = matched_modules(model, target_modules)
    if modules_to_save is None:
        heads = default_modules_to_save(model)
        modules_to_save = [head for head in heads if not any(name.split(".")[0] == head for name in matched)]
    else:
        check_modules_to_save(model, modules_to_save)
    modules = dict(model.named_modules())
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        # peft appends to the lists that it is given.
        target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
        modules_to_save=list(modules_to_save) or None,
        task_type=task_type,
        fan_in_fan_out=all(isinstance(modules[name], Conv1D) for name in matched),
    )
    try:
        with kept_randomness(next(model.parameters()).device):
            torch.manual_seed(seed)
            return get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"LoRA cannot adapt {target_modules}: {what_exists(model)}") from error


def is_adapter_folder(name_or_path: str, **hub_kwargs) -> bool:
    """Whether a folder, or a repository on the Hub, holds an adapter rather than a whole model."""
    from transformers.utils.peft_utils import find_adapter_config_file

    if os.path.isdir(name_or_path):
        return os.path.isfile(os.path.join(name_or_path, "adapter_config.json"))
    return find_adapter_config_file(name_or_path, **hub_kwargs) is not None


def load_adapter_model(
    name_or_path: str, auto_model: Any, *, num_labels: int | None = None, revision: str | None = None, **kwargs
) -> "PeftModel":
    """A saved adapter on its base model, trainable, with its frozen copy beside it ([`add_reference_adapter`]).

    Args:
        name_or_path: the adapter's folder or repository.
        auto_model: loads the base, e.g. a task's `auto_model()`.
        num_labels: of a classifier. An adapter records it nowhere; without it the base's own number is taken, which
            is wrong for an adapter on a base that was never a classifier of these classes.
        revision: of the adapter; its configuration names that of the base.
        kwargs: for the base's `from_pretrained`.

    Raises:
        `UserError`: the base cannot be loaded or does not fit, or the adapter is a prompt.
    """
    from peft import PeftConfig

    hub = {key: kwargs[key] for key in _HUB_KEYS if key in kwargs} | ({"revision": revision} if revision else {})
    config = PeftConfig.from_pretrained(name_or_path, **hub)
    if config.is_prompt_learning:
        raise UserError(f"the adapter at {name_or_path} is a learned prompt: only LoRA-like adapters can unlearn")
    base = config.base_model_name_or_path
    if num_labels is not None:
        kwargs["num_labels"] = num_labels
        # Where the adapter brings its own head, that of the base may have any size.
        kwargs["ignore_mismatched_sizes"] = bool(config.modules_to_save)
    try:
        plain = load_weights(auto_model, base, is_base=True, revision=config.revision or "main", **kwargs)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot load {base}, the base model of the adapter at {name_or_path}") from error
    model = put_on(plain, name_or_path, config, ADAPTER, **hub)
    add_reference_adapter(model)
    return model


def is_peft(model: nn.Module) -> bool:
    """Whether `model`, wrapped or not, is a `PeftModel`."""
    return hasattr(without_wrappers(model), "get_base_model")


def describe(model: nn.Module) -> dict[str, Any]:
    """What the evidence says of the adapter: its kind, rank, scale, dropout and where it sits."""
    config = _peft_model(model).peft_config[ADAPTER]
    targets = getattr(config, "target_modules", None)
    return {
        "type": str(getattr(config.peft_type, "value", config.peft_type)).lower(),
        "r": getattr(config, "r", None),
        "alpha": getattr(config, "lora_alpha", None),
        "dropout": getattr(config, "lora_dropout", None),
        "target_modules": targets if isinstance(targets, str) else sorted(targets or []),
        "modules_to_save": sorted(getattr(config, "modules_to_save", None) or []),
        "given": REFERENCE in _peft_model(model).peft_config,  # the model came with it
    }


def add_reference_adapter(model: "PeftModel") -> None:
    """Keep the adapter as it is now: a second, frozen one named `reference`, bit-equal and never saved.

    Draws nothing from the global random generator.
    """
    config = copy.deepcopy(model.peft_config[ADAPTER])
    config.inference_mode = True
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    with kept_randomness(next(model.parameters()).device):
        model.add_adapter(REFERENCE, config)
    model.set_adapter(ADAPTER)
    state = model.state_dict()  # shares memory with the model
    for name, value in state.items():
        parts = name.split(".")
        if REFERENCE in parts:
            value.copy_(state[".".join(ADAPTER if part == REFERENCE else part for part in parts)])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags.get(name, False))


def drop_reference_adapter(model: "PeftModel") -> None:
    """Undo [`add_reference_adapter`]."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    model.delete_adapter(REFERENCE)
    for parameter, flag in flags:
        parameter.requires_grad_(flag)


def is_fresh(model: nn.Module) -> bool:
    """Whether the adapter changes nothing yet: the second factors of a LoRA are zero until it is trained."""
    seconds = [p for name, p in model.named_parameters() if re.search(rf"lora_(embedding_)?B\.{ADAPTER}\b", name)]
    return bool(seconds) and not any(p.any() for p in seconds)


@contextmanager
def reference_model(model: nn.Module) -> Iterator[nn.Module]:
    """Inside, `model` (wrapped or not) computes what the original computed. Use it without gradients.

    Raises `ValueError` for a model without an adapter: its original is gone.
    """
    peft_model = _peft_model(model)
    flags = [(p, p.requires_grad) for p in peft_model.parameters()]
    try:
        if REFERENCE in peft_model.peft_config:
            peft_model.set_adapter(REFERENCE)
            for parameter, _ in flags:
                parameter.requires_grad_(False)
            yield model
        else:
            with peft_model.disable_adapter():
                yield model
    finally:
        peft_model.set_adapter(ADAPTER)
        for parameter, flag in flags:  # switching adapters makes whole adapters trainable or frozen
            parameter.requires_grad_(flag)


def came_with_adapter(model: nn.Module) -> bool:
    """Whether `model` was given with its adapter, so that the base inside it never saw a row of the adapter's."""
    return is_peft(model) and REFERENCE in _peft_model(model).peft_config


@contextmanager
def proxy_adapter(model: nn.Module, seed: int) -> Iterator["PeftModel"]:
    """Inside, `model` is its frozen base with a fresh, trainable adapter like its own; afterwards it is what it was.

    It costs the adapter's weights, and no copy of the base. The global random generators are left as they were.

    Raises `ValueError` for a model without an adapter.
    """
    peft_model = _peft_model(model)
    flags = [(p, p.requires_grad) for p in peft_model.parameters()]
    config = copy.deepcopy(peft_model.peft_config[ADAPTER])
    config.inference_mode = False
    try:
        with kept_randomness(next(model.parameters()).device):
            torch.manual_seed(seed)
            peft_model.add_adapter(PROXY, config)
        peft_model.set_adapter(PROXY)
        yield peft_model
    finally:
        peft_model.set_adapter(ADAPTER)
        peft_model.delete_adapter(PROXY)
        for parameter, flag in flags:  # switching adapters makes whole adapters trainable or frozen
            parameter.requires_grad_(flag)


def with_adapter_like(base: "PreTrainedModel", model: nn.Module, seed: int) -> Any:
    """`base`, frozen, with a fresh adapter of the same kind as that of `model`, drawn from `seed`. The global random
    generators are left as they were."""
    from peft import get_peft_model

    config = copy.deepcopy(_peft_model(model).peft_config[ADAPTER])
    config.inference_mode = False
    with kept_randomness(next(base.parameters()).device):
        torch.manual_seed(seed)
        return get_peft_model(base, config, adapter_name=ADAPTER)


def recipe_of(name_or_path: str) -> dict[str, Any]:
    """What an adapter's configuration says of the recipe it came from: `model` (its base), `lora_r`, `lora_alpha`,
    `lora_dropout` and `lora_target_modules`. Raises `UserError` where it is no LoRA adapter or names no base."""
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(name_or_path)
    if not config.base_model_name_or_path or not hasattr(config, "lora_alpha"):
        raise UserError(f"{name_or_path} names no base and no rank: describe the recipe with `original_model`")
    targets = config.target_modules
    return {
        "model": config.base_model_name_or_path,
        "lora_r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "lora_target_modules": [targets] if isinstance(targets, str) else sorted(targets),
    }


def base_name(model: nn.Module) -> str | None:
    """What the base of a model's adapter was loaded from: a Hub id or a folder."""
    return _peft_model(model).peft_config[ADAPTER].base_model_name_or_path or None


def save_kwargs(model: nn.Module) -> dict[str, Any]:
    """What `save_pretrained` must be given, in checkpoints too, so that the frozen copy is not written out."""
    return {"selected_adapters": [ADAPTER]} if is_peft(model) else {}


def merge(model: nn.Module, in_place: bool = False) -> "PreTrainedModel":
    """The plain model with the adapter's weights added to its own, loadable with `from_pretrained`.

    Args:
        in_place (`bool`): take the weights out of `model`, which is of no use afterwards, instead of copying it.
    """
    peft_model = untied(_peft_model(model) if in_place else copy.deepcopy(_peft_model(model)))
    peft_model.set_adapter(ADAPTER)
    merged = peft_model.merge_and_unload(safe_merge=True, adapter_names=[ADAPTER])
    for parameter in merged.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return merged


def merge_into(base: "PreTrainedModel", model: nn.Module) -> "PreTrainedModel":
    """`base` with the weights of the adapter of `model` added to its own: what [`merge`] gives, where the base of
    `model` is the same in fewer bits, into which nothing can be merged without loss."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    adapted = with_adapter_like(base, model, seed=0)
    state = get_peft_model_state_dict(_peft_model(model), adapter_name=ADAPTER)
    set_peft_model_state_dict(adapted, {name: value.cpu() for name, value in state.items()}, adapter_name=ADAPTER)
    return merge(adapted, in_place=True)


def _peft_model(model: nn.Module) -> "PeftModel":
    if not is_peft(model):
        raise ValueError("the model has no adapter, so its original is not kept inside it")
    return cast("PeftModel", without_wrappers(model))
