"""Weight saliency (SalUn, Fan et al. 2024, arXiv 2310.12508, section 4): |gradient of the forget loss| at θ₀."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.utils.data import DataLoader

from hf_unlearn.errors import UserError
from hf_unlearn.saliency.shards import Reduce, Shards, default_processes, is_dtensor, is_spread
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import eval_mode, without_data_parallel
from hf_unlearn.tasks.predictions import Predictions


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that training would move, tied ones once, by name without the prefixes of DDP and `torch.compile`."""
    inner = without_data_parallel(model)
    return {name: parameter for name, parameter in inner.named_parameters() if parameter.requires_grad}


def measure_saliency(model: nn.Module, task: Task, rows, **options) -> dict[str, torch.Tensor]:
    """|Σᵢ ∇θ ℓᵢ(θ)| / n over the n `rows`: the sum keeps its signs, the absolute value comes last.

    `options`, the tensors that come back and what is raised are those of [`mean_gradients`].
    """
    return {name: values.abs_() for name, values in mean_gradients(model, task, rows, **options).items()}


def mean_gradients(
    model: nn.Module,
    task: Task,
    rows,
    *,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    autocast: Callable[[], AbstractContextManager] | None = None,
    loss: Callable[[Predictions], torch.Tensor] | None = None,
    parameters: dict[str, nn.Parameter] | None = None,
    progress: Callable[[int], None] | None = None,
    reduce: Reduce | None = None,
    rank: int | None = None,
    world_size: int | None = None,
) -> dict[str, torch.Tensor]:
    """Σᵢ ∇θ ℓᵢ(θ) / n over the n `rows`, in eval mode.

    Every row weighs the same, whatever the batches. Weights, buffers, training flags, `requires_grad` and the global
    random generators are the same afterwards; every `.grad` is `None`. Needs room for two more float32 copies of
    the scored parameters. Over several processes each reads its share of the rows, and all must call this.

    Args:
        model: wrapped by DDP, or sharded by FSDP2, or plain.
        task: collates rows and turns the model's output into predictions.
        rows (`Rows`): what the loss is about.
        batch_size: rows per forward on each process.
        device: where batches go; by default where the first parameter is.
        autocast: gives the context manager of one forward (mixed precision).
        loss: `(size,)` values from predictions. Default: the task's own, `predictions.loss`.
        parameters: which to score, by name. Default: all [`trainable`] ones.
        progress: called after each batch with the number of rows that this process read.
        reduce, rank, world_size: how to sum a tensor over the processes, and which of them this is. Default: those
            of `torch.distributed`, where it runs.

    Returns:
        `dict[str, torch.Tensor]`: float32, each of its parameter's shape; a DTensor where the parameter is one.

    Raises:
        `UserError`: there are no rows, or the parameters are sharded in a way that gradients cannot be read from.
    """
    inner = without_data_parallel(model)
    parameters = trainable(inner) if parameters is None else parameters
    processes = default_processes(reduce, rank, world_size)
    _check(inner, parameters, rows, processes)
    inner.zero_grad(set_to_none=True)
    try:
        sums = dict.fromkeys(parameters)
        with eval_mode(inner), torch.enable_grad():
            for predictions, weights in _forwards(inner, task, rows, processes, batch_size, device, autocast):
                losses = predictions.loss if loss is None else loss(predictions)
                (losses * losses.new_tensor(weights)).sum().backward()
                _move_gradients(sums, parameters)
                if progress is not None:
                    progress(int(sum(weights)))
    finally:
        inner.zero_grad(set_to_none=True)
    return {name: _finish(sums.pop(name), parameter, len(rows), processes) for name, parameter in parameters.items()}


def _forwards(
    model: nn.Module,
    task: Task,
    rows,
    processes: Shards,
    batch_size: int,
    device: torch.device | str | None,
    autocast: Callable[[], AbstractContextManager] | None,
) -> Iterator[tuple[Predictions, list[float]]]:
    """Predictions for this process's batches, and what each row's loss weighs."""
    device = next(model.parameters()).device if device is None else device
    lockstep = is_spread(model)
    batches, weights = _batches(len(rows), processes, batch_size, lockstep)
    loader = DataLoader(rows, batch_sampler=batches, collate_fn=task.collate, generator=torch.Generator())
    for batch, weight in zip(loader, weights, strict=True):
        batch = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
        with autocast() if autocast is not None else nullcontext():
            predictions = task.predict(model, batch)
        yield predictions, weight


def _check(model: nn.Module, parameters: dict[str, nn.Parameter], rows, processes: Shards) -> None:
    if not len(rows):
        raise UserError("there are no forget rows to measure saliency on: choose some with the forget request")
    if not parameters:
        raise UserError("the model has no trainable weights to measure saliency of: unfreeze some")
    if any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules()) or any(
        hasattr(p, "ds_id") for p in parameters.values()
    ):
        raise UserError("saliency cannot be read from parameters of FSDP version 1 or ZeRO-3: use FSDP version 2")
    for name, parameter in parameters.items():
        # Their gradients are averages over the mesh; the sum is known only where each of its processes reads rows.
        if is_dtensor(parameter) and parameter.device_mesh.size() != processes.size:
            raise UserError(f"{name} is spread over other processes than share the forget rows: use FSDP2 alone")


def _batches(
    size: int, processes: Shards, batch_size: int, lockstep: bool
) -> tuple[list[list[int]], list[list[float]]]:
    """This process's batches of row numbers, and what each row's loss weighs.

    Shares are disjoint and cover all rows. In lockstep (a forward of FSDP communicates) every process runs as many
    batches as the others: shorter shares are filled up with a row that weighs 0.
    """
    start, end = size * processes.rank // processes.size, size * (processes.rank + 1) // processes.size
    own = list(range(start, end))
    filler = -(-size // processes.size) - len(own) if lockstep else 0
    numbers, weights = own + [size - 1] * filler, [1.0] * len(own) + [0.0] * filler
    starts = range(0, len(numbers), batch_size)
    return [numbers[i : i + batch_size] for i in starts], [weights[i : i + batch_size] for i in starts]


def _move_gradients(sums: dict[str, torch.Tensor | None], parameters: dict[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            gradient, parameter.grad = parameter.grad.detach(), None
            before = sums[name]
            sums[name] = gradient.float() if before is None else before.add_(gradient)


def _finish(total: torch.Tensor | None, parameter: nn.Parameter, n: int, processes: Shards) -> torch.Tensor:
    """Sum over the processes / n. It is 0 for a parameter that the loss does not reach."""
    if total is None:
        total = torch.zeros_like(parameter, dtype=torch.float32).detach()
    if is_dtensor(total) and is_dtensor(parameter):
        total = total.redistribute(parameter.device_mesh, parameter.placements)
        scale = processes.size / n  # FSDP2 has averaged over the processes
    else:
        total, scale = processes.total(total), 1 / n
    return total.mul_(scale).contiguous()
