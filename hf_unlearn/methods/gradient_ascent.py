"""Gradient ascent on the forget rows, and nothing that holds the rest."""

from dataclasses import dataclass, field

import torch

from hf_unlearn.trainers.forget_only import ForgetOnlyConfig, ForgetOnlyTrainer
from hf_unlearn.trainers.split_output import SplitOutput


@dataclass
class GradientAscentConfig(ForgetOnlyConfig):
    """Arguments of [`GradientAscentTrainer`].

    Args:
        learning_rate: nothing stops the ascent, so it decides how far it goes.
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate: decides how far the ascent goes."})


class GradientAscentTrainer(ForgetOnlyTrainer):
    """Gradient ascent (GA; Thudi et al. 2022, arXiv 2109.13398, as SalUn's release has it): L = −mean ℓ over forget
    rows, ℓ the loss; no retain row is read.

    SGD with momentum 0.9, weight decay 5e-4, a constant rate and ten passes. Nothing bounds the loss: beyond some rate
    or number of steps the model is lost. The release's default rate of 0.01 is for its other methods; the default here
    is the one for ascent in its predecessor (Jia et al. 2023, arXiv 2304.04934).

    Example:

        config = GradientAscentConfig(output_dir="unlearned", learning_rate=1e-4)
        GradientAscentTrainer(model, config, splits, task).train()
    """

    config_class = GradientAscentConfig
    args: GradientAscentConfig
    method = "gradient_ascent"
    paper = {
        "title": "Unrolling SGD: Understanding Factors Influencing Machine Unlearning",
        "authors": "Thudi et al.",
        "year": "2022",
        "id": "arXiv:2109.13398",
    }

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        return -forget.loss
