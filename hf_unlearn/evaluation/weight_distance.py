"""How far apart two models' weights are, layer by layer."""

from dataclasses import dataclass

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.models import lora
from hf_unlearn.tasks.forward import without_wrappers


@dataclass(frozen=True)
class WeightDistance:
    """‖θ_a − θ_b‖ / ‖θ_b‖, Euclidean.

    Args:
        total: over all weights together.
        layers: by layer, in the model's order. `None` where the layer of b is all zeros and that of a is not.
    """

    total: float | None
    layers: dict[str, float | None]


@torch.no_grad()
def weight_distance(a: torch.nn.Module, b: torch.nn.Module) -> WeightDistance:
    """Relative distance of the weights of `a` from those of `b`, in all and layer by layer (Tarun et al. 2023).

    A layer is a module with weights of its own: `vit.layers.0.attention.q_proj`, say, weight and bias together.
    Weights that are shared count once; buffers do not. An adapter is merged into a copy first, so that the effective
    weights are compared. Neither model is changed.

    Retrained models lie far from the original, and from each other: the figure means something only beside theirs.

    Raises:
        `UserError`: the models do not have the same layers.
    """
    ours, theirs = _weights(a), _weights(b)
    if {name: v.shape for name, v in ours.items()} != {name: v.shape for name, v in theirs.items()}:
        raise UserError("weight distance: the two models do not have the same layers; compare models of one kind")
    apart: dict[str, float] = {}
    size: dict[str, float] = {}
    for name, value in theirs.items():
        layer = name.rpartition(".")[0]
        theirs_wide = value.detach().double().cpu()
        difference = ours[name].detach().double().cpu() - theirs_wide
        apart[layer] = apart.get(layer, 0.0) + float(difference.square().sum())
        size[layer] = size.get(layer, 0.0) + float(theirs_wide.square().sum())
    layers = {layer: _ratio(apart[layer], size[layer]) for layer in apart}
    return WeightDistance(_ratio(sum(apart.values()), sum(size.values())), layers)


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model = without_wrappers(model)
    if lora.is_peft(model):
        model = lora.merge(model)
    return dict(model.named_parameters())


def _ratio(difference: float, size: float) -> float | None:
    if size == 0:
        return 0.0 if difference == 0 else None
    return (difference / size) ** 0.5
