"""The fast gradient sign method: one step on a model's inputs that raises its loss, and the class it leads to.

The step is taken in pixels where the model reads images, else where its input embeddings come out. Its length is a
share of the range that the inputs have in each channel of a pixel or dimension of an embedding, so that it means the
same whatever a processor makes of black and white: where the rows have both, 0.1 is 0.1 of pixels in [0, 1].
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from hf_unlearn.errors import UserError
from hf_unlearn.models.noise import EMBEDDINGS, PIXELS, captured, free_places, injected, input_module
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import eval_mode, unwrap


def step_space(model: nn.Module) -> str:
    """`pixels` for models that read images, else `embeddings`. Raises `UserError` for one that names neither."""
    if getattr(unwrap(model), "main_input_name", None) == "pixel_values":
        return PIXELS
    if input_module(model) is None:
        raise UserError(
            f"{type(unwrap(model)).__name__} reads no images and names no input embeddings: nothing to take a step in"
        )
    return EMBEDDINGS


class SignedStep:
    """x + ε·(high − low)·sign(∂ℓ/∂x), kept within low and high; the model is left as it is.

    Special tokens and padding keep their embeddings.

    Args:
        model: in whichever mode; it runs in eval mode. Not wrapped by DDP.
        task (`Task`): runs the model on a batch.
        share: ε, of the range.
    """

    def __init__(self, model: nn.Module, task: Task, share: float):
        self.model = model
        self.task = task
        self.share = share
        self.space = step_space(model)
        self.low: torch.Tensor | None = None
        self.high: torch.Tensor | None = None

    def see(self, batches: Iterable[dict[str, Any]]) -> None:
        """Take the range from these collated rows: the least and the largest value of each channel or dimension."""
        for batch in batches:
            values, places = self._inputs(batch), free_places(batch, self.task.processor)
            flat = values.movedim(self._dim, -1) if places is None else values[places]
            flat = flat.reshape(-1, flat.shape[-1])
            self.low = torch.minimum(flat.amin(0), flat.amin(0) if self.low is None else self.low)
            self.high = torch.maximum(flat.amax(0), flat.amax(0) if self.high is None else self.high)

    def classes(self, batch: dict[str, Any]) -> torch.Tensor:
        """The class that the model sees in each row after the step, `(rows,)`."""
        moved = self.moved(batch)
        with eval_mode(self.model), torch.no_grad(), injected(self.model, self.space, moved):
            return self.task.predict(self.model, batch).logits.argmax(1)

    def moved(self, batch: dict[str, Any]) -> torch.Tensor:
        """The rows' pixels or embeddings after the step."""
        assert self.low is not None and self.high is not None  # `see` comes first
        real, places = self._inputs(batch), free_places(batch, self.task.processor)
        shape = [-1 if axis == self._dim % real.dim() else 1 for axis in range(real.dim())]
        low, high = self.low.view(shape), self.high.view(shape)
        inputs = real.clone().requires_grad_()
        with eval_mode(self.model), torch.enable_grad(), injected(self.model, self.space, inputs):
            (slope,) = torch.autograd.grad(self.task.predict(self.model, batch).loss.sum(), inputs)
        moved = torch.clamp(real + self.share * (high - low) * slope.sign(), low, high)
        return moved if places is None else torch.where(places[:, :, None], moved, real)

    @property
    def _dim(self) -> int:
        """The axis of channels, or of an embedding's dimensions."""
        return 1 if self.space == PIXELS else -1

    def _inputs(self, batch: dict[str, Any]) -> torch.Tensor:
        if self.space == PIXELS:
            return batch["pixel_values"]
        with eval_mode(self.model), torch.no_grad(), captured(self.model, self.space) as seen:
            self.task.predict(self.model, batch)
        return seen[0]
