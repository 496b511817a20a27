"""From `(stream, row)` pairs to one padded batch that holds the forget rows first and the retain rows after them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hf_unlearn.data.rows import AnyRows
from hf_unlearn.tasks.base import Task
from hf_unlearn.trainers.schedule import FILLER, FORGET


class JointDataset(torch.utils.data.Dataset):
    """The training data set of an `UnlearningTrainer`: rows of all streams, addressed as `(stream, row)`.

    Its length is that of the retain stream, which is what "examples" means in Trainer's own figures.
    """

    def __init__(self, streams: Mapping[str, AnyRows]):
        self.streams = streams

    def __len__(self) -> int:
        return max(len(rows) for rows in self.streams.values())

    def lengths(self, stream: str, rows: np.ndarray) -> np.ndarray | None:
        """Tokens of rows of a stream, `(rows,)`; `None` where they are no texts, or their features are not kept."""
        known = getattr(self.streams[stream], "lengths", None)
        return None if known is None else known(rows.tolist())

    def __getitem__(self, key: tuple) -> tuple[str, Any, dict[str, Any]]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[tuple]) -> list[tuple[str, Any, dict[str, Any]]]:
        places = [row if stream == FILLER else (stream, row) for stream, row in keys]
        found = {}
        for stream in dict.fromkeys(name for name, _ in places):
            wanted = [row for name, row in places if name == stream]
            features = self.streams[stream].__getitems__(wanted)
            found.update({(stream, row): feature for row, feature in zip(wanted, features, strict=True)})
        return [(*key, found[place]) for key, place in zip(keys, places, strict=True)]


class JointCollator:
    """Pads forget and retain rows together, so that one forward serves both.

    Returns `{"inputs", "index", "rows", "forget_size"}`. The first `forget_size` rows are forget rows; `index`
    `(batch,)` is each row's place in its own split, and `rows` the same as a list. Inputs without an index belong to
    fillers. What the host has to know of a batch is said here by numbers that stay on the host: asking the device for
    it later would wait for the device.
    """

    def __init__(self, task: Task):
        self.task = task

    def __call__(self, items: list[tuple[str, Any, dict[str, Any]]]) -> dict[str, Any]:
        inputs = dict(self.task.collate([features for _, _, features in items])) if items else {}
        rows = [row for stream, row, _ in items if stream != FILLER]
        return {
            "inputs": inputs | self.task.host_facts(inputs),
            "index": torch.tensor(rows, dtype=torch.int64),
            "rows": rows,
            "forget_size": sum(stream == FORGET for stream, _, _ in items),
        }
