"""SalUn with a soft threshold: no mask beforehand; each step pulls back what has moved least."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from hf_unlearn.errors import UserError
from hf_unlearn.saliency.measure import trainable
from hf_unlearn.saliency.selection import as_float, kth_largest
from hf_unlearn.saliency.shards import Shards, local, rewrap, shards_of, spread, whole

PREFIX = "soft_threshold/"  # of the tensors among those of a checkpoint


@torch.no_grad()
def soft_threshold_(
    parameters: Mapping[str, torch.Tensor], reference: Mapping[str, torch.Tensor], ratio: float
) -> float:
    """θ ← θ₀ + sign(θ − θ₀)·max(|θ − θ₀| − t, 0) in place, t being the `ratio`-quantile of |θ − θ₀| over all weights.

    At least that part of the weights is θ₀ again afterwards, bit for bit. Extra memory is that of the largest tensor.

    Args:
        parameters: θ, by name.
        reference: θ₀, this process's part of each.
        ratio: in [0, 1]; 0 changes nothing.

    Returns:
        `float`: t.

    Raises:
        `UserError`: a weight is not finite.
    """

    def distances() -> Iterator[tuple[torch.Tensor, Shards]]:
        for name, parameter in parameters.items():
            distance = local(parameter).float() - reference[name].float()
            yield distance.abs_().reshape(-1), shards_of(parameter, name=name)

    total = sum(parameter.numel() for parameter in parameters.values())
    pulled_back = int(ratio * total + 0.5)
    if not pulled_back:
        return 0.0
    bits, _, _ = kth_largest(distances, total - pulled_back + 1)
    threshold = as_float(bits)
    for name, parameter in parameters.items():
        here, start = local(parameter), reference[name]
        distance = here.float() - start.float()
        still = distance.abs() <= threshold
        shrunk = here.float() - distance.sign_().mul_(threshold)
        here.copy_(torch.where(still, start, shrunk.to(here.dtype)))
    return threshold


class SoftThreshold:
    """[`soft_threshold_`] after every step, with a ratio that falls linearly from `ratio` to about 0.

    It keeps a copy of θ₀, which a checkpoint must hold too ([`to_tensors`]).

    Args:
        model: the original; its trainable parameters are taken.
        ratio: in (0, 1], the part of the weights that the first step pulls back.
        total_steps: optimizer steps of the whole run.

    Raises `UserError` for a ratio outside (0, 1].
    """

    def __init__(self, model: nn.Module, ratio: float, total_steps: int):
        if not 0 < ratio <= 1:
            raise UserError(f"the soft threshold's ratio must lie in (0, 1], not {ratio}")
        self.ratio, self.total_steps = ratio, total_steps
        self.parameters = trainable(model)
        self.reference = {name: local(parameter).clone() for name, parameter in self.parameters.items()}

    def ratio_at(self, step: int) -> float:
        """The ratio of step 0, 1, …, `total_steps` − 1."""
        return self.ratio * max(0.0, 1 - step / self.total_steps)

    def apply(self, step: int) -> float:
        """Call it after the optimizer's step number `step`, counted from 0. Returns the threshold."""
        return soft_threshold_(self.parameters, self.reference, self.ratio_at(step))

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """θ₀ for a checkpoint, whole. With DTensors all processes must call this."""
        return {
            f"{PREFIX}{name}": whole(rewrap(value, self.parameters[name])) for name, value in self.reference.items()
        }

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take θ₀ from a checkpoint. Raises `UserError` if it does not hold that of this model."""
        for name, value in self.reference.items():
            stored, parameter = tensors.get(f"{PREFIX}{name}"), self.parameters[name]
            if stored is None or stored.shape != parameter.shape:
                raise UserError("the checkpoint does not hold this model's original weights: start the run anew")
            value.copy_(local(spread(stored, parameter)))
