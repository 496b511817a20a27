"""UNSIR's noise in the place of the forget rows: rows that lend it their structure, and the order of the paper."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from hf_unlearn.data.rows import Rows
from hf_unlearn.trainers.random_streams import Stream, random_numbers
from hf_unlearn.trainers.sampler import JointSampler
from hf_unlearn.trainers.schedule import FORGET, RETAIN

NOISE, IMPAIR, REPAIR = "noise", "impair", "repair"  # the phases
PAPER_COPIES = 20  # of each noise batch in the published impair epoch


class NoiseRows:
    """Rows that lend noise their structure: real *retain* rows, with the forgotten classes as labels.

    Args:
        rows (`Rows`): the retain subset.
        templates (`np.ndarray`): `(n,)`, which of them each row of noise takes length and special tokens from.
        labels (`np.ndarray`): `(n,)`, class ids.
    """

    def __init__(self, rows: Rows, templates: np.ndarray, labels: np.ndarray):
        self.rows = rows
        self.templates = templates
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def indices(self) -> list[int]:
        """Places in the source of the rows that lend their structure."""
        return [self.rows.indices[int(i)] for i in self.templates]

    def __getitems__(self, batch: Sequence[int]) -> list[dict[str, Any]]:
        features = self.rows.__getitems__([int(self.templates[i]) for i in batch])
        return [{**row, "labels": int(self.labels[i])} for row, i in zip(features, batch, strict=True)]


class PublishedSampler(JointSampler):
    """The published order: impairing reads 20 copies of the noise and the retain subset, shuffled together; repairing
    reads the subset once."""

    def __init__(self, sampler: JointSampler):
        super().__init__(
            sampler.schedule, sampler.streams, sampler.seed, sampler.accumulation, sampler.world_size, sampler.rank,
            sampler.ends_passes,
        )  # fmt: skip

    @cached_property
    def _union(self) -> np.ndarray:
        """Retain rows as they are numbered, and noise rows below 0: row i is −1 − i."""
        noise, retain = self.streams[FORGET].rows, self.streams[RETAIN].rows
        items = np.concatenate([np.arange(retain), -1 - np.tile(np.arange(noise), PAPER_COPIES)])
        return random_numbers(self.seed, Stream.NOISE_ORDER).permutation(items)

    def rows(self, step: int) -> dict[str, np.ndarray]:
        phase, at = self.schedule.at(step)
        size = self.streams[RETAIN].batch
        if phase.name == IMPAIR:
            at %= -(-len(self._union) // size)
            items = self._union[at * size : (at + 1) * size]
            return {FORGET: -1 - items[items < 0], RETAIN: items[items >= 0]}
        if phase.name == REPAIR:
            return {RETAIN: self._stream_rows(RETAIN, at)}
        return {}
