"""Training on the retain rows alone: what the fine-tuning baseline does, and how proxies are trained."""

import math

import torch

from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.schedule import RETAIN, Phase
from hf_unlearn.trainers.split_output import SplitOutput


class RetainOnlyTrainer(UnlearningTrainer):
    """L = L_r: plain descent on the retain rows, never reading a forget row."""

    method = "retain_only"

    def phases(self) -> list[Phase]:
        steps = math.ceil(self.args.num_train_epochs * self.stream_sizes()[RETAIN].batches)
        return [Phase("fine-tune", steps, streams=(RETAIN,))]

    def unlearning_loss(self, retain: SplitOutput) -> torch.Tensor:
        return retain.mean(retain.loss)
