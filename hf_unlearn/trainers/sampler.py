"""Which rows make which micro-batch: a pure function of the seed, the step and the process, with no state to save."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hf_unlearn.trainers.random_streams import Stream, random_numbers
from hf_unlearn.trainers.schedule import FILLER, FORGET, RETAIN, Schedule

# Tokens of rows of a stream; `None` where they have none, or none is known.
Lengths = Callable[[str, np.ndarray], np.ndarray | None]

_ORDERS = {FORGET: Stream.FORGET_ORDER, RETAIN: Stream.RETAIN_ORDER}


@dataclass(frozen=True)
class StreamSize:
    """Rows of a stream and how many of them a whole optimizer step takes, over all micro-batches and processes."""

    rows: int
    batch: int

    def __post_init__(self):
        if self.rows < 1 or self.batch < 1:
            raise ValueError("a stream needs at least one row and one row per batch")

    @property
    def batches(self) -> int:
        """Batches in one pass, a smaller last one included."""
        return -(-self.rows // self.batch)

    def read(self, steps: int, ends_passes: bool) -> int:
        """Rows that so many steps read, where passes end with a smaller batch or run on."""
        whole, rest = divmod(steps, self.batches)
        return whole * self.rows + rest * self.batch if ends_passes else steps * self.batch


class JointSampler:
    """Batch sampler over the joint forget/retain stream, aware of accumulation and of the number of processes.

    The global batch of a step does not depend on how it is divided, so batch 8 × accumulation 1, batch 4 ×
    accumulation 2 and two processes with batch 4 train on the same rows. The forget stream ends each pass with a
    smaller batch where the division leaves one; the retain stream runs on across passes and is always full, unless
    `ends_passes`.

    Iterating gives, for each micro-batch of this process, a list of `(stream, row)`, forget rows first. A step divides
    its rows by length, where that is known: a micro-batch of short rows is padded to little, and a step's means do not
    depend on how it is divided. A step with fewer rows than micro-batches leaves some without any: those hold
    `(FILLER, (stream, row))`, one of the step's rows that is forwarded for nothing, since all processes must run the
    model alike.

    Args:
        schedule (`Schedule`): phases and their streams.
        streams (`dict[str, StreamSize]`): sizes of `forget` and `retain`.
        seed (`int`): of the order of rows.
        accumulation, world_size, rank (`int`): how a global batch is divided.
        ends_passes (`bool`): the retain stream, too, ends each pass with a smaller batch.
        lengths (`Callable`, *optional*): of rows; asked only where a step has several micro-batches.
    """

    def __init__(
        self,
        schedule: Schedule,
        streams: dict[str, StreamSize],
        seed: int,
        accumulation: int = 1,
        world_size: int = 1,
        rank: int = 0,
        ends_passes: bool = False,
        lengths: Lengths | None = None,
    ):
        self.schedule = schedule
        self.streams = streams
        self.seed = seed
        self.accumulation = accumulation
        self.world_size = world_size
        self.rank = rank
        self.ends_passes = ends_passes
        self.lengths = lengths
        self._order = lru_cache(maxsize=4)(self._draw_order)

    def __len__(self) -> int:
        return self.schedule.most_steps * self.accumulation

    def __iter__(self) -> Iterator[list[tuple]]:
        for step in range(self.schedule.most_steps):
            yield from self.micro_batches(step)

    def rows(self, step: int) -> dict[str, np.ndarray]:
        """The global batch of a step: row numbers by stream."""
        phase, _ = self.schedule.at(step)
        return {name: self._stream_rows(name, self.schedule.stream_steps(step, name)) for name in phase.streams}

    def micro_batches(self, step: int) -> list[list[tuple]]:
        """This process's share of a step, one list per micro-batch."""
        parts, rows = self.accumulation * self.world_size, self.rows(step)
        if parts > 1:
            rows = {name: self._by_length(name, of_stream) for name, of_stream in rows.items()}
        divided = {name: np.array_split(of_stream, parts) for name, of_stream in rows.items()}
        mine = range(self.rank, parts, self.world_size)
        filler = [(FILLER, (name, int(of_stream[0]))) for name, of_stream in rows.items() if len(of_stream)][:1]
        return [
            [(name, int(row)) for name in _ordered(divided) for row in divided[name][part]] or filler for part in mine
        ]

    def _by_length(self, stream: str, rows: np.ndarray) -> np.ndarray:
        lengths = self.lengths(stream, rows) if self.lengths is not None else None
        return rows if lengths is None else rows[np.argsort(lengths, kind="stable")]

    def _stream_rows(self, stream: str, position: int) -> np.ndarray:
        size = self.streams[stream]
        if stream == FORGET or self.ends_passes:
            epoch, batch = divmod(position, size.batches)
            return self._order(stream, epoch)[batch * size.batch : (batch + 1) * size.batch]
        start = position * size.batch
        wanted = np.arange(start, start + size.batch)
        return np.concatenate(
            [
                self._order(stream, int(epoch))[wanted[wanted // size.rows == epoch] % size.rows]
                for epoch in np.unique(wanted // size.rows)
            ]
        )

    def _draw_order(self, stream: str, epoch: int) -> np.ndarray:
        return random_numbers(self.seed, _ORDERS[stream], epoch).permutation(self.streams[stream].rows)


def _ordered(names) -> list[str]:
    return [name for name in (FORGET, RETAIN) if name in names]
