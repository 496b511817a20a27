"""Weights as they come from a folder or the Hub, and as they are trained: whole, and wide enough to move."""

import logging
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hf_unlearn.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIXTEEN_BITS = (torch.bfloat16, torch.float16)
IN_A_LAYER = re.compile(r"\.\d+\.")  # a list of blocks numbers them
KEPT_NARROW = (
    "Weights of 16 bits are trained as they are, as was asked: most steps are smaller than such a weight can hold."
)
WIDENED = "The model came in 16 bits and was put into float32: most training steps are smaller than 16 bits can hold."


def load_weights(auto_model: Any, name: str, *, is_base: bool = False, **options: Any) -> "PreTrainedModel":
    """`auto_model.from_pretrained`, but a folder that lacks some of the model's weights is no model.

    transformers fills the gaps with random numbers.

    Args:
        is_base: the weights are fine-tuned afterwards: a head may be missing, or be of other classes; layers may not.
        options: for `from_pretrained`.

    Raises `UserError` naming the first weight that is missing.
    """
    logging.getLogger("transformers.modeling_utils").addFilter(_no_report)
    model, info = auto_model.from_pretrained(name, output_loading_info=True, **options)
    missing = sorted([*info["missing_keys"], *(key for key, *_ in info.get("mismatched_keys", ()))])
    if is_base:
        inside = f"{model.base_model_prefix}." if model.base_model is not model else ""
        missing = [key for key in missing if key.startswith(inside) and IN_A_LAYER.search(f".{key}")]
    if missing:
        raise UserError(
            f"{name} lacks {len(missing)} of the weights that its configuration asks for, e.g. {missing[0]}: save the "
            "whole model, or mend config.json"
        )
    return model


def _no_report(record: logging.LogRecord) -> bool:
    """Without the table of what is missing: a base's new head is meant to be, and all else is refused by name."""
    return " LOAD REPORT" not in record.getMessage()


def trains_narrow(model: nn.Module) -> bool:
    """Whether weights of 16 bits are among those that are trained."""
    return any(p.requires_grad and p.dtype in SIXTEEN_BITS for p in model.parameters())


def widen(model: nn.Module) -> bool:
    """Put a model into float32 if it would train weights of 16 bits; returns whether it did. Quantized ones stay."""
    if not trains_narrow(model) or getattr(model, "is_quantized", False):
        return False
    model.float()
    return True
