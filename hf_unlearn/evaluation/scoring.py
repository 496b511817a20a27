"""The one scoring pass: a split runs through a model once, and every metric is computed from the arrays it leaves."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from hf_unlearn.data.rows import AnyRows, Rows
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.evaluation.row_order import back_in_order, in_batches, longest_first, tokens_in_order
from hf_unlearn.evaluation.said import Listener
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.evaluation.token_scores import TokenScores
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import eval_mode
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.tasks.supervised_head import vocabulary_of

Measure = Callable[[Predictions], torch.Tensor]

ARRAYS = ("loss", "log_odds", "correct", "confidence", "entropy", "modified_entropy", "label")
TOKEN_ARRAYS = {
    "log_prob": "token_log_prob",
    "is_argmax": "token_is_argmax",
    "mean_log_prob": "token_mean_log_prob",
    "sd_log_prob": "token_sd_log_prob",
}


def score(
    model: torch.nn.Module,
    task: Task,
    rows: Rows,
    *,
    said: bool = False,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    num_workers: int = 0,
    autocast: Callable[[], AbstractContextManager] | None = None,
    progress: Callable[[int], None] | None = None,
) -> SplitScores:
    """Run every row through the model once, in eval mode, and return the per-example arrays in row order.

    Texts run longest first, those of like length together.

    Neither the weights, nor any module's training flag, nor a global random generator is different afterwards. When
    `torch.distributed` runs several processes, all of them must call this: each scores its share of the rows, and each
    gets the arrays of all of them.

    Args:
        model (`torch.nn.Module`): wrapped by DDP, FSDP or nothing.
        task (`Task`): collates rows and turns the model's output into predictions.
        rows (`Rows`): what to score; may be empty.
        said (`bool`): of language models, also keep all words in the places of a sample of tokens.
        batch_size (`int`): rows per forward on each process, at most: language models take fewer of long rows, so that
            the logits of a batch stay below 1 GiB.
        device: where batches go; by default where the model's first parameter is.
        num_workers (`int`): worker processes that load and collate rows.
        autocast: gives the context manager of one forward (mixed precision). Logits are widened to float32 either way.
        progress: called after each forward with the number of rows this process put through the model.
    """
    measures, listener = {name: attrgetter(name) for name in (*ARRAYS, *task.arrays)}, Listener()
    arrays = collect(
        model,
        task,
        rows,
        measures,
        hear=listener.hear if said else None,
        batch_size=batch_size,
        device=device,
        num_workers=num_workers,
        autocast=autocast,
        progress=progress,
    )
    return SplitScores(**arrays, said=listener.said(_of_all) if said else None)


def score_tokens(
    model: torch.nn.Module, task: Task, rows: Rows, *, said: bool = False, **options
) -> tuple[SplitScores, TokenScores]:
    """[`score`], and from the same pass the figures of every supervised token (causal LMs).

    `options` are those of [`score`].
    """
    measures = {name: attrgetter(name) for name in ARRAYS}
    token_measures = {name: attrgetter(source) for name, source in TOKEN_ARRAYS.items()}
    listener = Listener()
    hear = listener.hear if said else None
    arrays = collect(model, task, rows, measures, token_measures, hear=hear, **options)
    count = arrays.pop("token_count").astype(int)
    tokens = {name: arrays.pop(name) for name in token_measures}
    scores = SplitScores(**arrays, said=listener.said(_of_all) if said else None)
    return scores, TokenScores(**tokens, count=count)


def collect(
    model: torch.nn.Module,
    task: Task,
    rows: AnyRows,
    measures: Mapping[str, Measure],
    token_measures: Mapping[str, Measure] | None = None,
    *,
    places: bool = False,
    hear: Callable[[Sequence[int], Predictions], None] | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    num_workers: int = 0,
    autocast: Callable[[], AbstractContextManager] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """The pass behind [`score`], for any figures of [`Predictions`]: `(rows, …)` float64 per measure, in row order
    (int32 where the measure gives that).

    With `token_measures`, which give a figure for each row of logits, also `(tokens,)` float64 for each of these,
    example by example, and `token_count`, `(rows,)`. With `places` also `place`, `(rows, dim)`, where the model places
    the rows ([`Task.embed`]). `hear` gets each batch: the numbers of its rows, where weights are spread over processes
    some of them once more, and what was said of them.
    """
    of_tokens: dict[str, Measure] = dict(token_measures or {})
    count: dict[str, Measure] = {"token_count": attrgetter("token_count")} if of_tokens else {}
    per_example = {**measures, **count}
    model = _unwrapped(model)
    device = next(model.parameters()).device if device is None else device
    rank, world = _rank_and_world()
    lockstep = _communicates_in_forward(model)
    own, filling = _share(len(rows), rank, world, lockstep=lockstep)
    order = longest_first(rows, own)
    lengths = None if lockstep or not isinstance(rows, Rows) else rows.lengths(order)  # in lockstep all sizes agree
    batches = in_batches(order + filling, lengths, batch_size, vocabulary_of(model))
    pinned = num_workers > 0 and torch.device(device).type == "cuda"
    loader = _loader(rows, task, batches, num_workers, pinned)
    of_rows = [*per_example, *(["place"] if places else [])]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in [*of_rows, *of_tokens]}
    # no_grad, not inference_mode: what a module caches in its forward must stay usable in a later training step.
    with eval_mode(model), torch.no_grad():
        for numbers, batch in zip(batches, loader, strict=True):
            batch = {k: v.to(device, non_blocking=pinned) if torch.is_tensor(v) else v for k, v in batch.items()}
            with autocast() if autocast is not None else nullcontext():
                predictions, found = _forward(model, task, batch, places)
            found |= {name: measure(predictions) for name, measure in (per_example | of_tokens).items()}
            for name, values in found.items():
                values = values.cpu()  # first: some accelerators have no float64
                parts[name].append((values if values.dtype == torch.int32 else values.double()).numpy())
            if hear is not None:
                hear(numbers, predictions)
            if progress is not None:
                progress(predictions.size)
    arrays = {name: np.concatenate(part) if (part := parts.pop(name)) else np.empty(0) for name in list(parts)}
    # What fills up the last batches follows the own rows, and its tokens theirs.
    arrays |= {name: arrays[name][: len(own)] for name in of_rows}
    if of_tokens:
        counts = arrays["token_count"].astype(np.int64)
        arrays |= {name: tokens_in_order(arrays[name][: counts.sum()], counts, order) for name in of_tokens}
    arrays |= {name: back_in_order(arrays[name], order) for name in of_rows}
    return _gathered(arrays) if world > 1 else arrays


def _loader(rows: AnyRows, task: Task, batches: list[list[int]], num_workers: int, pinned: bool) -> DataLoader[Any]:
    # `iter()` of a DataLoader draws a seed, here from a generator of its own instead of the global one.
    dataset: Any = rows
    ways: Any = {"num_workers": num_workers, "pin_memory": pinned, "generator": torch.Generator()}
    return DataLoader(dataset, batch_sampler=batches, collate_fn=task.collate, **ways)


def _forward(
    model: torch.nn.Module, task: Task, batch: dict[str, Any], places: bool
) -> tuple[Predictions, dict[str, torch.Tensor]]:
    if not places:
        return task.predict(model, batch), {}
    predictions, place = task.predict_and_embed(model, batch)
    return predictions, {"place": place}


def score_splits(
    model: torch.nn.Module,
    task: Task,
    splits: UnlearningSplits,
    names: Iterable[str],
    *,
    said: Collection[str] = (),
    **options,
) -> dict[str, SplitScores]:
    """[`score`] for several roles, by name (`"forget"`, `"retain"`, `"test"`, `"nonmembers"`, …).

    Roles that are the same rows (`nonmembers` is `test` unless classes are removed) are run through the model once.
    Of the roles in `said` also what language models say is kept. `options` are those of [`score`].
    """
    scored: dict[int, SplitScores] = {}
    result = {}
    for name in names:
        rows = getattr(splits, name)
        if id(rows) not in scored:
            scored[id(rows)] = score(model, task, rows, said=name in said and task.generates, **options)
        result[name] = scored[id(rows)]
    return result


def _rank_and_world() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _share(size: int, rank: int, world: int, lockstep: bool) -> tuple[list[int], list[int]]:
    """Numbers of this process's own rows, and of what it runs after them.

    Shares are contiguous, so that joined in the order of the ranks they are the split. In lockstep every process runs
    the same number of batches of the same sizes: shares are filled up with repeats.
    """
    start, end = size * rank // world, size * (rank + 1) // world
    missing = -(-size // world) - (end - start) if lockstep and size else 0
    return list(range(start, end)), [size - 1] * missing


def _gathered(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    shares, joined = _of_all(arrays), {}
    for name in arrays:
        filled = [share[name] for share in shares if len(share[name])]  # an empty share does not know its width
        joined[name] = np.concatenate(filled) if filled else np.empty(0)
    return joined


def _of_all(own: Any) -> list[Any]:
    """What each process has, in the order of their ranks."""
    shares: list[Any] = [own] * _rank_and_world()[1]
    if len(shares) > 1:
        dist.all_gather_object(shares, own)
    return shares


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The module inside DDP and DataParallel: without gradients their wrappers only add communication."""
    wrappers = (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)
    return model.module if isinstance(model, wrappers) else model


def _communicates_in_forward(model: torch.nn.Module) -> bool:
    """Whether weights are spread over processes (FSDP, tensor parallelism, ZeRO-3): then all must run in lockstep."""
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        return True
    return any(type(p).__name__ == "DTensor" or hasattr(p, "ds_id") for p in model.parameters())
