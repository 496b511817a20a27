"""Texts longer than a model reads at once: a row is several sequences of a batch, and one row of everything else.

A row that says `PART` how many tokens a part may have is cut when rows are collated. A part begins with the last
token of the part before it, so that every token but the row's first is told from something, once; what stands further
back is not seen. The batch then has `OWNER`, each sequence's row.
"""

from collections.abc import Sequence
from typing import Any

import torch

PART, OWNER = "part_length", "owner"


def in_parts(features: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[int]]:
    """Features of sequences, and the row that each belongs to. Tensors of a row are `(length,)`, all alike."""
    sequences, owner = [], []
    for row, feature in enumerate(features):
        tensors = {name: value for name, value in feature.items() if name != PART}
        if PART not in feature:
            sequences.append(tensors)
            owner.append(row)
            continue
        step = int(feature[PART]) - 1
        for start in range(0, len(feature["input_ids"]) - 1, step):
            sequences.append({name: value[start : start + step + 1] for name, value in tensors.items()})
            owner.append(row)
    return sequences, owner


def by_row(values: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """`(sequences, seq, …)` values to `(rows, parts · seq, …)`: a row's sequences one after the other, then zeros."""
    if OWNER not in batch:
        return values
    owner = batch[OWNER]
    counts = torch.bincount(owner)
    first = counts.cumsum(0) - counts
    place = torch.arange(len(owner), device=owner.device) - first[owner]
    spread = values.new_zeros(len(counts), int(counts.max()), *values.shape[1:])
    return spread.index_put((owner, place), values).flatten(1, 2)
