"""Folders of `StableDiffusionPipeline`, of versions 1.x and 2.x: read part by part, and written as a whole."""

import os
from pathlib import Path
from typing import Any

from hf_unlearn.errors import UserError
from hf_unlearn_diffusion.folders import hub_options, read_training, schedule_of_training, write_training
from hf_unlearn_diffusion.latent_config import LatentDenoiserConfig

PIPELINE = "StableDiffusionPipeline"
PARTS = {
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
    "unet": "UNet2DConditionModel",
    "scheduler": None,
}
FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)


def read_index(name: str, **options: Any) -> dict[str, Any]:
    """`model_index.json` of a pipeline in a folder or on the Hub.

    Raises `UserError` for a pipeline of another class, and for one that lacks a part or has another in its place.
    """
    from diffusers import DiffusionPipeline

    index = dict(DiffusionPipeline.load_config(name, **hub_options(options)))
    kind = index.get("_class_name")
    if kind != PIPELINE:
        kind = kind[-1] if isinstance(kind, list) else kind
        own = "; models that draw by class are the task image_generation" if kind == "ClassConditionalPipeline" else ""
        raise UserError(f"{name} is a {kind}; text_to_image takes a {PIPELINE}{own}")
    for part, wanted in PARTS.items():
        found = (index.get(part) or [None, None])[1]
        if found is None or (Path(name).is_dir() and not (Path(name) / part).is_dir()):
            raise UserError(f"{name} has no {part}: save the whole pipeline, which is {', '.join(PARTS)}")
        if wanted is not None and found.removesuffix("Fast") != wanted:
            raise UserError(f"the {part} of {name} is a {found}; text_to_image takes a {wanted}")
    return index


def read_config(name: str, **options: Any) -> LatentDenoiserConfig:
    """The configuration of a pipeline, without weights. Raises `UserError` as [`read_index`] does."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig

    read_index(name, **options)
    hub = hub_options(options)

    def values(kind: Any, part: str) -> dict[str, Any]:
        found = dict(kind.load_config(name, subfolder=part, **hub))
        return {key: value for key, value in found.items() if not key.startswith("_")}

    vae, unet = values(AutoencoderKL, "vae"), values(UNet2DConditionModel, "unet")
    noise = schedule_of_training(values(DDPMScheduler, "scheduler"))
    if noise.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction"):
        raise UserError(f"the schedule's prediction_type is {noise['prediction_type']}; epsilon or v_prediction is")
    latents = vae.get("latent_channels", 4)
    if unet["in_channels"] != latents:
        raise UserError(
            f"the unet of {name} reads {unet['in_channels']} channels and its vae gives {latents}: models that paint "
            "over or enlarge images are none for text_to_image"
        )
    halvings = len(vae["block_out_channels"]) - 1
    return LatentDenoiserConfig(
        sample_size=unet["sample_size"] * 2**halvings,
        in_channels=vae["in_channels"],
        vae=vae,
        text_encoder=CLIPTextConfig.from_pretrained(name, subfolder="text_encoder", **hub).to_dict(),
        unet=unet,
        noise=noise,
        **read_training(name),
    )


def read_tokenizer(name: str, **options: Any) -> Any:
    """The pipeline's tokenizer. Raises `UserError` where there is none."""
    from transformers import CLIPTokenizer

    read_index(name, **options)
    return CLIPTokenizer.from_pretrained(name, subfolder="tokenizer", **hub_options(options))


def read_model(name: str, *, dtype: Any = None, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A [`LatentDenoiser`] with its weights, of which the network alone is trained, and what of that did not fit, as
    `from_pretrained` of `diffusers` tells it."""
    import diffusers
    import torch
    from transformers import CLIPTextModel

    from hf_unlearn_diffusion.latent import LatentDenoiser

    config, index, hub = read_config(name, **options), read_index(name, **options), hub_options(options)
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    more = {"torch_dtype": kind, "use_safetensors": True, **hub}
    unet, info = diffusers.UNet2DConditionModel.from_pretrained(
        name, subfolder="unet", output_loading_info=True, **more
    )
    sampler = getattr(diffusers, index["scheduler"][1], diffusers.DDIMScheduler)
    parts = {
        "vae": diffusers.AutoencoderKL.from_pretrained(name, subfolder="vae", **more),
        "text_encoder": CLIPTextModel.from_pretrained(
            name, subfolder="text_encoder", dtype=kind, use_safetensors=True, **hub
        ),
        "unet": unet,
        "sampler": sampler.from_pretrained(name, subfolder="scheduler", **hub),
    }
    model = LatentDenoiser(config, parts)
    model.train_network_alone()
    model.eval()
    config._name_or_path = str(name)
    return model, {key: list(info.get(key) or []) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}


def pipeline_of(model: Any, tokenizer: Any, sampler: Any = None) -> Any:
    """The `StableDiffusionPipeline` of a [`LatentDenoiser`]; it has no safety checker."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=sampler or model.sampler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def write_pipeline(model: Any, tokenizer: Any, folder: str | os.PathLike) -> None:
    """The whole pipeline, as [`FILES`] says."""
    pipeline_of(model, tokenizer).save_pretrained(folder, safe_serialization=True)
    write_training(model.config, folder)
