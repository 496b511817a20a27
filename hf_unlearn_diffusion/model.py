"""A denoiser of pixels with its noise schedule in the form that Trainers know: a `PreTrainedModel`."""

import torch
from diffusers import DDPMScheduler, UNet2DModel

from hf_unlearn_diffusion.config import PixelDenoiserConfig, UnconditionalDenoiserConfig
from hf_unlearn_diffusion.denoiser import Denoiser
from hf_unlearn_diffusion.predictions import Noised


class PixelDenoiser(Denoiser):
    """A `UNet2DModel` of `diffusers`, which may be conditioned on a class, and the schedule of its noise.

    On disk it is a folder of `diffusers` (`hf_unlearn_diffusion.folders`); this form exists in memory, and in
    checkpoints.
    """

    config_class = PixelDenoiserConfig
    base_model_prefix = "unet"
    lora_targets = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "to_q", "to_k", "to_v", "to_out.0")

    def __init__(self, config: PixelDenoiserConfig):
        super().__init__(config)
        self.unet = UNet2DModel(**config.network_values())
        self.scheduler = DDPMScheduler(**config.noise_values())
        self.post_init()

    @property
    def no_condition(self) -> torch.Tensor | None:
        """The id that stands for no class; `None` for a network that always takes one."""
        classes = self.unet.config.num_class_embeds
        return torch.tensor(classes - 1) if classes and classes > self.config.num_labels else None

    def encoded(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return pixel_values

    def conditions(self, labels: torch.Tensor | None, input_ids: torch.Tensor | None) -> torch.Tensor | None:
        return labels

    def denoise(self, shown: Noised) -> torch.Tensor:
        classes = {"class_labels": shown.conditions} if self.unet.config.num_class_embeds else {}
        return self.unet(shown.images.to(self.unet.dtype), shown.timesteps, **classes).sample


class UnconditionalDenoiser(PixelDenoiser):
    """The same without classes: images are drawn for nothing in particular."""

    config_class = UnconditionalDenoiserConfig
