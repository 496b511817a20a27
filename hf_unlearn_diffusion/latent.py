"""A latent text-to-image model in the form that Trainers know: noise is put on what a VAE makes of images."""

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from hf_unlearn_diffusion.denoiser import Denoiser
from hf_unlearn_diffusion.latent_config import LatentDenoiserConfig
from hf_unlearn_diffusion.predictions import Noised


class LatentDenoiser(Denoiser):
    """The parts of a `StableDiffusionPipeline` (Rombach et al. 2022, arXiv 2112.10752): a VAE, a text encoder, and a
    `UNet2DConditionModel`, with the schedule of its noise.

    A row's latents are the mean of the VAE's encoding, scaled as its configuration says. Unlearning trains the
    network alone. A model from scratch also trains text encoder and VAE, the latter by reconstruction.

    Args:
        config: of all parts.
        parts: `vae`, `text_encoder`, `unet` and `sampler`, a scheduler, as they were read; without them they are made,
            with fresh weights.
    """

    config_class = LatentDenoiserConfig
    base_model_prefix = ""
    lora_targets = tuple(
        f"{attention}.{layer}" for attention in ("attn1", "attn2") for layer in ("to_q", "to_k", "to_v", "to_out.0")
    )

    def __init__(self, config: LatentDenoiserConfig, parts: dict[str, Any] | None = None):
        super().__init__(config)
        self.vae = parts["vae"] if parts else AutoencoderKL(**config.vae_values())
        self.text_encoder = parts["text_encoder"] if parts else CLIPTextModel(CLIPTextConfig(**config.text_values()))
        self.unet = parts["unet"] if parts else UNet2DConditionModel(**config.unet_values())
        self.scheduler = DDPMScheduler(**config.noise_values())
        self.sampler = parts["sampler"] if parts else DDIMScheduler.from_config(self.scheduler.config, steps_offset=1)
        self.empty_prompt: torch.Tensor | None = None
        if parts is None:
            self.post_init()

    @property
    def no_condition(self) -> torch.Tensor | None:
        """The tokens of the empty prompt, `(tokens,)`, which the task settles ([`TextToImage.prepare_model`])."""
        return self.empty_prompt

    def train_network_alone(self) -> None:
        """From now on VAE and text encoder stay as they are."""
        self.vae.requires_grad_(False)
        self.text_encoder.requires_grad_(False)

    def encoded(self, pixel_values: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found = self.vae.encode(pixel_values.to(self.vae.dtype)).latent_dist.mode()
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return (found - shift) * self.vae.config.scaling_factor

    def conditions(self, labels: torch.Tensor | None, input_ids: torch.Tensor | None) -> torch.Tensor | None:
        return input_ids

    def denoise(self, shown: Noised) -> torch.Tensor:
        words = self.text_encoder(shown.conditions).last_hidden_state
        return self.unet(
            shown.images.to(self.unet.dtype), shown.timesteps, encoder_hidden_states=words.to(self.unet.dtype)
        ).sample

    def further_loss(self, pixel_values: torch.Tensor) -> torch.Tensor | None:
        """Of a VAE that is trained: mean squared error of the images that it gives back, and the KL divergence of its
        latents from normal ones, both means over their values."""
        if not (self.training and next(self.vae.parameters()).requires_grad):
            return None
        spread = self.vae.encode(pixel_values).latent_dist
        back = self.vae.decode(spread.sample()).sample
        divergence = (spread.mean.square() + spread.var - 1 - spread.logvar).mean() / 2
        return (back - pixel_values).square().mean() + self.config.kl_weight * divergence
