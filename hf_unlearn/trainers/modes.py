"""Train and eval mode, and the precision of forwards, for unlearning."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from transformers.modeling_layers import GradientCheckpointingLayer

_BATCH_NORM = torch.nn.modules.batchnorm._BatchNorm


def has_batch_norm(model: torch.nn.Module) -> bool:
    """Whether an example's output in train mode depends on the others in its batch."""
    return any(isinstance(module, _BATCH_NORM) for module in model.modules())


def leave_autocast(model: torch.nn.Module) -> None:
    """Give a model that was trained in this process its own forward back.

    Trainer leaves the run's mixed precision in it, which the same weights read from a file do not have, and a mark by
    which accelerate leaves out the precision of the next run.
    """
    extract_model_from_parallel(model, keep_fp32_wrapper=False)
    vars(model).pop("_is_accelerate_prepared", None)


def set_training_mode(model: torch.nn.Module, disable_dropout: bool) -> None:
    """Train mode, or eval mode for training without dropout and with BatchNorm statistics frozen.

    Layers that recompute their activations only do so in train mode, so those alone stay in it; their children do not,
    and what such a layer computes itself, some have dropout of their own, it computes in eval mode.
    """
    if not disable_dropout:
        model.train()
        return
    model.eval()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
            module.training = True
            layer: Any = module
            if getattr(layer._gradient_checkpointing_func, "func", None) is not _as_children:
                layer._gradient_checkpointing_func = partial(_as_children, layer, layer._gradient_checkpointing_func)


def _as_children(layer: torch.nn.Module, recompute: Callable, run: Callable, *inputs: Any) -> Any:
    """`recompute(run, *inputs)`, with `layer` in the mode of its children whenever it runs."""

    def as_children(*inputs: Any) -> Any:
        own, layer.training = layer.training, any(child.training for child in layer.children())
        try:
            return run(*inputs)
        finally:
            layer.training = own

    return recompute(as_children, *inputs)
