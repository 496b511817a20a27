"""Keep exactly the k largest of all saliencies: a radix select over the float bits that neither sorts nor joins.

Non-negative float32 numbers are ordered as their bits are, read as int32. A histogram of the upper 16 bits finds the
bin that holds the k-th largest, a histogram of the lower 16 bits within that bin finds its value γ. Histograms add up
over processes, so sharded tensors need no more than two small sums.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import partial

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.saliency.shards import Reduce, Shards, local, rewrap, shards_of

SCOPES = ("global", "per_tensor")
_BINS = 1 << 16
_NOT_FINITE = 0x7F80  # upper bits of inf and NaN, and above them those of all negative numbers
# Values read at a time: a chunk and its temporaries fit a CPU's cache; on accelerators few launches count for more.
_CHUNK, _CHUNK_ACCELERATOR = 1 << 18, 1 << 24

Pieces = Callable[[], Iterable[tuple[torch.Tensor, Shards]]]


def select_top(
    scores: dict[str, torch.Tensor],
    *,
    share: float | None = None,
    count: int | None = None,
    scope: str = "global",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    reduce: Reduce | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[dict[str, torch.Tensor], float]:
    """Masks of the largest scores, exactly as many as asked for; beyond the masks a few MB of memory.

    Of several scores equal to the threshold the first are kept, in the order of the dict and then of the flat index
    in the whole tensor: the masks are the same however the tensors are sharded.

    Args:
        scores: float32 and not negative, by parameter name. DTensors may be split along their first dimension.
        share: part of the scores to keep, in (0, 1]; rounded to whole numbers, halves up.
        count: how many to keep instead (global scope only).
        scope: `"global"`, one threshold for all, or `"per_tensor"`, the share of each tensor.
        include, exclude: glob patterns of names. Tensors left out keep nothing and do not count into the share.
        reduce, rank, world_size: only where plain tensors are each process's consecutive part of the first dimension:
            sums a tensor over the processes, and which of them this is. Whole copies on every process need none.

    Returns:
        `tuple[dict[str, torch.Tensor], float]`: bool tensors of the scores' shapes, all names; and the smallest
        score that was kept, γ.

    Raises:
        `UserError`: a share outside (0, 1], nothing to keep, an unknown scope, a pattern without a match, or a score
            that is not a finite non-negative number.
    """
    check_request(share, count, scope)
    plain = Shards(rank, world_size, reduce)
    chosen = matching_names(list(scores), include, exclude)
    parts = {name: (_flat(name, scores[name]), shards_of(scores[name], plain, name)) for name in chosen}
    sizes = {name: _whole_size(*part) for name, part in parts.items()}
    jobs = [list(chosen)] if scope == "global" else [[name] for name in chosen]
    found: dict[str, torch.Tensor] = {}
    thresholds: list[float] = []
    for names in jobs:
        total = sum(sizes[name] for name in names)
        k = int((share or 0) * total + 0.5) if count is None else count
        if k > total:
            raise UserError(f"cannot keep {k} of {total} weights: lower the count or widen the patterns")
        if k:
            masks, threshold = _largest({name: parts[name] for name in names}, k)
            found |= masks
            thresholds.append(threshold)
    if not thresholds:
        raise UserError("the saliency mask would keep no weight at all: raise the share")
    return {name: _as(found.get(name), value) for name, value in scores.items()}, min(thresholds)


def matching_names(names: Sequence[str], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    """Names that match a pattern of `include` (all, if it is empty) and none of `exclude`, in order.

    Raises `UserError` for a pattern that matches nothing, or if nothing is left.
    """
    for pattern in (*include, *exclude):
        if not any(fnmatchcase(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern.replace("*", ""), names, n=3, cutoff=0.0)
            raise UserError(f"the pattern {pattern!r} matches no trainable parameter; the nearest: {', '.join(near)}")
    kept = [name for name in names if not include or any(fnmatchcase(name, pattern) for pattern in include)]
    kept = [name for name in kept if not any(fnmatchcase(name, pattern) for pattern in exclude)]
    if not kept:
        raise UserError("the saliency patterns leave no trainable parameter: include more or exclude less")
    return kept


def kth_largest(pieces: Pieces, k: int) -> tuple[int, int, int]:
    """The k-th largest value among all pieces, k ≥ 1, in two passes over them.

    Args:
        pieces: gives flat float32 tensors and their places; called once per pass, so they may be made on the fly.

    Returns:
        `tuple[int, int, int]`: the value's bits, how many values are larger, and how many are equal to it.

    Raises:
        `UserError`: a value that is not a finite non-negative number.
    """
    upper = _histogram(pieces, _upper_bits)
    if upper[_NOT_FINITE:].any():
        raise UserError("the saliency holds values that are not finite: check the model's weights and the precision")
    high, above, _ = _bin_of(upper, k)
    lower = _histogram(pieces, partial(_lower_bits, high))
    low, more, equal = _bin_of(lower, k - above)
    return high << 16 | low, above + more, equal


def as_float(bits: int) -> float:
    """The float32 number with these bits."""
    return torch.tensor(bits, dtype=torch.int32).view(torch.float32).item()


def check_request(share: float | None, count: int | None, scope: str) -> None:
    """Raises `UserError` for what [`select_top`] refuses without looking at the scores."""
    if scope not in SCOPES:
        raise UserError(f"the saliency scope {scope!r} is unknown: choose {' or '.join(SCOPES)}")
    if (share is None) == (count is None):
        raise ValueError("give a share or a count")
    if count is not None and (scope != "global" or count < 1):
        raise UserError("a count of weights to keep must be at least 1 and goes with the global scope only")
    if share is not None and not 0 < share <= 1:
        raise UserError(f"the share of weights to keep must lie in (0, 1], not {share}")


def _flat(name: str, scores: torch.Tensor) -> torch.Tensor:
    if scores.dtype != torch.float32:
        raise ValueError(f"scores of {name} are {scores.dtype}, not float32")
    return local(scores).reshape(-1)


def _whole_size(part: torch.Tensor, shards: Shards) -> int:
    return int(shards.total(torch.tensor(part.numel(), device=part.device)))


def _as(mask: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    here = local(like)
    mask = torch.zeros_like(here, dtype=torch.bool) if mask is None else mask.view(here.shape)
    return rewrap(mask, like)


def _chunks(flat: torch.Tensor) -> Iterable[torch.Tensor]:
    """The float bits as int32, in chunks; one empty chunk for an empty tensor."""
    return flat.view(torch.int32).split(_CHUNK if flat.device.type == "cpu" else _CHUNK_ACCELERATOR)


def _upper_bits(bits: torch.Tensor) -> torch.Tensor:
    return (bits >> 16).bitwise_and_(_BINS - 1)


def _lower_bits(high: int, bits: torch.Tensor) -> torch.Tensor:
    """Lower 16 bits of those values whose upper bits are `high`."""
    if bits.device.type == "cpu":  # numpy picks few out of many three times as fast
        values = bits.numpy()
        return torch.from_numpy(values[values >> 16 == high]).bitwise_and_(_BINS - 1)
    return bits[bits >> 16 == high].bitwise_and_(_BINS - 1)


def _histogram(pieces: Pieces, index: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """How many values have which index: `(65536,)` int64 on the CPU, over all processes."""
    counts: dict[tuple[Shards, torch.device], torch.Tensor] = {}
    for flat, shards in pieces():
        key = (shards, flat.device)
        if key not in counts:
            counts[key] = torch.zeros(_BINS, dtype=torch.int64, device=flat.device)
        for bits in _chunks(flat):
            counts[key] += torch.bincount(index(bits), minlength=_BINS)
    return torch.stack([shards.total(count).cpu() for (shards, _), count in counts.items()]).sum(0)


def _bin_of(histogram: torch.Tensor, k: int) -> tuple[int, int, int]:
    """The bin of the k-th largest, how many lie in higher bins, and how many in this one."""
    from_top = histogram.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, k))
    inside = int(histogram[-1 - place])
    return len(histogram) - 1 - place, int(from_top[place]) - inside, inside


def _largest(parts: dict[str, tuple[torch.Tensor, Shards]], k: int) -> tuple[dict[str, torch.Tensor], float]:
    """Flat masks of this process's parts of the k largest, and the smallest of those."""
    gamma, above, equal = kth_largest(lambda: parts.values(), k)
    wanted = k - above
    if wanted == equal:
        masks = {name: flat.view(torch.int32) >= gamma for name, (flat, _) in parts.items()}
        return masks, as_float(gamma)
    masks, before = {}, 0
    for name, ties in _ties(parts, gamma).items():
        flat, shards = parts[name]
        masks[name] = _with_first_ties(flat, gamma, wanted - before - sum(ties[: shards.rank]))
        before += sum(ties)
    return masks, as_float(gamma)


def _ties(parts: dict[str, tuple[torch.Tensor, Shards]], gamma: int) -> dict[str, list[int]]:
    """How many values equal to γ each process holds of each tensor."""
    groups: dict[tuple[Shards, torch.device], list[str]] = {}
    for name, (flat, shards) in parts.items():
        groups.setdefault((shards, flat.device), []).append(name)
    ties: dict[str, list[int]] = {}
    for (shards, device), names in groups.items():
        counts = torch.zeros(len(names), shards.size, dtype=torch.int64, device=device)
        for row, name in enumerate(names):
            counts[row, shards.rank] = sum((bits == gamma).sum() for bits in _chunks(parts[name][0]))
        ties |= dict(zip(names, shards.total(counts).tolist(), strict=True))
    return {name: ties[name] for name in parts}


def _with_first_ties(flat: torch.Tensor, gamma: int, wanted: int) -> torch.Tensor:
    """Mask of what is larger than γ, and of the first `wanted` (all, if fewer) that are equal to it."""
    mask = flat.view(torch.int32) > gamma
    start = 0
    for bits in _chunks(flat):
        if wanted <= 0:
            break
        tie = bits == gamma
        here = int(tie.sum())
        if here > wanted:
            tie = tie & (tie.cumsum(0) <= wanted)
        mask[start : start + len(bits)] |= tie
        start, wanted = start + len(bits), wanted - here
    return mask
