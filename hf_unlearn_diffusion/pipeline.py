"""A pipeline that draws an image for each class that is asked for."""

import inspect
from collections.abc import Sequence

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput

from hf_unlearn.errors import UserError

STEPS = 50


class ClassConditionalPipeline(DiffusionPipeline):
    """Draws images of pixels by class, with any scheduler of `diffusers`.

        pipe = ClassConditionalPipeline.from_pretrained("someone/digits")
        pipe(["3", "7"], generator=torch.Generator().manual_seed(0)).images

    Args:
        unet: a `UNet2DModel` with class embeddings; one more than there are names stands for no class.
        scheduler: how noise is taken away.
        id2label: names of the classes by id.
    """

    model_cpu_offload_seq = "unet"

    def __init__(self, unet, scheduler, id2label: dict | None = None):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        names = {str(place): name for place, name in (id2label or {}).items()}
        self.register_to_config(id2label=names)

    def class_ids(self, classes: Sequence[int | str]) -> list[int]:
        """Ids of classes given by name or id. Raises `UserError` for one that there is none of."""
        by_name = {name: int(place) for place, name in self.config.id2label.items()}
        count = len(by_name) or self.unet.config.num_class_embeds
        ids = [by_name.get(each) if isinstance(each, str) else int(each) for each in classes]
        for each, found in zip(classes, ids, strict=True):
            if found is None or not 0 <= found < count:
                raise UserError(
                    f"the model draws no class {each!r}; it has {', '.join(by_name) or f'0 … {count - 1}'}"
                )
        return [found for found in ids if found is not None]

    @torch.no_grad()
    def __call__(
        self,
        classes: Sequence[int | str] | int | str,
        *,
        num_inference_steps: int = STEPS,
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ):
        """Draw one image for each of `classes`, names or ids.

        Args:
            guidance_scale: w of classifier-free guidance, ε = ε(∅) + w·(ε(c) − ε(∅)); 1 leaves it out.
            generator: of the noise; the same seed draws the same images.
            output_type: `pil`; `np`, `(n, height, width, channels)` in [0, 1]; `pt`, `(n, channels, height, width)`.
        """
        wanted = self.class_ids([classes] if isinstance(classes, (int, str)) else classes)
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (len(wanted), self.unet.config.in_channels, height, width)
        where = generator.device if generator is not None else self.device
        images = torch.randn(shape, generator=generator, device=where, dtype=self.unet.dtype).to(self.device)
        images = images * self.scheduler.init_noise_sigma
        ids = torch.tensor(wanted, device=self.device)
        draws = "generator" in inspect.signature(self.scheduler.step).parameters
        options = {"generator": generator} if draws else {}
        self.scheduler.set_timesteps(num_inference_steps)
        for step in self.progress_bar(self.scheduler.timesteps):
            noise = self._noise(self.scheduler.scale_model_input(images, step), step, ids, guidance_scale)
            images = self.scheduler.step(noise, step, images, **options).prev_sample
        images = (images / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            images = images.cpu().permute(0, 2, 3, 1).float().numpy()
            images = self.numpy_to_pil(images) if output_type == "pil" else images
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _noise(self, images: torch.Tensor, step, ids: torch.Tensor, scale: float) -> torch.Tensor:
        said = self.unet(images, step, class_labels=ids).sample
        if scale == 1:
            return said
        none = self.unet.config.num_class_embeds - 1
        if none < len(self.config.id2label):
            raise UserError(
                "the model was trained without leaving classes out, so nothing can guide it; leave it at 1"
            )
        without = self.unet(images, step, class_labels=torch.full_like(ids, none)).sample
        return without + scale * (said - without)
