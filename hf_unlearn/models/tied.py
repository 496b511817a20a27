"""Weights that two layers share, as token embeddings and head often do, where an adapter changes one of the two."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from peft import PeftModel


def untied(model: "PeftModel") -> "PeftModel":
    """The same model, in which no layer shares the weight that an adapter's will be added to: in place.

    Merged into a weight that is shared, the adapter would change the other layer too, which it never did.
    """
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    adapted: list[Any] = [m for m in model.modules() if hasattr(m, "get_base_layer") and hasattr(m, "base_layer")]
    layers = [layer for layer in (each.get_base_layer() for each in adapted) if owners[id(layer.weight)] > 1]
    for layer in layers:
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=layer.weight.requires_grad)
    if layers:
        inner: Any = model.get_base_model()
        inner.config.get_text_config().tie_word_embeddings = False  # or loading would tie them again
    return model
