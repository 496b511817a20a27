"""What the parts of a trainer, and what works on a trainer, may read of it."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback

from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.tasks.base import Task
from hf_unlearn.trainers.config import KnownRecipe, UnlearningConfig
from hf_unlearn.trainers.joint_batch import JointDataset
from hf_unlearn.trainers.sampler import JointSampler, StreamSize
from hf_unlearn.trainers.schedule import Schedule


class TrainerPart(Trainer):
    """A `transformers.Trainer` with what [`UnlearningTrainer`] adds for all to read; its parts are made of this.

    Args:
        method_state: what is measured before the first step, by name; checkpoints keep it. Parts have a name of their
            own before a slash (`reference/…`, `start/…`, `saliency_mask/…`), the method's tensors none.
        notes: sentences that the evidence holds.
        side_progress: makes the progress bar of a training on the side, from its title.
        evidence: of the finished run, where somebody made it.
        forget_digest: says in a mask file which rows it was measured on.
    """

    method: ClassVar[str]
    paper: ClassVar[dict[str, str] | None] = None
    args: UnlearningConfig
    model: PreTrainedModel
    model_wrapped: torch.nn.Module
    train_dataset: JointDataset
    optimizer: torch.optim.Optimizer  # there from the first step on
    splits: UnlearningSplits
    task: Task
    recipe: KnownRecipe | None
    schedule: Schedule
    method_state: dict[str, torch.Tensor]
    notes: list[str]
    active_lenses: list[Any]
    evidence: Any = None
    side_progress: Callable[[str], TrainerCallback] | None = None
    forget_digest: str | None = None

    @property
    def zero_stage(self) -> int:
        """1, 2 or 3 under DeepSpeed, else 0."""
        return int(self.accelerator.state.deepspeed_plugin.zero_stage) if self.is_deepspeed_enabled else 0

    @property
    def examples(self) -> int:
        """Examples read so far to change the model."""
        raise NotImplementedError

    def count_examples(self, n: int) -> None:
        """Add examples that were read outside the training steps to the cost."""
        raise NotImplementedError

    @property
    def ends_passes(self) -> bool:
        """Whether a pass over the retain rows ends with a smaller batch, rather than running on."""
        return False

    def stream_sizes(self) -> dict[str, StreamSize]:
        """Rows of each stream, and how many a whole optimizer step takes."""
        raise NotImplementedError

    def _sampler(self) -> JointSampler:
        raise NotImplementedError

    def _scoring_options(self) -> dict[str, Any]:
        raise NotImplementedError
