"""Fine-tuning on the retain rows: the simplest baseline, and with an l1 penalty the l1-sparse one."""

from dataclasses import dataclass, field

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.retain_only import RetainOnlyTrainer
from hf_unlearn.trainers.schedule import RETAIN
from hf_unlearn.trainers.split_output import SplitOutput


@dataclass
class FineTuneConfig(UnlearningConfig):
    """Arguments of [`FineTuneTrainer`].

    Args:
        l1: weight of the l1 penalty at the start; 5e-4 is published. 0 is plain fine-tuning.
    """

    l1: float = field(default=0.0, metadata={"help": "Weight of the l1 penalty in the first epoch (default: none)."})

    def __post_init__(self):
        super().__post_init__()
        if self.l1 < 0:
            raise UserError(f"`l1` is {self.l1}; give 0 or more")


class FineTuneTrainer(RetainOnlyTrainer):
    """L = L_r: plain descent on the retain rows, never reading a forget row. Relies on catastrophic forgetting.

    With `l1` λ it is l1-sparse (Jia et al. 2023, arXiv 2304.04934): L = L_r + λ(1 − e/E)·‖θ‖₁ in epoch e of E, over
    the trainable weights.

    Example:

        config = FineTuneConfig(output_dir="unlearned", l1=5e-4)
        FineTuneTrainer(model, config, splits, task).train()
    """

    config_class = FineTuneConfig
    args: FineTuneConfig
    method = "fine_tune"

    def unlearning_loss(self, retain: SplitOutput) -> torch.Tensor:
        loss = super().unlearning_loss(retain)
        if not self.args.l1:
            return loss
        batches = self.stream_sizes()[RETAIN].batches
        epoch, epochs = self.state.global_step // batches, -(-self.schedule.total_steps // batches)
        size = sum(p.abs().sum() for p in self.model.parameters() if p.requires_grad)
        return loss + self.args.l1 * (1 - epoch / epochs) * size
