"""Relearn time: how soon fine-tuning on the forget rows brings back what the original knew of them.

A model that only hides what it knows needs a few steps, a retrained one as many as it takes to learn something new.
The figure means something only beside that of the twins, with the same rows, rate, batch and seed.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.models import lora
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import kept_randomness, without_wrappers


@dataclass(frozen=True)
class Relearning:
    """How one model relearned.

    Args:
        steps: optimizer steps until the accuracy reached `target`; `None` if `accuracy` ends below it.
        target: the accuracy that counts as relearned, in [0, 1].
        accuracy: on all forget rows before the first step, then every `every` steps until the target or the cap.
        every: steps between two measurements; `steps` is a multiple of it.
    """

    steps: int | None
    target: float
    accuracy: tuple[float, ...]
    every: int


def relearn(
    model: torch.nn.Module,
    task: Task,
    rows: Rows,
    *,
    original_accuracy: float,
    learning_rate: float,
    batch_size: int = 32,
    margin: float = 0.05,
    max_steps: int = 200,
    every: int = 1,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Relearning:
    """Fine-tune a copy of `model` on `rows` (the forget rows) with plain AdamW until it knows them again.

    All weights are trained where the model has an adapter or frozen parts: what matters is what is left, not what the
    method was allowed to move. Those in half precision are widened, or small steps would be rounded away. Dropout is
    off, the rate constant, and the order of the rows depends on `seed` alone.
    `model`, its mode and the global random generators are left as they were.

    Args:
        original_accuracy: of the original on `rows`, in [0, 1].
        learning_rate: of AdamW without decay; take that of the recipe.
        batch_size: rows per step, at most all of them.
        margin: how far below the original's accuracy counts as relearned.
        max_steps: cap.
        every: measure the accuracy every so many steps.

    Raises:
        `UserError`: no rows, or a number that makes no sense.
    """
    if not len(rows):
        raise UserError("relearn time needs at least one forget row")
    if min(batch_size, max_steps, every) < 1 or learning_rate <= 0 or not 0 <= margin < 1:
        raise UserError("relearn time: batch, steps and rate must be above 0, and the margin in [0, 1)")
    device = next(model.parameters()).device if device is None else torch.device(device)
    target = original_accuracy - margin
    with kept_randomness(device):
        torch.manual_seed(seed)
        model = _widened(trainable_copy(model)).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
        order = _Order(len(rows), min(batch_size, len(rows)), seed)
        accuracy = [_accuracy(model, task, rows, batch_size)]
        step = 0
        while accuracy[-1] < target and step < max_steps:
            _step(model, task, rows, order.batch(step), optimizer, device)
            step += 1
            if step % every == 0:
                accuracy.append(_accuracy(model, task, rows, batch_size))
    return Relearning(step if accuracy[-1] >= target else None, target, tuple(accuracy), every)


def fine_tuned_copy(
    model: torch.nn.Module,
    task: Task,
    rows: Rows,
    *,
    steps: int,
    learning_rate: float,
    batch_size: int = 32,
    seed: int = 0,
    device: torch.device | str | None = None,
    watch: Callable[[int, torch.nn.Module], None] | None = None,
) -> torch.nn.Module:
    """A copy of `model` after `steps` steps on `rows`, under the same conditions as in [`relearn`].

    `watch` is called with the number of steps done and the copy after each of them; it must leave the copy as it is.
    """
    device = next(model.parameters()).device if device is None else torch.device(device)
    with kept_randomness(device):
        torch.manual_seed(seed)
        model = _widened(trainable_copy(model)).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
        order = _Order(len(rows), min(batch_size, len(rows)), seed)
        for step in range(steps):
            _step(model, task, rows, order.batch(step), optimizer, device)
            if watch is not None:
                watch(step + 1, model)
        optimizer.zero_grad()
    return model


def _step(model, task: Task, rows: Rows, places: list[int], optimizer: torch.optim.Optimizer, device) -> None:
    batch = task.collate(rows.__getitems__(places))
    batch = {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}
    optimizer.zero_grad()
    task.predict(model, batch).loss.mean().backward()
    optimizer.step()


class _Order:
    """Rows of each step: passes over all rows, each in an order of its own; the last of a pass may be fewer."""

    def __init__(self, rows: int, batch: int, seed: int):
        self.rows, self.batch_size, self.seed = rows, batch, seed

    def batch(self, step: int) -> list[int]:
        epoch, at = divmod(step, -(-self.rows // self.batch_size))
        order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        return order[at * self.batch_size : (at + 1) * self.batch_size].tolist()


def trainable_copy(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of the effective model, an adapter merged into it, with all weights trainable, in eval mode."""
    model = without_wrappers(model)
    copied = lora.merge(model) if lora.is_peft(model) else copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return copied.eval()


def _widened(model: torch.nn.Module) -> torch.nn.Module:
    """`model` with its half-precision weights in float32, in place; a quantized one as it is."""
    if not getattr(model, "is_quantized", False):
        for weight in model.parameters():
            if weight.dtype in (torch.float16, torch.bfloat16):
                return model.float()
    return model


def _accuracy(model: torch.nn.Module, task: Task, rows: Rows, batch_size: int) -> float:
    return float(score(model, task, rows, batch_size=max(batch_size, 64)).correct.mean())
