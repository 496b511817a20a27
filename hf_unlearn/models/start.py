"""What a model was before it saw its training rows: its base with a fresh head."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, set_seed

from hf_unlearn.errors import UserError
from hf_unlearn.models import lora
from hf_unlearn.models.by_name import cause
from hf_unlearn.models.weights import load_weights
from hf_unlearn.report.evidence import EVIDENCE
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import kept_randomness, unwrap

UNLEARNED = "unlearning"  # the tag of cards of unlearned models; what they name as their base learned the rows


def labels_of(task: Task) -> dict[str, Any]:
    """A classifier's classes, as keyword arguments of `from_pretrained` and `from_config`; empty for other tasks."""
    names = task.label_names
    if not names:
        return {}
    problem = {"problem_type": task.problem_type} if task.problem_type else {}
    return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}} | problem


def load_start(task: Task, base: str, seed: int, **options: Any) -> PreTrainedModel:
    """A base by name or folder, with a head of its own drawn from `seed`, ready for the task.

    Raises `UserError` where layers are missing; what transformers raises for other failures is the caller's.
    """
    set_seed(seed)
    labels = labels_of(task)
    if labels:
        labels |= {"num_labels": len(labels["id2label"]), "ignore_mismatched_sizes": True}
    model = load_weights(task.auto_model(), base, is_base=True, **options, **labels)
    task.prepare_model(model)
    return model


def drawn_anew(model: nn.Module, seed: int) -> PreTrainedModel:
    """A network like `model`, inside all wrappers, with weights drawn from `seed`: on its device and of its type. The
    global random generators stay as they were."""
    plain = unwrap(model)
    some = next(plain.parameters())
    with kept_randomness(some.device):
        torch.manual_seed(seed)
        fresh = type(plain)(copy.deepcopy(plain.config))
    return torch.nn.Module.to(fresh, device=some.device, dtype=some.dtype)


def start_from(
    task: Task, original: nn.Module, base: str | nn.Module, **options: Any
) -> Callable[[int], PreTrainedModel]:
    """Makes, from a seed, what `original` was before its training.

    Args:
        base: a name, a folder, or a model: of the original's class or its backbone, left as it is.
        options: for `from_pretrained` of a name.

    Raises `UserError` if it cannot be loaded, or is of another architecture.
    """
    inner = unwrap(original)
    if isinstance(base, nn.Module):
        weights = _weights_for(inner, base)

        def make(seed: int) -> PreTrainedModel:
            set_seed(seed)
            model: PreTrainedModel = type(inner)(copy.deepcopy(inner.config))
            model.config._name_or_path = (
                getattr(getattr(base, "config", None), "_name_or_path", "") or "base"
            )  # it is pretrained
            model.load_state_dict(weights, strict=False)
            model.tie_weights()
            return model

        return make

    base = str(base)  # a path too
    kind = _config_of(base, options)
    if kind is not type(inner.config):
        raise UserError(f"base '{base}' has a {kind.__name__}, and the model a {type(inner.config).__name__}")
    return lambda seed: load_start(task, base, seed, **options)


def _config_of(name: str, options: dict[str, Any]) -> type:
    """The configuration's class; the weights are read only where they are used."""
    from transformers import AutoConfig

    if name.startswith((".", "/", "~")) and not Path(name).is_dir():  # the Hub would call it no repository
        raise UserError(f"base '{name}' cannot be loaded: there is no such folder")
    known = {key: options[key] for key in ("revision", "trust_remote_code", "token") if key in options}
    try:
        return type(AutoConfig.from_pretrained(name, **known))
    except Exception as error:  # whatever transformers raises for a name
        raise UserError(f"base '{name}' cannot be loaded: {cause(name, error)}") from error


def _weights_for(original: PreTrainedModel, base: nn.Module) -> dict[str, torch.Tensor]:
    """The base's weights by the original's names; of a classifier's without its head."""
    same_class = type(base) is type(original)
    prefix = f"{original.base_model_prefix}."
    state = {name if same_class else prefix + name: value for name, value in base.state_dict().items()}
    if original.get_output_embeddings() is None:  # a classifier: its head is not the base's
        state = {name: value for name, value in state.items() if name.startswith(prefix)}
    own = original.state_dict()
    backbone = [name for name in own if name.startswith(prefix)]
    wrong = [name for name in backbone if name not in state or state[name].shape != own[name].shape]
    if wrong or not backbone:
        named = wrong[0] if wrong else prefix
        raise UserError(f"base= is a {type(base).__name__} that lacks the model's {named}: give what it was made from")
    return {name: value.detach().clone() for name, value in state.items()}


def find_base(model: nn.Module, name: str | None) -> str | None:
    """The base that a model's adapter, its card or its configuration names, or `None`: a Hub id or a folder.

    Nothing is downloaded for it.

    Args:
        name: what the model was loaded from.
    """
    if name and (Path(name) / EVIDENCE).is_file():
        return None  # it was unlearned from its base, which learned the rows
    if lora.is_peft(model):
        return lora.base_name(model)
    found = name and (_of_card(name) or _of_config(name))
    return found if found and found != name else None


def _of_card(name: str) -> str | None:
    from huggingface_hub import ModelCard

    path = _local(name, "README.md")
    try:
        data = ModelCard.load(path).data if path else None
    except (OSError, ValueError):
        return None
    if data is None or UNLEARNED in (data.tags or []):
        return None
    named = [data.base_model] if isinstance(data.base_model, str) else data.base_model or []
    return named[0] if len(named) == 1 else None


def _of_config(name: str) -> str | None:
    """What a model was loaded from before it was trained and saved."""
    path = _local(name, "config.json")
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("_name_or_path") or None if path else None
    except (OSError, ValueError, AttributeError):
        return None


def _local(name: str, file: str) -> Path | None:
    """A file of a folder, or of a Hub model as far as it lies in the cache."""
    if Path(name).is_dir():
        return Path(name) / file if (Path(name) / file).is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, file)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
