"""Text to image: latents are drawn for a prompt, by taking noise away step by step."""

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from hf_unlearn.errors import RowError, UserError
from hf_unlearn.tasks.classification import label_column
from hf_unlearn.tasks.columns import check_overrides, find
from hf_unlearn.tasks.forward import unwrap, without_wrappers
from hf_unlearn.tasks.image_classification import ImageClassification
from hf_unlearn_diffusion.latent_config import LatentDenoiserConfig
from hf_unlearn_diffusion.prompts import ImagesAndPrompts, letters
from hf_unlearn_diffusion.task import Denoisers, ImageGeneration

CAPTIONS = ("caption", "prompt")
FIELD = "{label}"
GUIDANCE = 7.5  # of drawings, as `StableDiffusionPipeline` has it where nothing else is said


class TextToImage(ImageGeneration):
    """Latent text-to-image models: the parts of a `StableDiffusionPipeline`, of which the network is trained.

    A row has an image, a concept (its label), and a prompt: what its column `caption` says, or else its concept's
    name, put into `prompt_template`. Concepts are what a request may name, what SalUn swaps, and what is drawn for the
    evidence.

    Args:
        prompt_template: with `{label}` in it, e.g. `a photo of a {label}`. Default: the name alone.
    """

    name: ClassVar[str] = "text_to_image"
    roles: ClassVar[tuple[str, ...]] = ("image", "label", "caption")
    auto_class: ClassVar[str] = "LatentDenoiser"
    pipeline_tag: ClassVar[str] = "text-to-image"
    has_prompts: ClassVar[bool] = True

    def __init__(
        self,
        processor,
        columns,
        label_names=None,
        max_length: int | None = None,
        prompt_template: str | None = None,
        supervise: str = "all",
    ):
        if supervise != "all":
            raise UserError("`supervise` is for chats; a prompt has no answers")
        if prompt_template is not None and FIELD not in prompt_template:
            raise UserError(f"`prompt_template` has no {FIELD} in it: say where a concept's name goes")
        super().__init__(processor, columns, label_names, max_length)
        self.prompt_template = prompt_template or FIELD

    @classmethod
    def auto_model(cls):
        cls.check_installed()
        return LatentDenoisers

    @classmethod
    def load_config(cls, name_or_path: str, **hub_kwargs):
        cls.check_installed()
        from hf_unlearn_diffusion.latent_folders import read_config

        return read_config(name_or_path, **hub_kwargs)

    @classmethod
    def load_processor(cls, name_or_path: str, **hub_kwargs):
        """The pipeline's tokenizer, and what scales images to its size and colours."""
        cls.check_installed()
        from hf_unlearn_diffusion.latent_folders import read_tokenizer

        tokenizer = read_tokenizer(name_or_path, **hub_kwargs)
        return ImagesAndPrompts(_images(cls.load_config(name_or_path, **hub_kwargs)), tokenizer)

    @classmethod
    def processor_for(cls, config: dict[str, Any]):
        """For a model from scratch: prompts are read byte by byte."""
        known = LatentDenoiserConfig()
        values = {name: config.get(name, getattr(known, name)) for name in ("sample_size", "in_channels")}
        length = LatentDenoiserConfig(text_encoder=config.get("text_encoder")).text_values()["max_position_embeddings"]
        return ImagesAndPrompts(_images(LatentDenoiserConfig(**values)), letters(length))

    @classmethod
    def model_files(cls, folder: Path) -> list[str] | None:
        from hf_unlearn_diffusion.latent_folders import FILES

        return list(FILES) if (folder / FILES[0]).is_file() else None

    @classmethod
    def usage(cls, model_id: str) -> str | None:
        return (
            "import torch\nfrom diffusers import StableDiffusionPipeline\n\n"
            f'pipe = StableDiffusionPipeline.from_pretrained("{model_id}")\n'
            'images = pipe("a prompt", generator=torch.Generator().manual_seed(0)).images'
        )

    def save_model(self, model: Any, folder: str | os.PathLike, **options: Any) -> None:
        """A `StableDiffusionPipeline` without a safety checker; an adapter as `peft` writes it."""
        from hf_unlearn_diffusion.latent_folders import write_pipeline

        inner: Any = without_wrappers(model)
        if hasattr(inner, "peft_config"):
            inner.save_pretrained(folder, **options)
        else:
            write_pipeline(inner, self.processor.tokenizer, folder)
        self.processor.save_pretrained(folder)

    @classmethod
    def detect_columns(cls, column_names: list[str], features: Any, overrides: dict[str, str]) -> dict[str, str]:
        """Roles: `image`, `label`, and `caption` where there is one; without a label captions are the concepts."""
        chosen = check_overrides(overrides, cls.roles, column_names, cls.name)
        caption = chosen.pop("caption", None) or find(CAPTIONS, column_names)
        try:
            chosen["label"] = label_column(column_names, features, chosen)
        except UserError:
            if caption is None:
                raise
            chosen["label"] = caption
        found = super().detect_columns(column_names, features, chosen)
        return found if caption in (None, found["label"]) else found | {"caption": caption}

    def prepare_model(self, model: torch.nn.Module) -> None:
        super().prepare_model(model)
        inner: Any = unwrap(model)
        inner.empty_prompt = self.processor.tokens([""])[0]

    def settle_trained(self, model: torch.nn.Module) -> None:
        inner: Any = unwrap(model)
        inner.train_network_alone()

    def check_model(self, model: torch.nn.Module) -> None:
        config: Any = unwrap(model).config
        if config.in_channels != self.channels:
            raise UserError(f"the model draws {config.in_channels} channels and its images have {self.channels}")
        words, longest = config.text_values(), self.processor.tokenizer.model_max_length
        if len(self.processor.tokenizer) > words["vocab_size"] or longest > words["max_position_embeddings"]:
            raise UserError(
                f"the tokenizer has {len(self.processor.tokenizer):,} tokens and prompts of {longest}, and the text "
                f"encoder reads {words['vocab_size']:,} and {words['max_position_embeddings']}: take the model's own"
            )

    def prompts(self, classes: Any) -> list[str]:
        """The prompt of each concept, by id."""
        names = self.label_names or []
        return [self.prompt_template.replace(FIELD, str(names[int(each)])) for each in classes]

    def conditions_of(self, classes: torch.Tensor) -> torch.Tensor:
        some = classes.tolist() or [0]  # a micro-batch may have no forget row
        return self.processor.tokens(self.prompts(some))[: len(classes)].to(classes.device)

    def conditions_said(self, prompt: str) -> torch.Tensor:
        return self.processor.tokens([prompt])[0]

    def encode(self, rows: dict[str, list], positions: list[int]) -> list[dict[str, Any]]:
        """See [`Task.encode`]; `input_ids` are the prompt's tokens. A row without a caption cannot be used."""
        features = super().encode(rows, positions)
        if "caption" in self.columns:
            said = rows[self.columns["caption"]]
            for caption, position in zip(said, positions, strict=True):
                if not isinstance(caption, str) or not caption.strip():
                    raise RowError(position, "it has no caption")
        else:
            said = self.prompts([row["labels"] for row in features])
        tokens = self.processor.tokens(list(said))
        return [row | {"input_ids": ids.clone()} for row, ids in zip(features, tokens, strict=True)]

    def collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Also `input_ids`, `(batch, tokens)`."""
        return super().collate(features) | {"input_ids": torch.stack([row["input_ids"] for row in features])}

    def draw(self, model: torch.nn.Module, classes: np.ndarray, generator: torch.Generator, steps: int):
        from diffusers import DDIMScheduler

        from hf_unlearn_diffusion.latent_folders import pipeline_of

        inner: Any = unwrap(model)
        sampler = DDIMScheduler.from_config(inner.sampler.config)
        pipeline = pipeline_of(inner, self.processor.tokenizer, sampler)
        pipeline.set_progress_bar_config(disable=True)
        options = {"num_inference_steps": steps, "guidance_scale": GUIDANCE, "output_type": "pt"}
        return pipeline(self.prompts(classes), generator=generator, **options).images


class LatentDenoisers(Denoisers):
    """The same for latent models."""

    config_class = LatentDenoiserConfig
    kind = "no model that draws from prompts"

    @classmethod
    def read(cls, name_or_path: str, **options: Any) -> tuple[Any, dict[str, Any]]:
        from hf_unlearn_diffusion.latent_folders import read_model

        return read_model(name_or_path, **options)

    @classmethod
    def make(cls, config: LatentDenoiserConfig) -> torch.nn.Module:
        from hf_unlearn_diffusion.latent import LatentDenoiser

        return LatentDenoiser(config)


def _images(config: LatentDenoiserConfig) -> Any:
    """An image processor for the size and colours of a model, values in [-1, 1]."""
    size = {"image_size": config.sample_size, "num_channels": config.in_channels}
    return ImageClassification.processor_for(size)
