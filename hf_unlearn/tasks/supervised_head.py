"""A causal LM's logits on its supervised positions only: the rest of the vocabulary matrix is never computed."""

import logging
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from hf_unlearn.tasks.forward import eval_mode, kept_randomness, logits_of, unwrap, without_data_parallel

logger = logging.getLogger(__name__)

# Models whose head was compared with the full forward, and whether it agreed.
_AGREES: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()
# Largest difference, relative to the largest logit, that rounding explains.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_HALF_TOLERANCE = 2e-2
_COMPARED_ROWS = 2


def supervised(labels: torch.Tensor) -> torch.Tensor:
    """Which positions tell a token that has a label, `(batch, seq - 1)` bool, for `labels` `(batch, seq)`."""
    return labels[:, 1:] != -100


def supervised_logits(
    model: nn.Module, inputs: dict[str, Any], labels: torch.Tensor, counts: list[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits where the next token has a label.

    Position t is supervised when `labels[:, t + 1]` is not -100. A pre-hook on the output embeddings keeps these
    positions of the hidden states, so that whatever the model does before and after its head (norms, soft-capping,
    scales) stays its own, and wrappers stay in charge of the forward. The first time a model is seen, the result is
    compared with the full forward on two rows; a model that disagrees is run in full from then on.

    Args:
        model (`nn.Module`): wrapped by DDP, FSDP, peft or nothing.
        inputs (`dict`): what its forward takes.
        labels (`torch.Tensor`): `(batch, seq)`, -100 where a token is not supervised.
        counts (`list[int]`): supervised positions of each example.

    Returns:
        logits `(rows, vocabulary)`, their labels `(rows,)`, and the example each belongs to `(rows,)`.
    """
    example, position = _places(labels, sum(counts))
    targets = labels[example, position + 1]
    if _head_agrees(model, inputs, labels):
        logits = _head_only(model, inputs, labels.shape, example, position)
    else:
        logits = logits_of(model(**inputs))[example, position]
    return logits, targets, example


def _places(labels: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Example and position of the `count` supervised positions, in order. `nonzero`, where their number is known: it
    would wait for the device to tell it."""
    found = supervised(labels)
    wanted = torch.arange(1, count + 1, device=labels.device)
    flat = torch.searchsorted(found.flatten().cumsum(0), wanted)
    return flat // found.shape[1], flat % found.shape[1]


def _head_only(model, inputs, shape, example, position) -> torch.Tensor:
    head = output_head(model)
    assert head is not None  # `_compare` has told models without one apart
    with _selecting(head, example * shape[1] + position):
        logits = logits_of(model(**inputs))
    return logits.reshape(-1, logits.shape[-1])  # some models put a batch dimension of 1 in front


@contextmanager
def _selecting(head: nn.Module, flat: torch.Tensor):
    """Inside, `head` sees only the positions `flat` of its flattened input."""

    def select(module: nn.Module, args: tuple) -> tuple:
        hidden, *rest = args  # (batch, seq, hidden)
        return (hidden.flatten(0, 1).index_select(0, flat), *rest)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def output_head(model: nn.Module) -> nn.Module | None:
    """The module from hidden states to logits, or `None` if the model names none."""
    try:
        return unwrap(model).get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def vocabulary_of(model: nn.Module) -> int:
    """Logits of a token; 0 for a model that names no output embeddings."""
    return len(getattr(output_head(model), "weight", ()))


def _head_agrees(model: nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> bool:
    inner = unwrap(model)
    if inner not in _AGREES:
        difference = _compare(model, inputs, labels)
        if difference:
            logger.warning("%s: computing the logits of all positions (%s)", type(inner).__name__, difference)
        _AGREES[inner] = difference is None
    return _AGREES[inner]


def _compare(model: nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> str | None:
    """What is wrong with the head on selected positions, in words; `None` if nothing is.

    Leaves no trace: no gradients, dropout off, training flags and random generators as they were. DDP is bypassed, as
    processes need not meet here in the same step.
    """
    head, model = output_head(model), without_data_parallel(model)
    if head is None:
        return "it names no output embeddings"
    inputs = {k: v[:_COMPARED_ROWS] if torch.is_tensor(v) else v for k, v in inputs.items()}
    labels = labels[:_COMPARED_ROWS]
    example, position = supervised(labels).nonzero(as_tuple=True)
    head_dtypes = []
    handle = head.register_forward_hook(lambda module, args, output: head_dtypes.append(output.dtype))
    try:
        with eval_mode(model), kept_randomness(labels.device), torch.no_grad():
            full = logits_of(model(**inputs))[example, position]
            try:
                selected = _head_only(model, inputs, labels.shape, example, position)
            except Exception as error:  # whatever a model does with hidden states of an unexpected shape
                return f"its head refuses selected positions: {type(error).__name__}"
    finally:
        handle.remove()
    if selected.shape != full.shape:
        return "its head does not keep selected positions"
    # The head's own dtype counts as well: under mixed precision logits may have been widened since.
    tolerance = max(_TOLERANCE.get(dtype, _HALF_TOLERANCE) for dtype in (full.dtype, *head_dtypes))
    full, selected = full.double(), selected.double()
    bound = tolerance * (1 + full[full.isfinite()].abs().max()) if full.isfinite().any() else tolerance
    if not torch.isclose(selected, full, rtol=0, atol=float(bound), equal_nan=True).all():
        return "its head depends on the other positions"
    return None
