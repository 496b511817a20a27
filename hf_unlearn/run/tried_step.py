"""What a run will read, and how long a row takes: one step is tried, forward and backward without an update."""

import time
from typing import Any

import torch

from hf_unlearn.trainers.base import UnlearningTrainer


def rows_to_read(trainer: UnlearningTrainer) -> tuple[int, int]:
    """Rows, each counted once per pass: as planned, and where the run is prolonged as far as it can be."""
    step = sum(size.batch for size in trainer.stream_sizes().values())
    rows = trainer.rows_of_steps() + trainer.rows_beside_steps()
    return rows, rows + (trainer.schedule.most_steps - trainer.schedule.total_steps) * step


def seconds_per_row(trainer: UnlearningTrainer) -> tuple[float, float]:
    """Of all processes together: a step's, over as many kept rows as a micro-batch has, and those of a forward alone.
    The second of two is timed: the first one warms up."""
    model, task, device = trainer.model, trainer.task, trainer.args.device
    size = min(trainer.args.per_device_train_batch_size, len(trainer.splits.retain))
    batch: dict[str, Any] = task.collate(trainer.splits.retain.__getitems__(range(size)))
    batch = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
    rows = size * trainer.args.world_size
    step, forward = 0.0, 0.0
    for _ in range(2):
        start = time.perf_counter()
        with trainer.compute_loss_context_manager():
            loss = task.predict(model, batch).loss.mean()
        if loss.requires_grad:
            loss.backward()
        step = _since(start, device)
        model.zero_grad(set_to_none=True)
        start = time.perf_counter()
        with torch.no_grad(), trainer.compute_loss_context_manager():
            task.predict(model, batch)
        forward = _since(start, device)
    return step / rows, forward / rows


def _since(start: float, device: torch.device) -> float:
    """Seconds, once the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
