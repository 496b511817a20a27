"""What a pixel denoiser is made of: its network, the noise that it was trained with, and its classes."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

OF_NETWORK = (  # of the arguments of `UNet2DModel`, those that a recipe may set
    "sample_size",
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "down_block_types",
    "up_block_types",
    "attention_head_dim",
    "norm_num_groups",
    "dropout",
)
OF_NOISE = ("num_train_timesteps", "beta_schedule", "prediction_type")  # of `DDPMScheduler`


class PixelDenoiserConfig(PreTrainedConfig):
    """Configuration of a [`PixelDenoiser`]: values of `UNet2DModel` and of `DDPMScheduler`, and the classes.

    Args:
        sample_size: side of the images in pixels.
        in_channels, out_channels: colours; both 1 or 3.
        num_train_timesteps, beta_schedule, prediction_type: of the noise.
        condition_dropout: share of the rows of a training step that are shown without their class, so that sampling
            can be guided (classifier-free guidance, arXiv 2207.12598). Their class is one more, after the others.
        unet, noise: of a model that was loaded, everything that its two configurations say; they come first.
    """

    model_type = "unet2d"
    attribute_map = {"hidden_sizes": "block_out_channels"}

    sample_size: int | list[int] | tuple[int, ...] = 32
    in_channels: int = 3
    out_channels: int | None = None
    block_out_channels: list[int] | tuple[int, ...] = (64, 128, 128)
    layers_per_block: int = 2
    down_block_types: list[str] | tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    up_block_types: list[str] | tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    attention_head_dim: int = 8
    norm_num_groups: int = 8
    dropout: float = 0.0
    num_train_timesteps: int = 1000
    beta_schedule: str = "squaredcos_cap_v2"
    prediction_type: str = "epsilon"
    condition_dropout: float = 0.1
    unet: dict[str, Any] | None = None
    noise: dict[str, Any] | None = None

    def network_values(self) -> dict[str, Any]:
        """Arguments of `UNet2DModel`."""
        if self.unet is not None:
            return dict(self.unet)
        values = {name: getattr(self, name) for name in OF_NETWORK}
        values["out_channels"] = self.out_channels or self.in_channels
        return values | {"num_class_embeds": int(self.num_labels or 0) + (self.condition_dropout > 0)}

    def noise_values(self) -> dict[str, Any]:
        """Arguments of `DDPMScheduler`."""
        return dict(self.noise) if self.noise is not None else {name: getattr(self, name) for name in OF_NOISE}


class UnconditionalDenoiserConfig(PixelDenoiserConfig):
    """Configuration of an [`UnconditionalDenoiser`]: that of a [`PixelDenoiser`], without classes.

    Args:
        condition_dropout: 0, since nothing is shown beside an image.
    """

    model_type = "unet2d_unconditional"

    condition_dropout: float = 0.0

    def network_values(self) -> dict[str, Any]:
        return super().network_values() | {"num_class_embeds": None}


AutoConfig.register(UnconditionalDenoiserConfig.model_type, UnconditionalDenoiserConfig, exist_ok=True)
AutoConfig.register(PixelDenoiserConfig.model_type, PixelDenoiserConfig, exist_ok=True)
