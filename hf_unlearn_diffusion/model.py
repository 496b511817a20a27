"""A denoiser of pixels with its noise schedule in the form that Trainers know: a `PreTrainedModel`."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from hf_unlearn.tasks.row_chunks import wide_type
from hf_unlearn_diffusion.config import PixelDenoiserConfig
from hf_unlearn_diffusion.predictions import Noised


@dataclass
class Denoised(ModelOutput):
    """What a denoiser returns.

    Args:
        loss: scalar, the mean squared error of the noise.
        sample: `(rows, channels, height, width)`, what the network said.
        wanted: the same, what it should have said: the noise, or the velocity.
        noised: what it was shown.
    """

    loss: torch.Tensor | None = None
    sample: torch.Tensor | None = None
    wanted: torch.Tensor | None = None
    noised: Any = None


class PixelDenoiser(PreTrainedModel):
    """A `UNet2DModel` of `diffusers`, which may be conditioned on a class, and the schedule of its noise.

    On disk it is a folder of `diffusers` (`hf_unlearn_diffusion.folders`); this form exists in memory, and in
    checkpoints.
    """

    config_class = PixelDenoiserConfig
    base_model_prefix = "unet"
    main_input_name = "pixel_values"
    lora_targets = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "to_q", "to_k", "to_v", "to_out.0")

    def __init__(self, config: PixelDenoiserConfig):
        super().__init__(config)
        self.unet = UNet2DModel(**config.network_values())
        self.scheduler = DDPMScheduler(**config.noise_values())
        self.post_init()

    @property
    def no_condition(self) -> int | None:
        """The id that stands for no class; `None` for a network that always takes one."""
        classes = self.unet.config.num_class_embeds
        return classes - 1 if classes and classes > self.config.num_labels else None

    @property
    def steps(self) -> int:
        """Steps of the noise schedule."""
        return self.scheduler.config.num_train_timesteps

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        timesteps: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        seed: torch.Tensor | None = None,
    ) -> Denoised:
        """Put noise on images and predict it.

        Args:
            pixel_values: `(rows, channels, height, width)` in [-1, 1].
            labels: `(rows,)`, their classes.
            timesteps, noise: `(rows,)` and as `pixel_values`. Without them both are drawn from the global generator,
                as in training, and so is which rows are shown without their class.
            seed: of a row's own draws; not read here.
        """
        pixel_values = pixel_values.to(torch.promote_types(pixel_values.dtype, self.unet.dtype))
        conditions = labels
        if timesteps is None:
            timesteps = torch.randint(0, self.steps, (len(pixel_values),), device=pixel_values.device)
            conditions = self._some_dropped(labels)
        if noise is None:
            noise = torch.randn_like(pixel_values)
        noise = noise.to(pixel_values)
        images = self.scheduler.add_noise(pixel_values, noise, timesteps)
        if conditions is None:
            conditions = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        shown = Noised(images, timesteps, conditions)
        said = self.denoise(shown)
        wanted = self._wanted(pixel_values, noise, timesteps)
        loss = (said.to(wide_type(said)) - wanted).square().mean()
        return Denoised(loss=loss, sample=said, wanted=wanted, noised=shown)

    def denoise(self, shown: Noised) -> torch.Tensor:
        """ε_θ(x_t, t, c), or v_θ, as the schedule's `prediction_type` says: as `shown.images`."""
        classes = {"class_labels": shown.conditions} if self.unet.config.num_class_embeds else {}
        return self.unet(shown.images.to(self.unet.dtype), shown.timesteps, **classes).sample

    def _some_dropped(self, labels: torch.Tensor | None) -> torch.Tensor | None:
        if labels is None or self.no_condition is None:
            return labels
        dropped = torch.rand(len(labels), device=labels.device) < self.config.condition_dropout
        return labels.masked_fill(dropped, self.no_condition)

    def _wanted(self, images: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        if self.scheduler.config.prediction_type == "v_prediction":
            return self.scheduler.get_velocity(images, noise, timesteps)
        return noise

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the parts of `diffusers` are initialised where they are made."""
