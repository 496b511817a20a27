"""Forget and retain rows as one stream of steps, told to Trainer as one epoch that holds the whole schedule."""

import torch

from hf_unlearn.trainers.part import TrainerPart
from hf_unlearn.trainers.sampler import JointSampler, StreamSize
from hf_unlearn.trainers.schedule import FORGET, RETAIN


class Streams(TrainerPart):
    """Part of [`UnlearningTrainer`]: how many rows there are, which a step reads, and at which rate."""

    def stream_sizes(self) -> dict[str, StreamSize]:
        """Rows of each stream, and how many a whole optimizer step takes."""
        parts = self.args.world_size * self.args.gradient_accumulation_steps
        rows = self.train_dataset.streams
        batch = {
            FORGET: self.args.per_device_forget_batch_size,
            RETAIN: self.args.per_device_train_batch_size,
        }
        return {name: StreamSize(len(r), min(len(r), batch[name] * parts)) for name, r in rows.items()}

    def step_rows(self, stream: str) -> int:
        """The number of rows that a step's mean over `stream` is divided by."""
        return self.stream_sizes()[stream].batch

    def passes(self, step: int) -> float:
        """Passes over the retain rows (or the forget rows, where no phase reads retain) after `step` steps."""
        sizes = self.stream_sizes()
        stream = RETAIN if any(RETAIN in phase.streams for phase in self.schedule.phases) else FORGET
        steps = self.schedule.stream_steps(step, stream)
        return steps / sizes[stream].batches if self.ends_passes else steps * sizes[stream].batch / sizes[stream].rows

    def _sampler(self) -> JointSampler:
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        accumulation = args.gradient_accumulation_steps
        sizes = self.stream_sizes()
        share = (accumulation, args.world_size, args.process_index)
        lengths = self.train_dataset.lengths
        return JointSampler(self.schedule, sizes, seed, *share, ends_passes=self.ends_passes, lengths=lengths)

    def set_initial_training_values(self, args, dataloader):
        # One Trainer epoch holds the whole schedule; PassClock counts the passes that people call epochs.
        _, steps, examples, _, batch, steps_in_epoch, _ = super().set_initial_training_values(args, dataloader)
        return 1, steps, examples, steps * batch, batch, steps_in_epoch, self.schedule.total_steps

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        if self.lr_scheduler is None and self.schedule.fixes_rates:
            base = self.args.learning_rate

            def factor(step: int) -> float:
                phase, at = self.schedule.at(step)
                rate = phase.rate(at)
                return 1.0 if rate is None else rate / base

            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)
