"""SimNPO: NPO without a reference, on the mean over tokens."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from hf_unlearn.trainers.forget_retain import ForgetRetainConfig, ForgetRetainTrainer
from hf_unlearn.trainers.split_output import SplitOutput


@dataclass
class SimNPOConfig(ForgetRetainConfig):
    """Arguments of [`SimNPOTrainer`].

    Args:
        beta: inverse temperature β.
        delta: reward margin δ, in nats per token.
    """

    gamma: float = field(default=0.125, metadata={"help": "Weight of the forget term."})
    beta: float = field(default=4.5, metadata={"help": "Inverse temperature of the preference."})
    delta: float = field(default=0.0, metadata={"help": "Reward margin, in nats per token."})

    def __post_init__(self):
        super().__post_init__()
        self.need(positive=("beta",), not_negative=("delta",))


class SimNPOTrainer(ForgetRetainTrainer):
    """SimNPO (Fan et al. 2024, arXiv 2410.07163): L_f = −(2/β)·log σ(β(S/T − δ)), S the summed negative
    log-likelihood of a row's T supervised tokens.

    Without a reference model the pull fades with the loss itself, whatever it was; dividing by T keeps short rows from
    being forgotten first. Published with β between 3.5 and 4.5, δ 0 and γ 0.125.

    Example:

        config = SimNPOConfig(output_dir="unlearned", beta=4.5)
        SimNPOTrainer(model, config, splits, task).train()
    """

    config_class = SimNPOConfig
    args: SimNPOConfig
    method = "simnpo"
    paper = {
        "title": "Simplicity Prevails: Rethinking Negative Preference Optimization for LLM Unlearning",
        "authors": "Fan et al.",
        "year": "2024",
        "id": "arXiv:2410.07163",
    }

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        beta = self.args.beta
        return -2 / beta * F.logsigmoid(beta * (forget.loss - self.args.delta))
