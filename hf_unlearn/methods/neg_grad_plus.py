"""NegGrad+: descent on the retain rows, a little ascent on the forget rows, and a pull to where the model started."""

from dataclasses import dataclass, field

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.split_output import SplitOutput


@dataclass
class NegGradPlusConfig(UnlearningConfig):
    """Arguments of [`NegGradPlusTrainer`].

    Args:
        alpha: share of the retain rows against the forget rows, in (0, 1).
        start_decay: weight of the squared distance to the start.
    """

    alpha: float = field(default=0.95, metadata={"help": "Share of the retain rows against the forget rows."})
    start_decay: float = field(default=5e-4, metadata={"help": "Weight of the squared distance to the start."})

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.alpha < 1:
            raise UserError(f"`alpha` is {self.alpha}; it is a share in (0, 1)")
        if self.start_decay < 0:
            raise UserError(f"`start_decay` is {self.start_decay}; give 0 or more")


class NegGradPlusTrainer(UnlearningTrainer):
    """NegGrad+ (Kurmanji et al. 2023, arXiv 2302.09880): L = α(L_r + λ/2·‖θ − θ₀‖²) − (1 − α)L_f.

    Every step has forget and retain rows, as in the authors' code. Nothing stops the ascent: how far it forgets hangs
    on the rate and the number of steps. λ‖θ − θ₀‖² needs a copy of the trainable weights.

    Example:

        config = NegGradPlusConfig(output_dir="unlearned")
        NegGradPlusTrainer(model, config, splits, task).train()
    """

    config_class = NegGradPlusConfig
    args: NegGradPlusConfig
    method = "neg_grad_plus"
    keeps_start = True
    paper = {
        "title": "Towards Unbounded Machine Unlearning",
        "authors": "Kurmanji et al.",
        "year": "2023",
        "id": "arXiv:2302.09880",
    }

    def unlearning_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        share, decay = self.args.alpha, self.args.start_decay
        descent = retain.mean(retain.loss) + decay / 2 * self.start_distance()
        return share * descent - (1 - share) * forget.mean(forget.loss)
