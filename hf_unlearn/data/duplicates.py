"""Retained rows that repeat a forgotten one: while they stay, the model keeps learning what it should forget."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_unlearn.data.columns import may_repeat
from hf_unlearn.data.content import row_digests

MOST_UNRELATED = 4096  # unseen rows that set the threshold


@dataclass(frozen=True)
class NearDuplicates:
    """Retained rows that nearly repeat a forgotten one.

    Args:
        count: how many.
        positions: `(count,)` places among the retained rows, sorted.
        threshold: cosine similarity above which a row counts; `inf` when there are no unrelated rows to set it.
    """

    count: int
    positions: np.ndarray
    threshold: float


def exact_duplicates(train, columns: Sequence[str], forget: np.ndarray) -> np.ndarray:
    """Places in `train`, sorted, of the rows outside `forget` whose `columns` equal those of a row in `forget`.

    Pass the input columns only: labels and ids differ between copies of the same content.
    """
    forgotten = np.zeros(len(train), dtype=bool)
    forgotten[forget] = True
    places = may_repeat(train, columns, [train.select(forget)])
    digests = row_digests(train if len(places) == len(train) else train.select(places), columns)
    wanted = {digest for place, digest in zip(places, digests, strict=True) if forgotten[place]}
    found = zip(places, digests, strict=True)
    return np.array([place for place, d in found if not forgotten[place] and d in wanted], dtype=np.int64)


def near_duplicates(
    forget: np.ndarray, retain: np.ndarray, unrelated: np.ndarray, quantile: float = 0.999
) -> NearDuplicates:
    """Retained rows more similar to a forget row than unseen rows ever are to their nearest retained row.

    Args:
        forget, retain, unrelated (`np.ndarray`): embeddings `(rows, dim)`; the unrelated rows are unseen ones. At most
            4,096 of them are compared: the cost grows with the retained rows, not with their square.
        quantile (`float`): of the unrelated rows' nearest similarities; the threshold.
    """
    if len(unrelated) > MOST_UNRELATED:
        unrelated = unrelated[np.sort(np.random.default_rng(0).permutation(len(unrelated))[:MOST_UNRELATED])]
    forget, retain, unrelated = (_unit(part) for part in (forget, retain, unrelated))
    if not len(unrelated) or not len(forget) or not len(retain):
        return NearDuplicates(0, np.zeros(0, dtype=np.int64), float("inf"))
    threshold = float(np.quantile(_nearest(unrelated, retain), quantile))
    positions = repeating(retain, forget, threshold)
    return NearDuplicates(len(positions), positions, threshold)


def repeating(rows: np.ndarray, others: np.ndarray, threshold: float) -> np.ndarray:
    """Places, sorted, of the `rows` `(n, dim)` more similar than `threshold` to any of `others` `(m, dim)`."""
    if not len(rows) or not len(others):
        return np.zeros(0, dtype=np.int64)
    # Copies among the unseen rows push the quantile to 1; rounding must not make everything at 1 a hit or a miss.
    return np.flatnonzero(_nearest(_unit(rows), _unit(others)) > min(threshold, 1 - 1e-6))


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def _nearest(rows: np.ndarray, others: np.ndarray, block: int = 1024) -> np.ndarray:
    """Largest cosine similarity of each unit row `(n, dim)` to any of `others` `(m, dim)`: `(n,)`, in blocks."""
    best = np.full(len(rows), -np.inf, dtype=np.float32)
    for i in range(0, len(rows), block):
        for j in range(0, len(others), 16 * block):
            similar = rows[i : i + block] @ others[j : j + 16 * block].T
            best[i : i + block] = np.maximum(best[i : i + block], similar.max(axis=1))
    return best
