"""Fine-tuning on the retain rows: the simplest baseline, and the way proxies are trained."""

import math
from dataclasses import dataclass

import torch

from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.schedule import RETAIN, Phase
from hf_unlearn.trainers.split_output import SplitOutput


@dataclass
class FineTuneConfig(UnlearningConfig):
    """Nothing beyond the common arguments."""


class FineTuneTrainer(UnlearningTrainer):
    """L = L_r: plain descent on the retain rows, never reading a forget row. Relies on catastrophic forgetting."""

    config_class = FineTuneConfig
    method = "fine_tune"

    def phases(self) -> list[Phase]:
        steps = math.ceil(self.args.num_train_epochs * self.stream_sizes()[RETAIN].batches)
        return [Phase("fine-tune", steps, streams=(RETAIN,))]

    def unlearning_loss(self, retain: SplitOutput) -> torch.Tensor:
        return retain.mean(retain.loss)
