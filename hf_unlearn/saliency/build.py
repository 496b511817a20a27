"""From a model and its forget rows to a [`SaliencyMask`]."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from hf_unlearn.errors import UserError
from hf_unlearn.saliency.lora_rows import fresh_adapter_mask, is_fresh, zero_layers
from hf_unlearn.saliency.mask import SaliencyMask, model_digest
from hf_unlearn.saliency.measure import measure_saliency, trainable
from hf_unlearn.saliency.selection import check_request, matching_names, select_top
from hf_unlearn.saliency.shards import Reduce, whole
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.predictions import Predictions


def build_mask(
    model: nn.Module,
    task: Task,
    rows,
    *,
    share: float = 0.5,
    scope: str = "global",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    autocast: Callable[[], AbstractContextManager] | None = None,
    loss: Callable[[Predictions], torch.Tensor] | None = None,
    progress: Callable[[int], None] | None = None,
    forget_digest: str | None = None,
    reduce: Reduce | None = None,
    rank: int | None = None,
    world_size: int | None = None,
) -> SaliencyMask:
    """The trainable weights that the forget rows' loss depends on most (SalUn, arXiv 2310.12508, equations 3 and 4).

    A fresh adapter gets whole rows of B ([`fresh_adapter_mask`]), every other model single weights. The model is the
    same afterwards. All processes must call this, and all get the same mask.

    Args:
        model: the original, θ₀.
        rows (`Rows`): the forget rows.
        share, scope, include, exclude: what is kept ([`select_top`]).
        seed: of what is drawn for a fresh adapter.
        forget_digest: says in the saved mask which rows these are.
        batch_size, device, autocast, loss, progress, reduce, rank, world_size: as in [`measure_saliency`].

    Raises:
        `UserError`: as in [`select_top`] and [`measure_saliency`], or no weight has any saliency.
    """
    measuring: dict[str, Any] = {
        "batch_size": batch_size, "device": device, "autocast": autocast, "loss": loss, "progress": progress,
        "reduce": reduce, "rank": rank, "world_size": world_size,
    }  # fmt: skip
    selecting: dict[str, Any] = {"share": share, "scope": scope, "include": include, "exclude": exclude}
    check_request(share, None, scope)
    matching_names(list(trainable(model)), include, exclude)  # a mistake is told before the rows are read
    if is_fresh(model):
        mask = fresh_adapter_mask(model, task, rows, seed=seed, **selecting, **measuring)
    else:
        mask = _elementwise(model, task, rows, selecting, measuring)
    mask.model_digest, mask.forget_digest = model_digest(model), forget_digest
    return mask


def _elementwise(model: nn.Module, task: Task, rows, selecting: dict, measuring: dict) -> SaliencyMask:
    scores = measure_saliency(model, task, rows, **measuring)
    if not any([bool(whole((values != 0).any())) for values in scores.values()]):
        raise UserError("the forget rows give no trainable weight any gradient, so none is salient: check the model")
    masks, threshold = select_top(scores, **selecting)
    zero, other = zero_layers(model)
    notes = []
    if zero:
        notes.append(f"B is still zero in {len(zero)} of {len(zero) + len(other)} layers: A has no saliency there")
    return SaliencyMask(
        masks, threshold, selecting["share"], selecting["scope"],
        tuple(selecting["include"]), tuple(selecting["exclude"]), notes=notes,
    )  # fmt: skip
