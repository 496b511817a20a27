"""What may stand between the gradients of any method and its optimizer."""

import torch

from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.part import TrainerPart


class GradientLens:
    """Changes what a step does, whatever the method. A trainer has those of its `lenses` that its arguments ask for.

    A lens overrides what it needs; what is not overridden does nothing.

    Args:
        trainer: whose steps are changed.
    """

    def __init__(self, trainer: TrainerPart):
        self.trainer = trainer

    @classmethod
    def is_asked(cls, args: UnlearningConfig) -> bool:
        """Whether the arguments ask for it."""
        return True

    @property
    def acts(self) -> bool:
        """Whether it can do anything in this run."""
        return True

    def plan(self) -> list[str]:
        """What a dry run says of it, a line each."""
        return []

    def rows_read(self) -> int:
        """How many rows it reads in a whole training, beside those that the steps read anyway."""
        return 0

    def prepare(self) -> dict[str, torch.Tensor]:
        """Measure before the first step. Checkpoints keep what is returned, by names with the lens's own before a
        slash."""
        return {}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take from a checkpoint's tensors what [`prepare`] gave."""

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """To the optimizer of a training, before its first step; again for the same one is nothing."""

    def before_forward(self) -> None:
        """After the model was put in train mode, before it runs."""

    def change_gradients(self) -> None:
        """After the backward passes of a step and their reduction, before the gradient is clipped."""

    def allowed(self, name: str, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Of an edit without steps: what the parameter of this name becomes."""
        return after

    def save(self, folder: str) -> None:
        """Write what a later run can use. All processes must call this; the first writes."""
