"""Unconditional image generation: a model draws for nothing in particular, and given rows must go."""

from typing import Any, ClassVar

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.tasks.columns import check_overrides, find, missing, only_feature
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.tasks.image_classification import IMAGES
from hf_unlearn_diffusion.config import UnconditionalDenoiserConfig
from hf_unlearn_diffusion.draws import seed_of
from hf_unlearn_diffusion.folders import WITHOUT
from hf_unlearn_diffusion.task import CORE_METHODS, Denoisers, ImageGeneration

NO_CLASS = 0  # the label of every row
OWN = ("diffusion_nabla_tau",)


class UnconditionalImageGeneration(ImageGeneration):
    """Diffusion models of pixels without classes: a `UNet2DModel` of `diffusers` and its schedule.

    A row is an image alone, and scored as [`ImageGeneration`] says. What a model forgets are some of its training
    images. SalUn has no form for such models: its target is what the model says under another condition.
    """

    name: ClassVar[str] = WITHOUT
    roles: ClassVar[tuple[str, ...]] = ("image",)
    auto_class: ClassVar[str] = "UnconditionalDenoiser"
    has_classes: ClassVar[bool] = False

    @classmethod
    def auto_model(cls):
        cls.check_installed()
        return UnconditionalDenoisers

    @classmethod
    def load_config(cls, name_or_path: str, **hub_kwargs):
        cls.check_installed()
        from hf_unlearn_diffusion.folders import read_config

        return read_config(name_or_path, WITHOUT, **hub_kwargs)

    @classmethod
    def usage(cls, model_id: str) -> str | None:
        return (
            "import torch\nfrom diffusers import DDIMPipeline\n\n"
            f'pipe = DDIMPipeline.from_pretrained("{model_id}")\n'
            "images = pipe(batch_size=4, generator=torch.Generator().manual_seed(0)).images"
        )

    @classmethod
    def detect_columns(cls, column_names: list[str], features: Any, overrides: dict[str, str]) -> dict[str, str]:
        """One role: `image`."""
        chosen = check_overrides(overrides, cls.roles, column_names, cls.name)
        image = chosen.get("image") or find(IMAGES, column_names) or only_feature("Image", features)
        if image is None:
            raise missing("image", column_names)
        return {"image": image}

    def asked_things(self, most: int, seed: int) -> Any:
        raise UserError(
            "`generate` has a classifier say which class is drawn, and this model draws without classes; leave it out"
        )

    def check_method(self, method: type) -> None:
        name = getattr(method, "method", method.__name__)
        if getattr(method, "reads_noise", False) and name not in OWN:
            raise UserError(
                f"`method` {name} changes what is said under a class or a prompt, and this model reads neither; for "
                f"{self.name} there are {', '.join((*OWN, *CORE_METHODS))}"
            )
        super().check_method(method)

    def check_model(self, model: torch.nn.Module) -> None:
        config: Any = unwrap(model).config
        channels = config.network_values()["in_channels"]
        if channels != self.channels:
            raise UserError(f"the model draws {channels} channels and its image processor gives {self.channels}")

    def encode(self, rows: dict[str, list], positions: list[int]) -> list[dict[str, Any]]:
        """See [`Task.encode`]; `seed` is that of the row's noises, and its label that of every row."""
        images = self.pixels_of(rows, positions)
        return [{"pixel_values": image, "labels": NO_CLASS, "seed": seed_of(image, NO_CLASS)} for image in images]


class UnconditionalDenoisers(Denoisers):
    """The same for denoisers without classes."""

    config_class = UnconditionalDenoiserConfig
    kind = "no denoiser without classes"

    @classmethod
    def read(cls, name_or_path: str, **options: Any) -> tuple[Any, dict[str, Any]]:
        from hf_unlearn_diffusion.folders import read_model

        return read_model(name_or_path, WITHOUT, **options)

    @classmethod
    def make(cls, config: UnconditionalDenoiserConfig) -> torch.nn.Module:
        from hf_unlearn_diffusion.model import UnconditionalDenoiser

        if config.condition_dropout:
            raise UserError("`condition_dropout` leaves out classes, and this model has none; leave it out")
        return UnconditionalDenoiser(config)
