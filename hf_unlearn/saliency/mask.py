"""Which weights may move: one bool per weight, summed up in words, bit-packed in files and checkpoints."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from hf_unlearn.errors import UserError
from hf_unlearn.saliency.measure import trainable
from hf_unlearn.saliency.packed_masks import PackedMasks, pack, unpack
from hf_unlearn.saliency.shards import spread, whole
from hf_unlearn.tasks.forward import without_data_parallel

FORMAT = "hf_unlearn saliency mask"
VERSION = 1
PREFIX = "saliency_mask/"  # of the tensors among those of a checkpoint
_HEADER = "header"
_CHUNK = 1 << 22  # weights brought to the CPU and hashed at a time


@dataclass
class SaliencyMask:
    """Bool masks by parameter name: what is `True` may move, everything else stays bit-identical.

    Args:
        masks: one per trainable parameter, of its shape; a DTensor where the parameter is one.
        threshold: γ, the smallest saliency that was kept.
        share: the part of the weights that was asked for.
        scope, include, exclude: how they were selected ([`select_top`]).
        model_digest, forget_digest: which weights ([`model_digest`]) and which forget rows it was measured on.
        notes: what a reader must know of how it came about, a line each.
    """

    masks: Mapping[str, torch.Tensor]
    threshold: float | None = None
    share: float | None = None
    scope: str = "global"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    model_digest: str | None = None
    forget_digest: str | None = None
    notes: list[str] = field(default_factory=list)

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many weights of each tensor may move. With DTensors all processes must ask."""
        return {name: int(whole(mask.sum())) for name, mask in self.masks.items()}

    @property
    def kept(self) -> int:
        """How many weights may move."""
        return sum(self.counts.values())

    @property
    def size(self) -> int:
        """Weights in all masked tensors, those that patterns exclude among them."""
        return sum(mask.numel() for mask in self.masks.values())

    @property
    def kept_share(self) -> float:
        return self.kept / max(self.size, 1)

    def summary(self, tensors: int = 3) -> str:
        """How many weights move, in which `tensors` tensors most, and what is special, a line each."""
        gamma = "" if self.threshold is None else f", saliency ≥ {self.threshold:.3g}"
        lines = [f"{self.kept:,} of {self.size:,} trainable weights may move ({self.kept_share:.1%}{gamma})"]
        most = sorted(self.counts, key=lambda name: -self.counts[name])[:tensors]
        parts = [f"{name} {self.counts[name]:,} of {self.masks[name].numel():,}" for name in most]
        lines.append(f"most of them in {', '.join(parts)}")
        if self.threshold == 0:
            lines.append("the threshold is 0: weights without any saliency were taken to reach the share; lower it")
        return "\n".join(lines + self.notes)

    def shrink(self) -> None:
        """Hold the masks in one bit a weight from now on. With DTensors all processes must call this."""
        _ = self.counts
        self.masks = PackedMasks(self.masks)

    def save(self, path: str) -> None:
        """Write a safetensors file, one bit per weight. With DTensors all processes must call this; the first writes.

        Raises `UserError` if the file cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        packed = self._packed()
        if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank():
            return
        try:
            save_file(packed, path, metadata={"format": FORMAT, _HEADER: json.dumps(self._header())})
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot write the saliency mask to {path}: choose a folder that exists") from error

    @classmethod
    def load(cls, path: str, model: nn.Module, forget_digest: str | None = None) -> "SaliencyMask":
        """Read a file that [`save`] wrote, for the very model and forget rows that it was measured on.

        Args:
            model: the original; its weights are hashed.
            forget_digest: of the rows to be forgotten now. `None`, here or in the file, leaves them unchecked.

        Raises:
            `UserError`: the file is no mask or damaged, or it is one for another model or for other forget rows.
        """
        header, packed = _read(path)
        mask = cls._unpacked(header, packed, model, path)
        if None not in (mask.forget_digest, forget_digest) and mask.forget_digest != forget_digest:
            raise UserError(f"the saliency mask {path} was measured on other forget rows: measure a new one")
        if mask.model_digest is not None and mask.model_digest != model_digest(model):
            raise UserError(f"the saliency mask {path} was measured on other weights: measure a new one")
        return mask

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """The mask as uint8 tensors for a checkpoint. With DTensors all processes must call this."""
        header = torch.frombuffer(bytearray(json.dumps(self._header()).encode()), dtype=torch.uint8)
        packed = {f"{PREFIX}mask/{name}": bits for name, bits in self._packed().items()}
        return {f"{PREFIX}{_HEADER}": header, **packed}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], model: nn.Module) -> "SaliencyMask":
        """What [`to_tensors`] gave, found among others. The model may have been trained since.

        Raises `UserError` if there is no mask among `tensors` or it does not fit `model`.
        """
        header = tensors.get(f"{PREFIX}{_HEADER}")
        if header is None:
            raise UserError("the checkpoint holds no saliency mask: start the run anew")
        start = f"{PREFIX}mask/"
        packed = {name[len(start) :]: bits for name, bits in tensors.items() if name.startswith(start)}
        return cls._unpacked(json.loads(header.cpu().numpy().tobytes()), packed, model, "of the checkpoint")

    def _packed(self) -> dict[str, torch.Tensor]:
        return {name: pack(whole(mask)) for name, mask in self.masks.items()}

    def _header(self) -> dict[str, Any]:
        fields = ("threshold", "share", "scope", "include", "exclude", "model_digest", "forget_digest", "notes")
        shapes = {name: list(mask.shape) for name, mask in self.masks.items()}
        return {
            "version": VERSION, "shapes": shapes, "kept": self.kept, **{name: getattr(self, name) for name in fields}
        }  # fmt: skip

    @classmethod
    def _unpacked(
        cls, header: dict[str, Any], packed: dict[str, torch.Tensor], model: nn.Module, where: str
    ) -> "SaliencyMask":
        if header.get("version") != VERSION:
            raise UserError(
                f"the saliency mask {where} has an unknown version: update hf_unlearn, or measure a new one"
            )
        parameters, shapes = trainable(model), {name: tuple(shape) for name, shape in header["shapes"].items()}
        differing = [
            name
            for name in dict.fromkeys([*parameters, *shapes])
            if name not in parameters or shapes.get(name) != tuple(parameters[name].shape)
        ]
        if differing:
            raise UserError(
                f"the saliency mask {where} does not fit the model's trainable weights ({differing[0]} differs): "
                "measure a new one"
            )
        full = {name: unpack(packed[name], shapes[name]) for name in parameters if name in packed}
        if len(full) < len(shapes) or sum(int(mask.sum()) for mask in full.values()) != header["kept"]:
            raise UserError(f"the saliency mask {where} is damaged: measure a new one")
        masks = {name: spread(mask, parameters[name]) for name, mask in full.items()}
        more = {key: value for key, value in header.items() if key not in ("version", "shapes", "kept")}
        more |= {key: tuple(more[key]) for key in ("include", "exclude")}
        return cls(masks, **more)


def model_digest(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters, frozen ones included (an adapter's base).

    With DTensors all processes must call this.
    """
    digest = hashlib.sha256()
    for name, parameter in without_data_parallel(model).named_parameters():
        digest.update(f"{name}\0{parameter.dtype}\0{list(parameter.shape)}\0".encode())
        for chunk in whole(parameter).reshape(-1).split(_CHUNK):
            digest.update(chunk.cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def check_file(path: str) -> None:
    """Raises `UserError` unless a file holds a saliency mask, of whatever model."""
    _read(path)


def _read(path: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or _HEADER not in metadata:
                raise UserError(f"{path} is no saliency mask: name a file that a run has saved as one")
            return json.loads(metadata[_HEADER]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise UserError(f"there is no saliency mask {path}: check the path") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no saliency mask: name a file that a run has saved as one") from error
