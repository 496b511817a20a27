"""SCRUB: away from the original on the forget rows, back to it on the rest, in turn."""

import math
from dataclasses import dataclass, field

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.forget_retain import divergence
from hf_unlearn.trainers.schedule import FORGET, RETAIN, Phase
from hf_unlearn.trainers.split_output import SplitOutput


@dataclass
class ScrubConfig(UnlearningConfig):
    """Arguments of [`ScrubTrainer`].

    Args:
        forget_epochs: of the epochs, the first so many begin with a pass over the forget rows.
        gamma, alpha: weights of the loss and of the divergence on the retain rows.
        temperature: T of both softmaxes.
    """

    forget_epochs: int = field(default=2, metadata={"help": "Epochs that begin with a pass over the forget rows."})
    gamma: float = field(default=0.99, metadata={"help": "Weight of the retain rows' loss."})
    alpha: float = field(default=0.001, metadata={"help": "Weight of the retain rows' divergence."})
    temperature: float = field(default=4.0, metadata={"help": "Of both softmaxes."})

    def __post_init__(self):
        super().__post_init__()
        for name in ("forget_epochs", "temperature"):
            if getattr(self, name) <= 0:
                raise UserError(f"`{name}` is {getattr(self, name)}; give a number above 0")
        for name in ("gamma", "alpha"):
            if getattr(self, name) < 0:
                raise UserError(f"`{name}` is {getattr(self, name)}; give 0 or more")


class ScrubTrainer(UnlearningTrainer):
    """SCRUB (Kurmanji et al. 2023, arXiv 2302.09880): passes over the forget rows that maximise d, each followed by
    one over the retain rows that minimises γ·L_r + α·d, and then passes over the retain rows alone.

    d = T²·KL(p⁰‖p) with both softmaxes at temperature T, p⁰ the original's: the model with its starting weights, which
    costs a copy of the trainable ones and one more forward.

    Example:

        config = ScrubConfig(output_dir="unlearned", forget_epochs=2)
        ScrubTrainer(model, config, splits, task).train()
    """

    config_class = ScrubConfig
    args: ScrubConfig
    method = "scrub"
    asks_original = True
    paper = {
        "title": "Towards Unbounded Machine Unlearning",
        "authors": "Kurmanji et al.",
        "year": "2023",
        "id": "arXiv:2302.09880",
    }

    def phases(self) -> list[Phase]:
        forget, retain = (self.stream_sizes()[stream].batches for stream in (FORGET, RETAIN))
        phases = []
        for epoch in range(max(1, math.ceil(self.args.num_train_epochs))):
            if epoch < self.args.forget_epochs:
                phases.append(Phase("forget pass", forget, (FORGET,)))
            phases.append(Phase("retain pass", retain, (RETAIN,)))
        return phases

    def unlearning_loss(self, forget: SplitOutput | None = None, retain: SplitOutput | None = None) -> torch.Tensor:
        args = self.args
        if forget is not None:
            return -forget.mean(divergence(forget, args.temperature))
        assert retain is not None  # a phase reads one of the two
        kept = args.gamma * retain.loss + args.alpha * divergence(retain, args.temperature)
        return retain.mean(kept)
