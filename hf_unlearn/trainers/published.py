"""What `variant="paper"` changes in a step: the published loops are plain PyTorch, without Trainer's habits."""

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

import torch
from transformers import SchedulerType, TrainingArguments

from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import UnlearningConfig, filled_later
from hf_unlearn.trainers.sampler import JointSampler

PAPER = "paper"
SGD: dict[str, Any] = {"optim": "sgd", "optim_args": "momentum=0.9"}
SALUN_RELEASE = {**SGD, "weight_decay": 5e-4, "disable_dropout": False}  # for every method that it has
_OPTIMIZER = next(f.default for f in fields(TrainingArguments) if f.name == "optim")
_USUAL = {
    "max_grad_norm": 1.0,
    "weight_decay": 0.0,
    "lr_scheduler_type": "linear",
    "optim": _OPTIMIZER,
    "disable_dropout": True,
}
_PUBLISHED = {"max_grad_norm": 0.0, "lr_scheduler_type": "constant"}  # no paper here clips, or lets the rate decay


@dataclass
class PublishedConfig(UnlearningConfig):
    """Arguments of methods with a `variant="paper"`. What is not given is the published value there.

    Args:
        variant: which form of the method.
        max_grad_norm: `None` is 1 (paper: gradients are not clipped).
        weight_decay: `None` is 0 (paper: the published one, of biases and norms too).
        lr_scheduler_type: `None` is `linear` (paper: `constant`, unless the paper's own rates change).
        optim: `None` is Trainer's default, AdamW (paper: the published one, with its arguments).
        disable_dropout: `None` is true (paper: as published).
    """

    published: ClassVar[dict[str, Any]] = {}

    variant: str = field(default="rows", metadata={"help": "Which form of the method."})
    max_grad_norm: float = filled_later("Clip gradients at this norm (default: 1; variant paper: not at all).")
    weight_decay: float = filled_later("Weight decay (default: 0; variant paper: as published).")
    lr_scheduler_type: SchedulerType = filled_later(
        "How the rate changes (default: linear; variant paper: as published)."
    )
    optim: str = filled_later("The optimizer (default: AdamW; variant paper: as published).")
    disable_dropout: bool = filled_later(
        "No dropout, BatchNorm statistics frozen (default: true; variant paper: as published)."
    )

    def __post_init__(self):
        as_published = {**_PUBLISHED, **self.published} if self.variant == PAPER else {}
        if self.optim is not None:
            as_published.pop("optim_args", None)  # they belong to the published optimizer
        for name, value in {**_USUAL, **as_published}.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        super().__post_init__()


class PublishedTrainer(UnlearningTrainer):
    """Trains as published where the variant says so.

    With `variant="paper"` weight decay spares no tensor, and a step's loss is the plain mean over the rows that it
    has: those of a smaller last batch weigh more than the others.
    """

    config_class: ClassVar[type[PublishedConfig]] = PublishedConfig
    args: PublishedConfig

    @property
    def as_published(self) -> bool:
        return self.args.variant == PAPER

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        if self.as_published:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    def step_rows(self, stream: str) -> int:
        if not self.as_published:
            return super().step_rows(stream)
        return max(1, self._rows_of_step().get(stream, 0))

    def share_of_step(self, stream: str) -> float:
        """A stream's part of all rows that the step has: makes two means the mean of the union."""
        rows = self._rows_of_step()
        return rows[stream] / sum(rows.values())

    def _rows_of_step(self) -> dict[str, int]:
        rows = self._published_sampler.rows(self.state.global_step)
        return {name: len(of_stream) for name, of_stream in rows.items()}

    @cached_property
    def _published_sampler(self) -> JointSampler:
        return self._sampler()
