"""Image classification: one image, one label."""

from io import BytesIO
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps

from hf_unlearn.errors import RowError, UserError
from hf_unlearn.tasks.classification import ClassificationTask, label_column
from hf_unlearn.tasks.columns import check_overrides, find, missing, only_feature
from hf_unlearn.tasks.forward import unwrap

IMAGES = ("image", "img", "images", "pixels", "picture", "photo")  # what a column of images may be called


class ImageClassification(ClassificationTask):
    """Any model of `AutoModelForImageClassification`. See [`Task`] for the arguments."""

    name: ClassVar[str] = "image_classification"
    roles: ClassVar[tuple[str, ...]] = ("image", "label")
    auto_class: ClassVar[str] = "AutoModelForImageClassification"
    pipeline_tag: ClassVar[str] = "image-classification"
    example_input: ClassVar[str] = "image.png"
    processor_argument: ClassVar[str] = "image_processor"

    def __init__(self, processor, columns, label_names=None, max_length: int | None = None):
        if max_length is not None:
            raise UserError("`max_length` is for texts; images have the size that their processor gives them")
        super().__init__(processor, columns, label_names)

    @classmethod
    def load_processor(cls, name_or_path: str, **hub_kwargs):
        from transformers import AutoImageProcessor

        try:
            return AutoImageProcessor.from_pretrained(name_or_path, **hub_kwargs)
        except (OSError, ValueError) as error:
            raise UserError(f"no image processor at {name_or_path}: save the model's own beside it") from error

    @classmethod
    def processor_for(cls, config: dict[str, Any]):
        """Scales images to the model's size and channels (224, 3 where they are not said), values in [-1, 1]."""
        from transformers import ViTImageProcessorPil

        side, channels = config.get("image_size", 224), config.get("num_channels", 3)
        height, width = side if isinstance(side, (list, tuple)) else (side, side)
        return ViTImageProcessorPil(
            size={"height": int(height), "width": int(width)},
            image_mean=[0.5] * int(channels),
            image_std=[0.5] * int(channels),
            do_convert_rgb=int(channels) == 3,
        )

    @classmethod
    def detect_columns(cls, column_names: list[str], features: Any, overrides: dict[str, str]) -> dict[str, str]:
        """Roles: `image`, `label`."""
        chosen = check_overrides(overrides, cls.roles, column_names, cls.name)
        image = chosen.get("image") or find(IMAGES, column_names) or only_feature("Image", features)
        if image is not None and column_names == [image]:
            raise UserError("the images have no labels: put those of each class into a folder of its name")
        if image is None:
            raise missing("image", column_names)
        return {"image": image, "label": label_column(column_names, features, chosen)}

    @property
    def channels(self) -> int:
        """Colour channels that the processor normalises: 1 or 3."""
        mean = getattr(self.processor, "image_mean", None)
        return 1 if isinstance(mean, (list, tuple)) and len(mean) == 1 else 3

    def check_model(self, model: torch.nn.Module) -> None:
        super().check_model(model)
        channels = getattr(unwrap(model).config, "num_channels", None)
        if channels not in (None, self.channels):
            raise UserError(
                f"the model takes images of {channels} channels and its image processor gives {self.channels}: "
                "give image_mean and image_std of the processor one number per channel of the model"
            )

    def encode(self, rows: dict[str, list], positions: list[int]) -> list[dict[str, Any]]:
        """See [`Task.encode`]. Images may be PIL images of any mode, arrays, paths, or undecoded bytes."""
        pixels, raw_labels = self.pixels_of(rows, positions), rows[self.columns["label"]]
        labels = [self.label_id(value, at) for value, at in zip(raw_labels, positions, strict=True)]
        return [{"pixel_values": p, "labels": y} for p, y in zip(pixels, labels, strict=True)]

    def pixels_of(self, rows: dict[str, list], positions: list[int]) -> list[torch.Tensor]:
        """The image of each row as the model reads it, `(channels, height, width)` float32."""
        mode = "L" if self.channels == 1 else "RGB"
        raw = rows[self.columns["image"]]
        images = [_read_image(value, mode, at) for value, at in zip(raw, positions, strict=True)]
        pixels = self.processor(images, return_tensors="pt")["pixel_values"].to(torch.float32)
        # Copies: a view would keep the whole call's tensor alive for as long as one row is cached.
        return [p.clone() for p in pixels]

    def collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`pixel_values` `(batch, channels, height, width)` float32, `labels` `(batch,)`."""
        return {
            "pixel_values": torch.stack([row["pixel_values"] for row in features]),
            "labels": torch.tensor([row["labels"] for row in features]),
        }


def _read_image(value: Any, mode: str, position: int) -> Image.Image:
    """A PIL image in `mode`, from whatever a data set holds. Raises `RowError`."""
    try:
        if isinstance(value, dict):  # an image that `datasets` has not decoded
            source = BytesIO(value["bytes"]) if value.get("bytes") is not None else value["path"]
            image = ImageOps.exif_transpose(Image.open(source))
        elif isinstance(value, (str, bytes)):
            image = ImageOps.exif_transpose(Image.open(BytesIO(value) if isinstance(value, bytes) else value))
        else:
            image = value if isinstance(value, Image.Image) else _array_image(np.asarray(value))
        if image.mode.startswith("I;16"):  # PIL would clip 16 bits to 255 instead of scaling them
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert(mode)
    # PIL's decoders raise anything from SyntaxError to struct.error on broken files.
    except Exception as error:
        raise RowError(position, "its image cannot be read") from error


def _array_image(array: np.ndarray) -> Image.Image:
    """`(height, width)`, `(height, width, channels)` or `(channels, height, width)`; 0 … 255, or floats in 0 … 1."""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype != np.uint8:
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 255):
            raise ValueError("pixels outside 0 … 255")
        if np.issubdtype(array.dtype, np.floating) and high <= 1:
            array = array * 255
        array = array.round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))
