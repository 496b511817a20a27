"""DeepSpeed's ZeRO spreads a model at the start of a training; before it and after it every process has all of it."""

from typing import Any

from torch import nn
from transformers.integrations.deepspeed import unset_hf_deepspeed_config


def load_whole() -> None:
    """Have models loaded whole from now on, under ZeRO-3 too: what is measured before the first step needs that.

    `transformers` spreads them at loading from the moment that training arguments, or a trainer, are made.
    """
    unset_hf_deepspeed_config()


def make_whole(model: nn.Module, engine: Any) -> None:
    """Give a trained model plain parameters of its own back, and take the engine's hooks off it.

    Every process must call this: each has all weights afterwards.

    Args:
        model: the module inside the engine.
        engine (`deepspeed.DeepSpeedEngine`): not to be used afterwards.
    """
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    plain = {}
    for parameter in model.parameters():
        value = parameter
        if hasattr(parameter, "ds_id"):
            with GatheredParameters([parameter]):
                value = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
        elif parameter.requires_grad:  # it is a part of one long tensor of the engine's
            value = nn.Parameter(parameter.detach().clone())
        plain[id(parameter)] = value
    engine.destroy()
    for module in model.modules():  # under ZeRO-3 its parameters lie in a dict of DeepSpeed's
        module._parameters = {name: None if p is None else plain[id(p)] for name, p in module._parameters.items()}
