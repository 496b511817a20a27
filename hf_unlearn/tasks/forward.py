"""What every task does around a model's forward: look inside wrappers, choose inputs, read logits, pad."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from hf_unlearn.tasks.row_parts import OWNER

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DATA_PARALLEL = {"DistributedDataParallel", "DataParallel", "OptimizedModule"}
_DISTRIBUTED = _DATA_PARALLEL | {"FullyShardedDataParallel", "DeepSpeedEngine"}


def without_data_parallel(model: nn.Module) -> nn.Module:
    """The module inside DDP, DataParallel and `torch.compile`. FSDP stays: its parameters live in the wrapper."""
    return _inside(model, _DATA_PARALLEL)


def without_wrappers(model: nn.Module) -> nn.Module:
    """The module inside DDP, FSDP, DeepSpeed and `torch.compile`: a `transformers` or a peft model."""
    return _inside(model, _DISTRIBUTED)


def unwrap(model: nn.Module) -> "PreTrainedModel":
    """The `transformers` model inside all wrappers, peft's included."""
    inner: Any = without_wrappers(model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def _inside(model: nn.Module, wrappers: set[str]) -> nn.Module:
    # By name: no imports of what is not in use, and a fraction of the milliseconds of accelerate's own search, which
    # looks at every submodule and would be paid several times per step.
    while any(base.__name__ in wrappers for base in type(model).__mro__):
        model = cast(nn.Module, model._orig_mod if hasattr(model, "_orig_mod") else model.module)
    return model


def model_inputs(model: nn.Module, batch: dict[str, Any]) -> dict[str, Any]:
    """The part of a collated batch that goes into `model`: no labels, and nothing that it cannot use.

    `token_type_ids` go only to models that have segment embeddings: tokenizers hand them out regardless, DistilBERT
    refuses them, and GPT-2 would add the embedding of token 0 to every position.
    """
    inner = unwrap(model)
    kind: Any = type(inner)
    names, takes_any = _forward_parameters(kind)
    inputs = {k: v for k, v in batch.items() if k in names or takes_any}
    for name in ("labels", OWNER):
        inputs.pop(name, None)
    if "token_type_ids" in inputs and not _has_segments(inner.config):
        del inputs["token_type_ids"]
    if "use_cache" in names:
        inputs["use_cache"] = False
    return inputs


def rows_of(batch: dict[str, Any], rows: slice) -> dict[str, Any]:
    """The rows `rows` of a collated batch, in the order they have there."""
    if OWNER not in batch:
        return {name: values[rows] for name, values in batch.items()}
    owner, lists = batch[OWNER], {name for name, values in batch.items() if isinstance(values, list)}
    chosen = range(*rows.indices(int(owner[-1]) + 1))
    kept = (owner >= chosen.start) & (owner < chosen.stop)
    found = {name: values[rows] if name in lists else values[kept] for name, values in batch.items()}
    return found | {OWNER: found[OWNER] - chosen.start}


def logits_of(output: Any) -> torch.Tensor:
    """Logits of a forward without labels, whether the model returns a `ModelOutput` or a tuple."""
    return output[0] if isinstance(output, tuple) else output.logits


def pad(
    features: Sequence[dict[str, Any]], fill: dict[str, int], padding_side: str = "right"
) -> dict[str, torch.Tensor]:
    """Rows of `(length,)` tensors or plain numbers to a batch of `(batch, longest)` and `(batch,)` tensors.

    `fill` gives each key's padding value, 0 where it has none.
    """
    batch = {}
    for key, first in features[0].items():
        values = [row[key] for row in features]
        if torch.is_tensor(first):
            batch[key] = pad_sequence(values, True, fill.get(key, 0), padding_side)
        else:
            batch[key] = torch.tensor(values)
    return batch


def kept_randomness(device: torch.device):
    """A context manager that leaves the global random generators of the CPU and of `device` as they were."""
    if device.type == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


def position_limit(model: nn.Module) -> int | None:
    """Longest input in tokens that the model has positions for; `None` if nothing says so.

    The RoBERTa family starts counting after the padding id, so its table holds more rows than it has positions.
    """
    inner = unwrap(model)
    for name, module in inner.named_modules():
        if (
            name.endswith("position_embeddings")
            and isinstance(module, nn.Embedding)
            and module.padding_idx is not None
        ):
            return module.num_embeddings - module.padding_idx - 1
    limit = getattr(inner.config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


@lru_cache(maxsize=64)
def _forward_parameters(model_class: type[nn.Module]) -> tuple[frozenset[str], bool]:
    # The class's forward, not the instance's: accelerate replaces the latter for mixed precision.
    parameters = inspect.signature(model_class.forward).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return frozenset(parameters), takes_any


def _has_segments(config: Any) -> bool:
    size = getattr(config, "type_vocab_size", 0)
    return config.model_type == "xlnet" or (isinstance(size, int) and size > 1)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module has the flag it had, also where parts were in eval mode before."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
