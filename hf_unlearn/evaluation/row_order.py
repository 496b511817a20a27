"""Scoring runs rows of like length together, so that little is padded; its arrays are in the order of the rows."""

import numpy as np

from hf_unlearn.data.rows import AnyRows, Rows

MOST_LOGITS = 2**28  # of a scoring batch: 1 GiB in float32, 85 rows of 64 tokens of a vocabulary of 49,152


def longest_first(rows: AnyRows, own: list[int]) -> list[int]:
    """The row numbers `own`, longest texts first, equals in their order; as they are where rows have no length.

    A batch that does not fit the memory is the first one.
    """
    lengths = rows.lengths(own) if isinstance(rows, Rows) else None
    return own if lengths is None else [own[i] for i in np.argsort(-lengths, kind="stable")]


def in_batches(order: list[int], lengths: np.ndarray | None, most: int, vocabulary: int = 0) -> list[list[int]]:
    """The row numbers `order` in batches of at most `most`, of fewer where their logits would be more than
    `MOST_LOGITS`.

    Args:
        lengths: `(len(order),)` tokens of each row, falling; `None` where rows have no length.
        vocabulary: logits of a token; 0 where tokens have none.
    """
    batches, start = [], 0
    while start < len(order):
        tokens = 0 if lengths is None else int(lengths[start])
        size = min(most, max(1, MOST_LOGITS // max(1, tokens * vocabulary)))
        batches.append(order[start : start + size])
        start += size
    return batches


def back_in_order(values: np.ndarray, order: list[int]) -> np.ndarray:
    """`(rows, …)` values that were found in `order`, by ascending row number."""
    return values[np.argsort(order, kind="stable")]


def tokens_in_order(values: np.ndarray, counts: np.ndarray, order: list[int]) -> np.ndarray:
    """`(tokens,)` values, row after row in `order` with `counts` tokens each, by ascending row number."""
    back = np.argsort(order, kind="stable")
    starts, sizes = (np.cumsum(counts) - counts)[back], counts[back]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return values[np.repeat(starts, sizes) + within]
