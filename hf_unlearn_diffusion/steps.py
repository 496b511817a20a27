"""What the methods for denoisers share: steps as published where that is asked, and which rows they read."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from hf_unlearn.errors import UserError
from hf_unlearn.trainers.config import filled_later
from hf_unlearn.trainers.published import PAPER, PublishedConfig, PublishedTrainer
from hf_unlearn.trainers.schedule import FORGET, RETAIN, Phase

FORGET_PASSES = 40  # over the forget rows, where nothing else is said
PAPER_STEPS, PAPER_RATE, PAPER_BATCH = 1000, 1e-4, 128  # SalUn's DDPM on CIFAR-10


@dataclass
class DenoisingConfig(PublishedConfig):
    """Arguments that the methods for denoisers share.

    Args:
        num_train_epochs: passes over the retain rows; `None` is as many as forty passes over the forget rows take.
            With `variant="paper"` there are 1,000 steps whatever is said here; `max_steps` changes that.
        per_device_train_batch_size: retain rows per process and micro-batch, and forget rows beside them; `None` is 64
            (paper: 128).
    """

    published: ClassVar[dict[str, Any]] = {"optim": "adamw_torch", "max_grad_norm": 1.0, "disable_dropout": False}

    num_train_epochs: float = filled_later("Passes over the retain rows (default: 40 passes over the forget rows).")
    per_device_train_batch_size: int = filled_later(
        "Retain rows per process and micro-batch (default: 64; variant paper: 128)."
    )

    def __post_init__(self):
        paper = self.variant == PAPER
        if self.per_device_train_batch_size is None:
            self.per_device_train_batch_size = PAPER_BATCH if paper else 64
        if self.learning_rate is None and paper:
            self.learning_rate = PAPER_RATE
        self.passes_follow_request = self.num_train_epochs is None
        if self.passes_follow_request:
            self.num_train_epochs = 1.0  # until the trainer knows the rows
        super().__post_init__()


@dataclass
class OneFormConfig(DenoisingConfig):
    """Arguments of methods without a `variant="paper"`."""

    variant: str = field(default="rows", metadata={"help": "One form only.", "choices": ["rows"]})

    def __post_init__(self):
        super().__post_init__()
        if self.variant != "rows":
            raise UserError(f"`variant` is '{self.variant}'; this method has rows alone")


class DenoisingTrainer(PublishedTrainer):
    """One phase on forget and retain rows, as many of each, or on those that `streams` names."""

    config_class: ClassVar[type[DenoisingConfig]] = DenoisingConfig
    args: DenoisingConfig
    reads_noise: ClassVar[bool] = True
    of_classes: ClassVar[bool] = False  # whether it forgets whole classes alone

    def __init__(self, model, args: DenoisingConfig, splits, task, **kwargs):
        self.check_task(task)
        task.check_method(type(self))
        if self.of_classes and not splits.forgotten_classes:
            raise UserError(f"`method` {self.method} forgets whole classes, not some of their rows: name them")
        if args.passes_follow_request:
            args.num_train_epochs = self.usual_passes(splits)
        super().__init__(model, args, splits, task, **kwargs)

    @classmethod
    def check_task(cls, task) -> None:
        if task.says_labels:
            raise UserError(f"`method` {cls.method} is for models that take noise away; the task is {task.name}")

    def usual_passes(self, splits) -> float:
        """Passes over the retain rows, where nothing is said of them."""
        return FORGET_PASSES * len(splits.forget) / max(1, len(splits.retain))

    def default_forget_batch(self) -> int:
        return self.args.per_device_train_batch_size

    @property
    def streams(self) -> tuple[str, ...]:
        """Which rows are read."""
        return (FORGET, RETAIN)

    def phases(self) -> list[Phase]:
        if self.as_published:
            return [Phase("unlearn", PAPER_STEPS)]
        return [Phase(phase.name, phase.steps, self.streams) for phase in super().phases()]

    def plan(self) -> list[str]:
        passes = self.passes(self.schedule.total_steps)
        rows = self.stream_sizes()[RETAIN].rows
        return [f"variant {self.args.variant}, {passes:.2f} passes over the {rows:,} retain rows"]
