"""Weights as they come from a folder or the Hub, and as they are trained: whole, and wide enough to move."""

import copy
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hf_unlearn.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIXTEEN_BITS = (torch.bfloat16, torch.float16)
MEASURED = (*SIXTEEN_BITS, torch.float32, torch.float64)  # types of weights that may hold what is no number
IN_A_LAYER = re.compile(r"\.\d+\.")  # a list of blocks numbers them
KEPT_NARROW = (
    "Weights of 16 bits are trained as they are, as was asked: most steps are smaller than such a weight can hold."
)
WIDENED = "The model came in 16 bits and was put into float32: most training steps are smaller than 16 bits can hold."


def load_weights(
    auto_model: Any, name: str, *, is_base: bool = False, ignore_mismatched_sizes: bool = False, **options: Any
) -> "PreTrainedModel":
    """`auto_model.from_pretrained`, but a folder that lacks some of the model's weights is no model.

    transformers fills the gaps with random numbers, leaves out blocks that the configuration does not count, and logs
    a table of both; here one line says it.

    Args:
        is_base: the weights are fine-tuned afterwards: a head may be missing; layers may not.
        ignore_mismatched_sizes: of a base: the head may be of other classes.
        options: for `from_pretrained`.

    Raises `UserError` naming the first weight that is missing, of another shape, in too many layers, or not finite.
    """
    with _without_tables():
        model, info = auto_model.from_pretrained(
            name, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    mismatched = sorted(info.get("mismatched_keys", ()))
    if mismatched and not (is_base and ignore_mismatched_sizes):
        key, found, wanted = mismatched[0]
        shapes = [" × ".join(map(str, shape)) for shape in (found, wanted)]
        raise UserError(
            f"{name} holds {key} of shape {shapes[0]} where the model has {shapes[1]}: mend config.json, or name the "
            "model that was trained on these classes"
        )
    missing = sorted([*info["missing_keys"], *(key for key, *_ in mismatched)])
    inside = f"{model.base_model_prefix}." if model.base_model is not model else ""
    if missing and not is_base and not any(key.startswith(inside) for key in missing):
        raise UserError(
            f"{name} has no trained head: {type(model).__name__} has {missing[0]}, and the folder does not; name the "
            "model that was fine-tuned on these rows (a base goes to `base_model`, or `original_model`)"
        )
    if is_base:
        missing = [key for key in missing if key.startswith(inside) and IN_A_LAYER.search(f".{key}")]
    if missing:
        raise UserError(
            f"{name} lacks {len(missing)} of the weights that its configuration asks for, e.g. {missing[0]}: save the "
            "whole model, or mend config.json"
        )
    if too_many := _blocks_left_out(model, info["unexpected_keys"]):
        raise UserError(f"{name} has more layers than its configuration counts, e.g. {too_many}: mend config.json")
    check_finite(model, name)
    return model


def check_finite(model: nn.Module, name: str) -> None:
    """Raises `UserError` naming the first weight that holds what is no finite number; quantized ones are not read."""
    if key := first_not_finite(model):
        raise UserError(f"{name}: the weight {key} holds what is no finite number; name a model that is whole")


def first_not_finite(model: nn.Module) -> str | None:
    """The name of the first weight that holds a number that is not finite; quantized ones are not read."""
    for key, value in model.named_parameters():
        if value.dtype in MEASURED and not value.is_meta and value.numel():
            lowest, highest = torch.aminmax(value.detach())
            if not (lowest.isfinite() and highest.isfinite()):
                return key
    return None


def _blocks_left_out(model: nn.Module, unexpected: Any) -> str | None:
    """The first of the weights that were left out whose whole block the model lacks, beside blocks that it has."""
    known = {module for module, _ in model.named_modules()}
    for key in sorted(unexpected):
        found = IN_A_LAYER.search(key)
        if found and key[: found.start()] in known and key[: found.end() - 1] not in known:
            return key
    return None


@contextmanager
def _without_tables() -> Iterator[None]:
    """Without the tables that transformers logs of weights it did not find or did not want."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_no_table)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_table)


def _is_no_table(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def trains_narrow(model: nn.Module) -> bool:
    """Whether weights of 16 bits are among those that are trained."""
    return any(p.requires_grad and p.dtype in SIXTEEN_BITS for p in model.parameters())


def widen(model: nn.Module) -> bool:
    """Put a model into float32 if it would train weights of 16 bits; returns whether it did. Quantized ones stay."""
    if not trains_narrow(model) or getattr(model, "is_quantized", False):
        return False
    model.float()
    return True


def copied(model: nn.Module) -> nn.Module:
    """A copy to unlearn from. Frozen weights, the base of an adapter say, are those of the model itself, so that a
    large base is there once."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters() if not p.requires_grad})
