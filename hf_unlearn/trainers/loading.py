"""How micro-batches come to the device: the next ones are made and sent while it still works on these."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers.trainer_utils import seed_worker

from hf_unlearn.trainers.part import TrainerPart


class Ahead:
    """An iterator over a loader's micro-batches, each placed on the device, that can be told to look ahead.

    A step waits for the device once, before its update. What is fetched just before that wait costs no time of the
    device: it is at work meanwhile.

    Args:
        batches (`Iterator`): what the loader gives.
        place (`Callable`): sends a batch to the device; may return before it has arrived.
    """

    def __init__(self, batches: Iterator[Any], place: Callable[[Any], Any]):
        self.batches = batches
        self._place = place
        self._waiting: deque = deque()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.fetch(1)
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft()

    def fetch(self, count: int) -> None:
        """Have `count` micro-batches waiting, or as many as are left."""
        while len(self._waiting) < count:
            try:
                batch = next(self.batches)
            except StopIteration:
                return
            self._waiting.append(self._place(batch))


class Loading(TrainerPart):
    """Part of [`UnlearningTrainer`]: its loader, and batches that are fetched ahead."""

    _ahead: Ahead | None = None

    def get_train_dataloader(self) -> DataLoader:
        # Not prepared by accelerate: the sampler divides over processes itself and keeps no state.
        args = self.args
        return DataLoader(
            self.train_dataset,
            batch_sampler=self._sampler(),
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            pin_memory=args.dataloader_pin_memory and args.device.type != "cpu",
            worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
        )

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        if self._ahead is None or self._ahead.batches is not epoch_iterator:
            self._ahead = Ahead(epoch_iterator, self._prepare_inputs)
        return super().get_batch_samples(self._ahead, num_batches, device)

    def _fetch_next_step(self) -> None:
        """Have the next step's micro-batches on their way to the device."""
        if self._ahead is not None:
            self._ahead.fetch(self.args.gradient_accumulation_steps)

    def _prepare_input(self, data):
        if torch.is_tensor(data) and self.args.device.type == "cuda":
            data = data.to(self.args.device, non_blocking=True)  # waits all the same where the memory is not pinned
        return super()._prepare_input(data)
