"""What a latent text-to-image model is made of: VAE, text encoder, network, and the noise that it was trained with."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

LETTERS = 514  # tokens of the alphabet of bytes, twice (inside a word and at its end), and start and end
PROMPT = 32  # tokens of a prompt
WIDTHS = (320, 640, 1280, 1280)  # of a `UNet2DConditionModel` that is told nothing else


class LatentDenoiserConfig(PreTrainedConfig):
    """Configuration of a [`LatentDenoiser`]: values of `AutoencoderKL`, `CLIPTextConfig`, `UNet2DConditionModel` and
    `DDPMScheduler`.

    Args:
        sample_size: side of the images in pixels.
        in_channels: colours, 1 or 3.
        condition_dropout: share of the rows of a training step that are shown the empty prompt, so that sampling can
            be guided (classifier-free guidance, arXiv 2207.12598).
        kl_weight: of a model from scratch, weight of the VAE's KL divergence beside its reconstruction error.
        vae, text_encoder, unet, noise: values of the parts. From scratch what sizes must agree in is filled in.
    """

    model_type = "latent_text_to_image"

    sample_size: int = 32
    in_channels: int = 3
    condition_dropout: float = 0.1
    kl_weight: float = 1e-3
    vae: dict[str, Any] | None = None
    text_encoder: dict[str, Any] | None = None
    unet: dict[str, Any] | None = None
    noise: dict[str, Any] | None = None

    def vae_values(self) -> dict[str, Any]:
        """Arguments of `AutoencoderKL`. From scratch latents are about normal, and nothing scales them."""
        given = dict(self.vae or {})
        if "down_block_types" not in given:
            blocks = len(given.get("block_out_channels", (1,)))
            given |= {
                "down_block_types": ["DownEncoderBlock2D"] * blocks,
                "up_block_types": ["UpDecoderBlock2D"] * blocks,
            }
        sizes = {"in_channels": self.in_channels, "out_channels": self.in_channels, "sample_size": self.sample_size}
        return {"scaling_factor": 1.0} | sizes | given

    def text_values(self) -> dict[str, Any]:
        """Arguments of `CLIPTextConfig`."""
        ends = {"bos_token_id": LETTERS - 2, "eos_token_id": LETTERS - 1, "pad_token_id": LETTERS - 1}
        return {"vocab_size": LETTERS, "max_position_embeddings": PROMPT} | ends | dict(self.text_encoder or {})

    def unet_values(self) -> dict[str, Any]:
        """Arguments of `UNet2DConditionModel`."""
        vae = self.vae_values()
        latents, halvings = vae.get("latent_channels", 4), len(vae["down_block_types"]) - 1
        sizes = {
            "sample_size": self.sample_size // 2**halvings,
            "in_channels": latents,
            "out_channels": latents,
            "cross_attention_dim": self.text_values().get("hidden_size", 512),
        }
        return sizes | dict(self.unet or {})

    @property
    def hidden_sizes(self) -> list[int]:
        """Widths of the network's stages, which the default learning rate goes by."""
        return list(self.unet_values().get("block_out_channels", WIDTHS))

    def get_text_config(self, *args: Any, **kwargs: Any) -> "LatentDenoiserConfig":
        """Itself: what is trained is the network, and not the text encoder that others would find here."""
        return self

    def noise_values(self) -> dict[str, Any]:
        """Arguments of `DDPMScheduler`."""
        return {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False} | dict(self.noise or {})


AutoConfig.register(LatentDenoiserConfig.model_type, LatentDenoiserConfig, exist_ok=True)
