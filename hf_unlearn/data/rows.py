"""Encoded rows of one role: what the samplers index, the trainers read and the scoring pass scores."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from hf_unlearn.data.content import remember_images
from hf_unlearn.data.encoded import EncodedRows


class AnyRows(Protocol):
    """What trainers and the scoring pass need of rows: how many, and their features, several at once."""

    @property
    def indices(self) -> list[int]:
        """Their places in the source."""

    def __len__(self) -> int: ...

    def __getitems__(self, batch: Sequence[int]) -> list[dict[str, Any]]: ...


class Rows(torch.utils.data.Dataset):
    """Rows of a `datasets.Dataset`, encoded by a task: `rows[i]` is the dict of features of row i.

    Args:
        source (`datasets.Dataset`): raw rows.
        task (`Task`): encodes them.
        indices (`Sequence[int]`): which rows of the source, in order.
        cache (`bool`): keep encoded rows, in memory or, where they are many, in a file (see [`EncodedRows`]). Without
            augmentation a row never changes, and each is read several times.
    """

    def __init__(self, source, task, indices: Sequence[int] | None = None, cache: bool = True):
        self.source = source
        self.task = task
        self.indices: list[int] = list(range(len(source))) if indices is None else [int(i) for i in indices]
        self._cache = EncodedRows(len(source)) if cache else None

    def __repr__(self) -> str:
        return f"Rows({len(self):,} of {len(self.source):,} rows, {self.task.name})"

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.__getitems__([i])[0]

    def __getitems__(self, batch: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows at once: one read of the source for all that are not in memory yet."""
        positions = [self.indices[i] for i in batch]
        places = list(dict.fromkeys(positions))
        kept = {} if self._cache is None else {p: self._cache.get(p) for p in places}
        found = {p: features for p, features in kept.items() if features is not None}
        missing = [p for p in places if p not in found]
        if missing:
            raw = self.source[missing]
            fresh = self.task.encode(raw, missing)
            remember_images(self.source, raw, missing)
            if self._cache is not None:
                self._cache.update(missing, fresh)
            found.update(zip(missing, fresh, strict=True))
        return [found[p] for p in positions]

    def lengths(self, which: Sequence[int]) -> np.ndarray | None:
        """Tokens of rows `which`, `(len(which),)`; `None` where rows are no texts, or are not kept once encoded."""
        if self._cache is None or not len(which) or "input_ids" not in self[which[0]]:
            return None
        found = [self._cache.length(self.indices[i], "input_ids") for i in which]
        missing = [place for place, length in enumerate(found) if length is None]
        for start in range(0, len(missing), 256):  # never all of them in memory
            part = missing[start : start + 256]
            for place, row in zip(part, self.__getitems__([which[place] for place in part]), strict=True):
                found[place] = len(row["input_ids"])
        return np.array(found)

    def numbers(self, name: str) -> np.ndarray:
        """A feature of all rows that is a number, as integers: `(rows,)`."""
        kept: list[Any] = [None if self._cache is None else self._cache.value(place, name) for place in self.indices]
        missing = [i for i, value in enumerate(kept) if value is None]
        for start in range(0, len(missing), 256):  # never all of them in memory
            part = missing[start : start + 256]
            for i, row in zip(part, self.__getitems__(part), strict=True):
                kept[i] = row[name]
        return np.array([int(value) for value in kept])

    def select(self, which: Sequence[int] | np.ndarray) -> "Rows":
        """Rows `which` (places in this object, not in the source) as a new object that shares the cache."""
        return self.at([self.indices[i] for i in which])

    def at(self, indices: Sequence[int]) -> "Rows":
        """Rows at these places of the source, in this order, as a new object that shares the cache."""
        other = Rows(self.source, self.task, indices, cache=False)
        other._cache = self._cache
        return other

    def in_own_file(self) -> EncodedRows:
        """From now on what is encoded goes to a file that other processes of this machine can open."""
        self._cache = EncodedRows(len(self.source), shared=True)
        return self._cache

    def share(self, cache: EncodedRows) -> None:
        """Read encoded rows from `cache`, and keep there what else is encoded."""
        self._cache = cache
