"""What all denoisers share: noise is put on images, or on their latents, and predicted."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from hf_unlearn.tasks.row_chunks import wide_type
from hf_unlearn_diffusion.predictions import Noised


@dataclass
class Denoised(ModelOutput):
    """What a denoiser returns.

    Args:
        loss: scalar, the mean squared error of the noise, and what else a model from scratch has to learn.
        sample: `(rows, channels, height, width)`, what the network said.
        wanted: the same, what it should have said: the noise, or the velocity.
        noised: what it was shown.
    """

    loss: torch.Tensor | None = None
    sample: torch.Tensor | None = None
    wanted: torch.Tensor | None = None
    noised: Any = None


class Denoiser(PreTrainedModel):
    """A network of `diffusers` (`unet`) and the schedule of its noise (`scheduler`, a `DDPMScheduler`)."""

    main_input_name = "pixel_values"
    unet: Any
    scheduler: Any

    @property
    def no_condition(self) -> torch.Tensor | None:
        """The condition that stands for none, shaped as a row's; `None` for a network that always takes one."""
        raise NotImplementedError

    @property
    def steps(self) -> int:
        """Steps of the noise schedule."""
        return self.scheduler.config.num_train_timesteps

    def encoded(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What noise is put on: of images `(rows, channels, height, width)` in [-1, 1] these, or latents."""
        raise NotImplementedError

    def denoise(self, shown: Noised) -> torch.Tensor:
        """ε_θ(x_t, t, c), or v_θ, as the schedule's `prediction_type` says: as `shown.images`."""
        raise NotImplementedError

    def conditions(self, labels: torch.Tensor | None, input_ids: torch.Tensor | None) -> torch.Tensor | None:
        """c of each row: its class `(rows,)` or its prompt's tokens `(rows, tokens)`, as the model reads it."""
        raise NotImplementedError

    def further_loss(self, pixel_values: torch.Tensor) -> torch.Tensor | None:
        """Of images what a model from scratch has to learn beside the noise, a scalar."""
        return None

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        timesteps: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        seed: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        is_encoded: bool = False,
    ) -> Denoised:
        """Put noise on images and predict it.

        Args:
            pixel_values: `(rows, channels, height, width)` in [-1, 1].
            labels: `(rows,)`, their classes.
            timesteps, noise: `(rows,)` and as what noise is put on. Without them both are drawn from the global
                generator, as in training, and so is which rows are shown without their condition.
            seed: of a row's own draws; not read here.
            input_ids: `(rows, tokens)`, their prompts.
            is_encoded: `pixel_values` are what [`encoded`] returned.
        """
        pixel_values = pixel_values.to(torch.promote_types(pixel_values.dtype, self.unet.dtype))
        clean = pixel_values if is_encoded else self.encoded(pixel_values)
        conditions = self.conditions(labels, input_ids)
        if timesteps is None:
            timesteps = torch.randint(0, self.steps, (len(clean),), device=clean.device)
            conditions = self._some_dropped(conditions)
        if noise is None:
            noise = torch.randn_like(clean)
        noise = noise.to(clean)
        images = self.scheduler.add_noise(clean, noise, timesteps)
        if conditions is None:
            conditions = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        shown = Noised(images, timesteps, conditions)
        said = self.denoise(shown)
        wanted = self._wanted(clean, noise, timesteps)
        loss = (said.to(wide_type(said)) - wanted).square().mean()
        further = None if is_encoded else self.further_loss(pixel_values)
        loss = loss if further is None else loss + further
        return Denoised(loss=loss, sample=said, wanted=wanted, noised=shown)

    def _some_dropped(self, conditions: torch.Tensor | None) -> torch.Tensor | None:
        if conditions is None or self.no_condition is None:
            return conditions
        dropped = torch.rand(len(conditions), device=conditions.device) < self.config.condition_dropout
        dropped = dropped.view(-1, *(1 for _ in conditions.shape[1:]))
        return torch.where(dropped, self.no_condition.to(conditions.device), conditions)

    def _wanted(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        if self.scheduler.config.prediction_type == "v_prediction":
            return self.scheduler.get_velocity(clean, noise, timesteps)
        return noise

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the parts of `diffusers` are initialised where they are made."""
