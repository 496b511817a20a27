"""A tiny latent text-to-image model, and a pipeline's folder of either layout, for tests of `hf_unlearn_diffusion`."""

import torch
from toy import ROLES, image_rows, splits_of

from hf_unlearn_diffusion.latent import LatentDenoiser
from hf_unlearn_diffusion.latent_config import LatentDenoiserConfig
from hf_unlearn_diffusion.text_to_image import TextToImage

NAMES = ["zero", "one", "two", "three"]
PARTS = {
    "sample_size": 8, "in_channels": 1,
    "vae": {"block_out_channels": [4, 4], "latent_channels": 4, "norm_num_groups": 2},
    "text_encoder": {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                     "max_position_embeddings": 20},
    "unet": {"block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4,
             "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
             "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]},
}  # fmt: skip
SECOND = {  # what version 2.x has otherwise
    "unet": PARTS["unet"] | {"use_linear_projection": True, "attention_head_dim": [2, 4]},
    "text_encoder": PARTS["text_encoder"] | {"hidden_act": "gelu", "projection_dim": 8},
    "noise": {"prediction_type": "v_prediction"},
}


def latent_denoiser(dtype=torch.float32, seed: int = 0, **values) -> LatentDenoiser:
    torch.manual_seed(seed)
    return LatentDenoiser(LatentDenoiserConfig(**PARTS | values)).to(dtype)


def latent_setup(dtype=torch.float32, roles: dict[str, int] | None = None, template="a drawn {label}", **values):
    """Model, splits and task."""
    model = latent_denoiser(dtype, **values)
    columns = {"image": "image", "label": "label"}
    task = TextToImage(TextToImage.processor_for(PARTS | values), columns, NAMES, prompt_template=template)
    task.prepare_model(model)
    return model, splits_of(image_rows(sum((roles or ROLES).values())), task, roles), task
