"""Folders of `diffusers`: a denoiser is read from one, and written as a whole pipeline."""

import json
import os
from pathlib import Path
from typing import Any

from hf_unlearn.errors import UserError
from hf_unlearn_diffusion.config import PixelDenoiserConfig, UnconditionalDenoiserConfig

PIPELINES = ("ClassConditionalPipeline", "DDPMPipeline", "DDIMPipeline")
BY_CLASS, WITHOUT = "image_generation", "unconditional_image_generation"  # the tasks of such models
FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
)
TRAINING = "training.json"  # what `diffusers` has no place for; it stays on this machine, and is the default elsewhere
OF_TRAINING = ("condition_dropout",)
_HUB = ("revision", "token", "cache_dir", "local_files_only")


def hub_options(options: dict[str, Any]) -> dict[str, Any]:
    """Of keyword arguments those that say where on the Hub a model lies."""
    return {name: value for name, value in options.items() if name in _HUB and value is not None}


def read_training(name: str) -> dict[str, Any]:
    """What a folder that [`write_training`] wrote says of how its model is trained; nothing of others."""
    path = Path(name) / TRAINING
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {key: found[key] for key in OF_TRAINING if key in found}


def write_training(config: Any, folder: str | os.PathLike) -> None:
    """Keep beside a pipeline what training goes on with, so that an original from the cache is what it was."""
    values = {key: getattr(config, key) for key in OF_TRAINING}
    (Path(folder) / TRAINING).write_text(json.dumps(values) + "\n", encoding="utf-8")


def read_config(name: str, task: str = BY_CLASS, **options: Any) -> PixelDenoiserConfig:
    """The configuration of a pipeline with a `UNet2DModel`, or of such a network alone, in a folder or on the Hub.

    Raises `UserError` for pipelines and networks of other kinds, and for one that the other of the two tasks serves.
    """
    from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel

    hub = hub_options(options)
    network: dict[str, Any] = {}
    if _is_network(name):
        index, where = {}, {}
    else:
        index, where = dict(DiffusionPipeline.load_config(name, **hub)), {"subfolder": "unet"}
        kind = index.get("_class_name")
        kind = kind[-1] if isinstance(kind, list) else kind
        if kind not in PIPELINES:
            own = "; it is for the task text_to_image" if kind == "StableDiffusionPipeline" else ""
            raise UserError(f"{name} is a {kind}; {task} takes {', '.join(PIPELINES)}, or a UNet2DModel{own}")
    network = dict(UNet2DModel.load_config(name, **where, **hub))
    if network.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise UserError(f"{name} holds a {network['_class_name']}; {task} takes models with a UNet2DModel")
    if not network.get("num_class_embeds") and task == BY_CLASS:
        raise UserError(f"{name} draws without classes (no num_class_embeds); it is for the task {WITHOUT}")
    if network.get("num_class_embeds") and task == WITHOUT:
        raise UserError(f"{name} draws by class (num_class_embeds); it is for the task {BY_CLASS}")
    noise = dict(DDPMScheduler.load_config(name, subfolder="scheduler", **hub)) if where else {}
    return _config(index, network, noise, read_training(name))


def _config(
    index: dict[str, Any], network: dict[str, Any], noise: dict[str, Any], training: dict[str, Any]
) -> PixelDenoiserConfig:
    names, classes = index.get("id2label"), network.get("num_class_embeds")
    kind = PixelDenoiserConfig if classes else UnconditionalDenoiserConfig
    labels: dict[str, Any] = {"num_labels": classes} if classes else {}
    if names and classes:
        names = {int(place): name for place, name in names.items()}
        labels = {"id2label": names, "label2id": {name: place for place, name in names.items()}}
    known = kind()
    shown = {name: network[name] for name in ("sample_size", "in_channels", "block_out_channels") if network.get(name)}
    if network.get("out_channels", known.in_channels) != network.get("in_channels", known.in_channels):
        raise UserError("the network says more than the noise (out_channels is not in_channels); no such model here")
    values = {name: value for name, value in network.items() if not name.startswith("_")}
    schedule = {name: value for name, value in noise.items() if not name.startswith("_")}
    if schedule.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction"):
        raise UserError(f"the schedule's prediction_type is {schedule['prediction_type']}; epsilon or v_prediction is")
    return kind(**shown, **labels, **training, unet=values, noise=schedule_of_training(schedule))


def schedule_of_training(values: dict[str, Any]) -> dict[str, Any]:
    """Of a scheduler's configuration what `DDPMScheduler` knows: how noise is put on images is the same for all."""
    import inspect

    from diffusers import DDPMScheduler

    known = inspect.signature(DDPMScheduler.__init__).parameters
    return {name: value for name, value in values.items() if name in known}


def read_model(name: str, task: str = BY_CLASS, *, dtype: Any = None, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A [`PixelDenoiser`] as [`read_config`] finds it, with its weights, and what did not fit, as `from_pretrained`
    of `diffusers` tells it."""
    import torch
    from diffusers import UNet2DModel

    from hf_unlearn_diffusion.model import PixelDenoiser, UnconditionalDenoiser

    config = read_config(name, task, **options)
    where = {} if _is_network(name) else {"subfolder": "unet"}
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    network, info = UNet2DModel.from_pretrained(
        name, **where, **hub_options(options), torch_dtype=kind, output_loading_info=True, use_safetensors=True
    )
    model = PixelDenoiser(config) if task == BY_CLASS else UnconditionalDenoiser(config)
    model.unet = network.train()
    model.eval()
    config._name_or_path = str(name)
    return model, {key: list(info.get(key) or []) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}


def write_pipeline(model: Any, folder: str | os.PathLike) -> None:
    """The whole pipeline: network, scheduler and classes, as [`FILES`] says; without classes that of `diffusers`."""
    from diffusers import DDIMPipeline, DDIMScheduler

    from hf_unlearn_diffusion.pipeline import ClassConditionalPipeline

    scheduler = DDIMScheduler.from_config(model.scheduler.config)
    if isinstance(model.config, UnconditionalDenoiserConfig):
        pipeline: Any = DDIMPipeline(model.unet, scheduler)
    else:
        pipeline = ClassConditionalPipeline(model.unet, scheduler, id2label=model.config.id2label)
    pipeline.save_pretrained(folder, safe_serialization=True)
    write_training(model.config, folder)


def _is_network(name: str) -> bool:
    """Whether a folder holds a network alone."""
    config = Path(name) / "config.json"
    if not config.is_file() or (Path(name) / "model_index.json").is_file():
        return False
    return "_class_name" in json.loads(config.read_text(encoding="utf-8"))
