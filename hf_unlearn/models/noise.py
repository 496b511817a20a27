"""Error-maximizing noise: made-up inputs on which a model is as wrong as it can be about a class (UNSIR).

The noise lives where the model's input embeddings come out, so that one mechanism serves tokens and patches, or in the
pixels of models without such a module (ResNet, ConvNeXt). It is put in by one context manager, [`injected`]: rows of
real data lend their structure (length, padding, positions, special tokens), and noise takes the place of the rest.

Everything is learned in standard units, z = (noise − μ)/σ per dimension of real embeddings, so that step sizes and the
penalty mean the same in every model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.adam import adam

from hf_unlearn.errors import UserError
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import unwrap

EMBEDDINGS, PIXELS = "embeddings", "pixels"
PUBLISHED_SIZE = 3072  # elements of the published 3 × 32 × 32 images, for which λ = 0.1 was chosen
SMALLEST_STD = 1e-3  # of the largest: a dimension that never varies does not get an endless penalty
_KEPT_TOKENS = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id")


def input_module(model: nn.Module) -> nn.Module | None:
    """The module whose output noise replaces, inside wrappers and adapters; `None` for models that name none."""
    try:
        return unwrap(model).get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None


def _input_module(model: nn.Module) -> nn.Module:
    """[`input_module`] of a model that [`find_space`] found to have one."""
    module = input_module(model)
    assert module is not None
    return module


def find_space(model: nn.Module, wanted: str = "auto") -> str:
    """`embeddings` or `pixels`. Raises `UserError` where `wanted` is not to be had."""
    takes_pixels = getattr(unwrap(model), "main_input_name", None) == "pixel_values"
    has_module = input_module(model) is not None
    if wanted == "auto":
        wanted = EMBEDDINGS if has_module else PIXELS
    if wanted == EMBEDDINGS and not has_module:
        raise UserError(f"`noise_space` embeddings: {type(unwrap(model)).__name__} names none; use pixels")
    if wanted == PIXELS and not takes_pixels:
        raise UserError(f"`noise_space` pixels: {type(unwrap(model)).__name__} reads no images; use embeddings")
    return wanted


def free_places(inputs: dict[str, Any], processor: Any) -> torch.Tensor | None:
    """Where noise may stand, `(rows, seq)` bool: tokens that are neither padding nor special. `None`: everywhere.

    Special tokens and padding keep their own embeddings, because heads look for them: `[CLS]` of BERT, the last token
    that is not padding in GPT-2 and Llama.
    """
    if "input_ids" not in inputs:
        return None
    ids = inputs["input_ids"]
    special = [getattr(processor, name, None) for name in _KEPT_TOKENS]
    kept = torch.tensor([i for i in special if i is not None], device=ids.device, dtype=ids.dtype)
    return inputs["attention_mask"].bool() & ~torch.isin(ids, kept)


@contextmanager
def injected(model: nn.Module, space: str, values: torch.Tensor, places: torch.Tensor | None = None) -> Iterator[None]:
    """Inside, the first forward of `model` sees noise in its first rows. The hook is gone afterwards in any case.

    Args:
        model: wrapped by DDP, FSDP, peft or nothing.
        space: `embeddings` or `pixels`.
        values: `(n, places, dim)`, or `(n, channels, height, width)`; gradients reach it.
        places: `(n, seq)` bool as [`free_places`] gives it: the k-th free place of a row takes its k-th value.
    """
    done = []

    def replace(real: torch.Tensor) -> torch.Tensor:
        done.append(True)
        return torch.cat([_placed(real[: len(values)], values, places), real[len(values) :]])

    def output_hook(module, args, output):
        if done:
            return None
        # Swin's module returns its height and width as well.
        return (replace(output[0]), *output[1:]) if isinstance(output, tuple) else replace(output)

    def input_hook(module, args, kwargs):
        if done:
            return None
        return args, {**kwargs, "pixel_values": replace(kwargs["pixel_values"])}

    if space == EMBEDDINGS:
        handle = _input_module(model).register_forward_hook(output_hook)
    else:
        handle = unwrap(model).register_forward_pre_hook(input_hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def captured(model: nn.Module, space: str) -> Iterator[list[torch.Tensor]]:
    """Inside, what noise would replace is appended to the list, detached, at every forward of `model`."""
    seen: list[torch.Tensor] = []

    def output_hook(module, args, output):
        seen.append((output[0] if isinstance(output, tuple) else output).detach())

    def input_hook(module, args, kwargs):
        seen.append(kwargs["pixel_values"].detach())

    if space == EMBEDDINGS:
        handle = _input_module(model).register_forward_hook(output_hook)
    else:
        handle = unwrap(model).register_forward_pre_hook(input_hook, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


class ErrorMaximizingNoise:
    """One batch of noise per class, all classes in one tensor.

    Everything is in `state`, tensors by name, which a checkpoint can hold: `noise` z `(n, places, dim)` (or
    `(n, channels, height, width)`), `noise_exp_avg`, `noise_exp_avg_sq` (Adam's), `noise_mean`, `noise_std` `(dim,)`,
    `noise_real_rms` and `real_loss`.

    Args:
        state (`dict[str, torch.Tensor]`): from [`ErrorMaximizingNoise.start`].
        task (`Task`): runs the model on a batch.
        space (`str`): `embeddings` or `pixels`.
        penalty (`float`): λ, as published for images of 3 × 32 × 32.
    """

    def __init__(self, state: dict[str, torch.Tensor], task: Task, space: str, penalty: float = 0.1):
        self.state = state
        self.task = task
        self.space = space
        self.penalty = penalty

    @staticmethod
    @torch.no_grad()
    def start(
        model: nn.Module, task: Task, batches: Sequence[dict[str, Any]], space: str, seed: int
    ) -> dict[str, torch.Tensor]:
        """State of noise at μ + σ·N(0, 1), one for each row of `batches` (collated real rows; counted as read).

        μ and σ are per dimension, over the rows' free places. `real_loss` is the rows' mean loss in nats.
        """
        kept, shapes, losses = [], [], []
        with captured(model, space) as seen:
            for batch in batches:
                losses.append(task.predict(model, batch).loss)
                real, places = seen.pop().float(), free_places(batch, task.processor)
                shapes += [(int(n), real.shape[2]) for n in places.sum(1)] if places is not None else []
                kept.append(real[places] if places is not None else real.movedim(_dim(real), -1).flatten(0, -2))
        elements = torch.cat(kept)  # (places of all rows, dim)
        n = sum(len(loss) for loss in losses)
        shape = (n, *max(shapes)) if shapes else (n, *real.shape[1:])
        z = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(elements.device)
        std = elements.std(0)
        return {
            "noise": z,
            "noise_exp_avg": torch.zeros_like(z),
            "noise_exp_avg_sq": torch.zeros_like(z),
            "noise_mean": elements.mean(0),
            "noise_std": std.clamp(min=max(SMALLEST_STD * float(std.max()), 1e-8)),
            "noise_real_rms": elements.square().mean().sqrt(),
            "real_loss": torch.cat(losses).float().mean(),
        }

    def values(self, index: torch.Tensor | slice) -> torch.Tensor:
        """The noise of some rows in the model's own units."""
        return self._in_units(self.state["noise"][index])

    def inside(self, model: nn.Module, inputs: dict[str, Any], index: torch.Tensor):
        """[`injected`] with the noise of rows `index` `(n,)`, which are the first n of the batch `inputs`."""
        places = free_places(inputs, self.task.processor)
        return injected(model, self.space, self.values(index), None if places is None else places[: len(index)])

    def step(self, model: nn.Module, batches: Sequence[dict[str, Any]], number: int, rate: float) -> dict[str, float]:
        """One Adam step on the noise against the model as it is, which is left untouched.

        Minimises, per row, −CE(model(noise), class) + λ·3072·mean(z²) over the row's own places, which is
        λ·(3072/(L·D))·Σ((noise − μ)/σ)².

        Args:
            model: in eval mode, not wrapped by DDP (no gradient is asked of its weights).
            batches: collated rows in the order of the noise, which lend their structure and carry the classes as
                `labels`.
            number: of this step, from 0.
            rate: Adam's, in standard units.

        Returns `loss`, the model's mean on the noise in nats, `objective`, and `norm_ratio` (see [`norm_ratio`]), all
        as they were before the step.
        """
        state, first, losses, objectives = self.state, 0, [], []
        gradients: list[torch.Tensor] = []
        for batch in batches:
            places = free_places(batch, self.task.processor)
            z = state["noise"][first : first + len(batch["labels"])].detach().requires_grad_()
            with torch.enable_grad(), injected(model, self.space, self._in_units(z), places):
                loss = self.task.predict(model, batch).loss  # (rows,)
                objective = self.penalty * PUBLISHED_SIZE * _mean_of_places(z.square(), places) - loss
                gradients += torch.autograd.grad(objective.sum() / len(state["noise"]), z)
            losses.append(loss.detach())
            objectives.append(objective.detach())
            first += len(z)
        report = {
            "loss": float(torch.cat(losses).mean()),
            "objective": float(torch.cat(objectives).mean()),
            "norm_ratio": self.norm_ratio(batches),
        }
        adam(
            [state["noise"]], [torch.cat(gradients)], [state["noise_exp_avg"]], [state["noise_exp_avg_sq"]], [],
            [torch.tensor(float(number))], amsgrad=False, beta1=0.9, beta2=0.999, lr=rate, weight_decay=0.0, eps=1e-8,
            maximize=False,
        )  # fmt: skip
        return report

    def norm_ratio(self, batches: Sequence[dict[str, Any]]) -> float:
        """Root mean square of the noise over that of real embeddings: 0.5 to 2 is sane."""
        first, squares = 0, []
        for batch in batches:
            rows = slice(first, first + len(batch["labels"]))
            squares.append(_mean_of_places(self.values(rows).square(), free_places(batch, self.task.processor)))
            first = rows.stop
        return float(torch.cat(squares).mean().sqrt() / self.state["noise_real_rms"])

    def _in_units(self, z: torch.Tensor) -> torch.Tensor:
        mean, std = self.state["noise_mean"], self.state["noise_std"]
        if _dim(z) == 1:
            mean, std = mean[:, None, None], std[:, None, None]
        return mean + std * z


def _dim(values: torch.Tensor) -> int:
    """The axis of the dimensions: channels of `(rows, channels, height, width)`, the last of `(rows, places, dim)`."""
    return 1 if values.dim() == 4 else values.dim() - 1


def _placed(real: torch.Tensor, values: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
    """`real` `(n, seq, dim)` with values at its free places."""
    if places is None:
        return values.to(real.dtype)
    return real.masked_scatter(places[:, :, None], values[_used(values, places)].to(real.dtype))


def _used(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`(n, places)` bool: a row of noise is as long as the longest, and each row uses as much as it has places."""
    return torch.arange(values.shape[1], device=values.device) < places.sum(1, keepdim=True)


def _mean_of_places(values: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
    """Mean over what each row uses: `(n,)`."""
    if places is None:
        return values.flatten(1).mean(1)
    used = _used(values, places)
    return (values.mean(2) * used).sum(1) / used.sum(1).clamp(min=1)
