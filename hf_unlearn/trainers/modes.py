"""Train and eval mode, for unlearning."""

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

_BATCH_NORM = torch.nn.modules.batchnorm._BatchNorm


def has_batch_norm(model: torch.nn.Module) -> bool:
    """Whether an example's output in train mode depends on the others in its batch."""
    return any(isinstance(module, _BATCH_NORM) for module in model.modules())


def set_training_mode(model: torch.nn.Module, disable_dropout: bool) -> None:
    """Train mode, or eval mode for training without dropout and with BatchNorm statistics frozen.

    Layers that recompute their activations only do so in train mode, so those alone stay in it; their children do not.
    """
    if not disable_dropout:
        model.train()
        return
    model.eval()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
            module.training = True
