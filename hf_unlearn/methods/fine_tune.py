"""Fine-tuning on the retain rows: the simplest baseline, and with an l1 penalty the l1-sparse one."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.trainers.config import filled_later
from hf_unlearn.trainers.published import PAPER, SALUN_RELEASE, PublishedConfig, PublishedTrainer
from hf_unlearn.trainers.retain_only import RetainOnlyTrainer
from hf_unlearn.trainers.schedule import RETAIN
from hf_unlearn.trainers.split_output import SplitOutput

PLAIN = "plain"
EPOCHS = {PLAIN: 3.0, PAPER: 10.0}
PAPER_RATE = 0.01


@dataclass
class FineTuneConfig(PublishedConfig):
    """Arguments of [`FineTuneTrainer`].

    Args:
        variant: `plain` (default) or `paper`, see [`FineTuneTrainer`].
        num_train_epochs: `None` is 3 (paper: 10).
        learning_rate: `None` lets the width of the model set it (paper: 0.01).
        l1: weight of the l1 penalty at the start; 5e-4 is published. 0 is plain fine-tuning.
    """

    published: ClassVar[dict[str, Any]] = SALUN_RELEASE

    variant: str = field(
        default=PLAIN,
        metadata={"help": "plain: AdamW at the model's rate; paper: as published.", "choices": [PLAIN, PAPER]},
    )
    num_train_epochs: float = filled_later("Passes over the retain rows (default: 3; variant paper: 10).")
    l1: float = field(default=0.0, metadata={"help": "Weight of the l1 penalty in the first epoch (default: none)."})

    def __post_init__(self):
        if self.variant not in EPOCHS:
            raise UserError(f"`variant` is '{self.variant}'; it is one of {', '.join(EPOCHS)}")
        if self.num_train_epochs is None:
            self.num_train_epochs = EPOCHS[self.variant]
        if self.learning_rate is None and self.variant == PAPER:
            self.learning_rate = PAPER_RATE
        super().__post_init__()
        if self.l1 < 0:
            raise UserError(f"`l1` is {self.l1}; give 0 or more")


class FineTuneTrainer(PublishedTrainer, RetainOnlyTrainer):
    """L = L_r: plain descent on the retain rows, never reading a forget row. Relies on catastrophic forgetting.

    `variant="paper"` is FT as SalUn's release has it (Fan et al. 2024, arXiv 2310.12508): SGD at 0.01 with momentum
    0.9 and weight decay 5e-4, a constant rate, ten epochs.

    With `l1` λ it is l1-sparse (Jia et al. 2023, arXiv 2304.04934): L = L_r + λ(1 − e/E)·‖θ‖₁ in epoch e of E, over
    the trainable weights.

    Example:

        config = FineTuneConfig(output_dir="unlearned", l1=5e-4)
        FineTuneTrainer(model, config, splits, task).train()
    """

    config_class = FineTuneConfig
    args: FineTuneConfig
    method = "fine_tune"

    @property
    def ends_passes(self) -> bool:
        return self.as_published

    @property
    def reads_weights(self) -> bool:
        return super().reads_weights or bool(self.args.l1)

    def unlearning_loss(self, retain: SplitOutput) -> torch.Tensor:
        loss = super().unlearning_loss(retain)
        if not self.args.l1:
            return loss
        batches = self.stream_sizes()[RETAIN].batches
        epoch, epochs = self.state.global_step // batches, -(-self.schedule.total_steps // batches)
        size = sum(p.abs().sum() for p in self.model.parameters() if p.requires_grad)
        return loss + self.args.l1 * (1 - epoch / epochs) * size
