"""NPO: preference optimization that knows only what is not preferred."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from hf_unlearn.data.rows import Rows
from hf_unlearn.trainers.forget_retain import ForgetRetainConfig, ForgetRetainTrainer
from hf_unlearn.trainers.schedule import FORGET
from hf_unlearn.trainers.split_output import SplitOutput


@dataclass
class NPOConfig(ForgetRetainConfig):
    """Arguments of [`NPOTrainer`].

    Args:
        beta: inverse temperature β; small values come close to plain ascent.
    """

    beta: float = field(default=0.1, metadata={"help": "Inverse temperature of the preference."})

    def __post_init__(self):
        super().__post_init__()
        self.need(positive=("beta",))


class NPOTrainer(ForgetRetainTrainer):
    """NPO (Zhang et al. 2024, arXiv 2404.05868): L_f = −(2/β)·log σ(β(S − S₀)), S the summed negative log-likelihood
    of a row's supervised tokens and S₀ the original's (equation 3).

    The pull on a row fades as it becomes less likely than it was: its gradient is that of ascent, times
    2σ(−β(S − S₀)). Published with α between 1 and 5. The authors' code runs the original beside the model at every
    step; its S₀ never change, so they are measured once here, and no second model is in memory.

    Example:

        config = NPOConfig(output_dir="unlearned", beta=0.1)
        NPOTrainer(model, config, splits, task).train()
    """

    config_class = NPOConfig
    args: NPOConfig
    method = "npo"
    paper = {
        "title": "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
        "authors": "Zhang et al.",
        "year": "2024",
        "id": "arXiv:2404.05868",
    }

    def reference_rows(self) -> dict[str, Rows]:
        return {FORGET: self.splits.forget}

    def rows_beside_steps(self) -> int:
        return super().rows_beside_steps() + len(self.splits.forget)

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        ratio = forget.log_prob - self.reference(FORGET, forget.index).log_prob
        return -2 / self.args.beta * F.logsigmoid(-self.args.beta * ratio)
