"""Image generation: pixels are drawn for a class, by taking noise away step by step."""

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import PreTrainedConfig

from hf_unlearn.errors import UserError
from hf_unlearn.tasks.forward import unwrap, without_wrappers
from hf_unlearn.tasks.image_classification import ImageClassification
from hf_unlearn_diffusion.config import PixelDenoiserConfig
from hf_unlearn_diffusion.draws import fixed_draws, seed_of
from hf_unlearn_diffusion.predictions import DenoisingPredictions, Noised, is_without

UNLED = "Nothing leads the ascent: the loss may rise to τ and beyond while the class is still drawn, and others worse"
CORE_METHODS = ("fine_tune", "gradient_ascent", "nabla_tau", "neg_grad_plus", "ssd")  # need nothing but a loss


class ImageGeneration(ImageClassification):
    """Diffusion models of pixels with a class for each image: a `UNet2DModel` of `diffusers` and its schedule.

    A row's loss is the mean squared error of the noise. In training noise and timestep are drawn each time; a row is
    scored at timesteps and noises of its own, drawn from its content ([`fixed_draws`]), so that its score is no matter
    of luck, and two models are asked the same.
    """

    name: ClassVar[str] = "image_generation"
    auto_class: ClassVar[str] = "PixelDenoiser"
    pipeline_tag: ClassVar[str] = "unconditional-image-generation"
    accuracy_name: ClassVar[str] = "noise found"
    loss_unit: ClassVar[str] = "MSE"
    library_name: ClassVar[str] = "diffusers"
    needs: ClassVar[dict[str, str]] = {"diffusers": "hf_unlearn[diffusion]"}
    rows_of: ClassVar[str | None] = "image_classification"
    says_labels: ClassVar[bool] = False

    @classmethod
    def auto_model(cls):
        cls.check_installed()
        return Denoisers

    @classmethod
    def serves_class(cls, name: str) -> bool:
        return name == cls.auto_class

    @classmethod
    def load_config(cls, name_or_path: str, **hub_kwargs):
        cls.check_installed()
        from hf_unlearn_diffusion.folders import read_config

        return read_config(name_or_path, **hub_kwargs)

    @classmethod
    def load_processor(cls, name_or_path: str, **hub_kwargs):
        """The image processor beside a model; one that gives the network's size and channels, where there is none."""
        try:
            return super().load_processor(name_or_path, **hub_kwargs)
        except UserError:
            return cls.processor_for(cls.load_config(name_or_path, **hub_kwargs).to_dict())

    @classmethod
    def processor_for(cls, config: dict[str, Any]):
        """Scales images to the network's size and channels, values in [-1, 1]."""
        values = PixelDenoiserConfig().to_dict() | config
        size = {"image_size": values["sample_size"], "num_channels": values["in_channels"]}
        return super().processor_for(size)

    @classmethod
    def model_files(cls, folder: Path) -> list[str] | None:
        from hf_unlearn_diffusion.folders import FILES

        return list(FILES) if (folder / FILES[0]).is_file() else None

    @classmethod
    def usage(cls, model_id: str) -> str | None:
        return (
            "import torch\n\nfrom hf_unlearn_diffusion.pipeline import ClassConditionalPipeline\n\n"
            f'pipe = ClassConditionalPipeline.from_pretrained("{model_id}")\n'
            "classes = list(pipe.config.id2label.values())\n"
            "images = pipe(classes, generator=torch.Generator().manual_seed(0)).images"
        )

    def save_model(self, model: Any, folder: str | os.PathLike, **options: Any) -> None:
        """A pipeline of `diffusers`, and the image processor; an adapter as `peft` writes it."""
        from hf_unlearn_diffusion.folders import write_pipeline

        inner = without_wrappers(model)
        if hasattr(inner, "peft_config"):
            return super().save_model(inner, folder, **options)
        write_pipeline(inner, folder)
        self.processor.save_pretrained(folder)

    def asked_things(self, most: int, seed: int) -> Any:
        """[`Drawings`]: `most` images of each class."""
        from hf_unlearn_diffusion.drawings import Drawings

        return Drawings(self, most, seed)

    def check_method(self, method: type) -> None:
        name = getattr(method, "method", method.__name__)
        if name in CORE_METHODS or getattr(method, "reads_noise", False):
            return
        own = "diffusion_salun, diffusion_nabla_tau, concept_ablation, esd"
        raise UserError(
            f"`method` {name} asks how likely labels are, and a denoiser says nothing of that; for {self.name} there "
            f"are {own}, {', '.join(CORE_METHODS)}"
        )

    def advice(self, method: type, of_classes: bool) -> list[str]:
        if of_classes and getattr(method, "method", None) == "nabla_tau":
            return [f"{UNLED}: diffusion_nabla_tau is for whole classes."]
        return []

    def conditions_of(self, classes: torch.Tensor) -> torch.Tensor:
        """c of classes `(rows,)`, as the model reads it: here the class itself."""
        return classes

    def unless_without(self, other: torch.Tensor, conditions: torch.Tensor, model: Any) -> torch.Tensor:
        """`other` conditions, where `conditions` are not those of rows that are shown without one."""
        without = is_without(conditions, model.no_condition)
        return torch.where(without.view(-1, *(1 for _ in conditions.shape[1:])), conditions, other)

    def conditions_said(self, prompt: str) -> torch.Tensor:
        """c of a prompt. Raises `UserError` for models that read none."""
        raise UserError(f"`other_prompt` is for models that read prompts; those of {self.name} read a class")

    def draw(self, model: torch.nn.Module, classes: np.ndarray, generator: torch.Generator, steps: int):
        """An image of each of `classes` by so many steps of DDIM, `(n, channels, height, width)` in [0, 1]. The model
        is in eval mode."""
        from diffusers import DDIMScheduler

        from hf_unlearn_diffusion.pipeline import ClassConditionalPipeline

        inner: Any = unwrap(model)
        scheduler = DDIMScheduler.from_config(inner.scheduler.config)
        pipeline = ClassConditionalPipeline(inner.unet, scheduler, id2label=inner.config.id2label)
        pipeline.set_progress_bar_config(disable=True)
        wanted = [int(each) for each in classes]
        return pipeline(wanted, num_inference_steps=steps, generator=generator, output_type="pt").images

    def check_model(self, model: torch.nn.Module) -> None:
        config: Any = unwrap(model).config
        if self.label_names is not None and config.num_labels < len(self.label_names):
            raise UserError(
                f"the model draws {config.num_labels} classes and the data has {len(self.label_names)}: choose the "
                "model that was trained on these classes, or another label column"
            )
        channels = config.network_values()["in_channels"]
        if channels != self.channels:
            raise UserError(f"the model draws {channels} channels and its image processor gives {self.channels}")

    def encode(self, rows: dict[str, list], positions: list[int]) -> list[dict[str, Any]]:
        """See [`Task.encode`]; `seed` is that of the row's noises."""
        features = super().encode(rows, positions)
        return [row | {"seed": seed_of(row["pixel_values"], row["labels"])} for row in features]

    def collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`pixel_values` `(batch, channels, height, width)` float32, `labels` and `seed` `(batch,)`."""
        batch = super().collate(features)
        return batch | {"seed": torch.tensor([row["seed"] for row in features])}

    def predict(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> DenoisingPredictions:
        """One draw a row from the global generator where gradients are wanted; else the row's own draws."""
        if torch.is_grad_enabled():
            said = model(batch["pixel_values"], labels=batch["labels"], input_ids=batch.get("input_ids"))
            return _predictions(batch["labels"], [said])
        return self._scored(model, batch)

    def _scored(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> DenoisingPredictions:
        labels, prompts = batch["labels"], batch.get("input_ids")
        inner: Any = unwrap(model)
        images = inner.encoded(batch["pixel_values"])
        times, noises = fixed_draws(batch["seed"].tolist(), tuple(images.shape[1:]), inner.steps)
        draws = zip(times.to(images.device), noises.to(images), strict=True)  # each a draw of every row
        same = {"labels": labels, "input_ids": prompts, "is_encoded": True}
        return _predictions(labels, [model(images, timesteps=t, noise=noise, **same) for t, noise in draws])

    @torch.no_grad()
    def embed(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The images themselves, brought to 8 × 8 pixels, `(batch, 64 · channels)`: near duplicates are near there,
        whatever a model has learned."""
        pixels = torch.nn.functional.adaptive_avg_pool2d(batch["pixel_values"], 8)
        return pixels.flatten(1)

    @torch.no_grad()
    def predict_and_embed(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]):
        return self.predict(model, batch), self.embed(model, batch)


def _predictions(labels: torch.Tensor, found: list[Any]) -> DenoisingPredictions:
    """Of rows with these labels what a denoiser returned for each of their draws; those of a row stand together."""

    def by_row(values: list[torch.Tensor]) -> torch.Tensor:
        """A `(size, …)` tensor of each draw, as `(size · draws, …)`."""
        return torch.stack(values, 1).flatten(0, 1)

    size, draws = len(labels), len(found)
    shown = Noised(
        *(by_row([getattr(said.noised, name) for said in found]) for name in ("images", "timesteps", "conditions"))
    )
    return DenoisingPredictions(
        by_row([said.sample for said in found]).flatten(1),
        labels.repeat_interleave(draws),
        size,
        None if draws == 1 else torch.arange(size, device=labels.device).repeat_interleave(draws),
        [draws] * size,
        wanted=by_row([said.wanted for said in found]).flatten(1),
        noised=shown,
    )


class Denoisers:
    """Loads and makes denoisers, as the auto classes of `transformers` do."""

    config_class: ClassVar[type[PreTrainedConfig]] = PixelDenoiserConfig
    kind: ClassVar[str] = "no denoiser that draws by class"  # what another `original_model_type` is

    @classmethod
    def read(cls, name_or_path: str, **options: Any) -> tuple[Any, dict[str, Any]]:
        """A model with its weights, and what did not fit."""
        from hf_unlearn_diffusion.folders import read_model

        return read_model(name_or_path, **options)

    @classmethod
    def make(cls, config: Any) -> torch.nn.Module:
        """A model of random weights."""
        from hf_unlearn_diffusion.model import PixelDenoiser

        return PixelDenoiser(config)

    @classmethod
    def from_pretrained(cls, name_or_path: str, *, output_loading_info: bool = False, **options: Any):
        model, info = cls.read(name_or_path, **options)
        return (model, info) if output_loading_info else model

    @classmethod
    def from_config(cls, config: PreTrainedConfig, dtype: torch.dtype | None = None):
        known = cls.config_class.model_type
        if config.model_type != known:
            raise UserError(f"`original_model_type` {config.model_type} is {cls.kind}; there is {known}")
        return torch.nn.Module.to(cls.make(config), dtype or torch.float32)
