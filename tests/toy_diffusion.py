"""A tiny denoiser of noise images in four classes, for the tests of `hf_unlearn_diffusion`."""

import torch
from toy import ROLES, image_rows, splits_of

from hf_unlearn_diffusion.config import PixelDenoiserConfig
from hf_unlearn_diffusion.model import PixelDenoiser
from hf_unlearn_diffusion.task import ImageGeneration

NAMES = ["zero", "one", "two", "three"]
NETWORK = {
    "sample_size": 8, "in_channels": 1, "block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4,
    "attention_head_dim": 4, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip


def denoiser(dtype=torch.float32, seed: int = 0, **values) -> PixelDenoiser:
    torch.manual_seed(seed)
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    return PixelDenoiser(PixelDenoiserConfig(**NETWORK | names | values)).to(dtype)


def denoising_setup(dtype=torch.float32, roles: dict[str, int] | None = None, **values):
    """Model, splits and task."""
    model = denoiser(dtype, **values)
    processor = ImageGeneration.processor_for(NETWORK)
    task = ImageGeneration(processor, {"image": "image", "label": "label"}, label_names=NAMES)
    task.prepare_model(model)
    source = image_rows(sum((roles or ROLES).values()))
    return model, splits_of(source, task, roles), task
