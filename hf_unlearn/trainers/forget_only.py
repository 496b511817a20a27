"""Training on the forget rows alone, in the published form: what gradient ascent and boundary unlearning do."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from hf_unlearn.trainers.published import PAPER, SALUN_RELEASE, PublishedConfig, PublishedTrainer
from hf_unlearn.trainers.schedule import FORGET, Phase
from hf_unlearn.trainers.split_output import SplitOutput


@dataclass
class ForgetOnlyConfig(PublishedConfig):
    """Arguments of the methods that read forget rows alone. There is the published form only.

    Args:
        num_train_epochs: passes over the forget rows.
        per_device_train_batch_size: forget rows per process and micro-batch, unless `per_device_forget_batch_size`
            says otherwise.
    """

    published: ClassVar[dict[str, Any]] = SALUN_RELEASE

    variant: str = field(default=PAPER, init=False)
    num_train_epochs: float = field(default=10.0, metadata={"help": "Passes over the forget rows."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Forget rows per process and micro-batch."})


class ForgetOnlyTrainer(PublishedTrainer):
    """L = mean of the forget losses. A method gives [`forget_losses`].

    Example:

        class Descent(ForgetOnlyTrainer):
            method = "descent"

            def forget_losses(self, forget):
                return forget.loss

        Descent(model, ForgetOnlyConfig(output_dir="unlearned"), splits, task).train()
    """

    config_class = ForgetOnlyConfig
    args: ForgetOnlyConfig

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        """The method's loss of each row, `(size,)`."""
        raise NotImplementedError(f"{type(self).__name__} does not define forget_losses")

    def default_forget_batch(self) -> int:
        return self.args.per_device_train_batch_size

    def phases(self) -> list[Phase]:
        steps = math.ceil(self.args.num_train_epochs * self.stream_sizes()[FORGET].batches)
        return [Phase("unlearn", steps, streams=(FORGET,))]

    @property
    def ends_passes(self) -> bool:
        return True

    def unlearning_loss(self, forget: SplitOutput) -> torch.Tensor:
        return forget.mean(self.forget_losses(forget))
