"""Ascent on the forget rows beside descent on the rest: GradDiff, and two that weigh the tokens of the ascent."""

from dataclasses import dataclass, field

import torch

from hf_unlearn.trainers.forget_retain import ForgetRetainConfig, ForgetRetainTrainer
from hf_unlearn.trainers.split_output import SplitOutput


@dataclass
class GradDiffConfig(ForgetRetainConfig):
    """Nothing beyond the arguments of [`ForgetRetainConfig`]."""


class WeightedAscentTrainer(ForgetRetainTrainer):
    """Gives a method L_f = −mean_t w_t·ℓ_t, the ascent on a row's tokens t with weights of its own."""

    def token_weights(self, probability: torch.Tensor) -> torch.Tensor:
        """Weight of each token's ascent `(rows,)`, from the label's probability; no gradient flows through it."""
        return torch.ones_like(probability)

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        log_prob = forget.predictions.token_log_prob
        return forget.predictions.example_mean(self.token_weights(log_prob.detach().exp()) * log_prob)


class GradDiffTrainer(WeightedAscentTrainer):
    """Gradient difference (Liu et al. 2022, arXiv 2203.12817; for language models Maini et al. 2024, arXiv
    2401.06121): L = −γ·mean ℓ_f + α·L_r, ℓ the mean negative log-likelihood of a row's supervised tokens.

    Nothing stops the ascent: how far it forgets hangs on the rate and the number of steps. Published code averages
    over the tokens of a batch, so that long rows weigh more; here every row weighs the same.

    Example:

        config = GradDiffConfig(output_dir="unlearned", retain_term="kl")
        GradDiffTrainer(model, config, splits, task).train()
    """

    config_class = GradDiffConfig
    args: GradDiffConfig
    method = "grad_diff"
    paper = {
        "title": "TOFU: A Task of Fictitious Unlearning for LLMs",
        "authors": "Maini et al.",
        "year": "2024",
        "id": "arXiv:2401.06121",
    }


@dataclass
class WGAConfig(ForgetRetainConfig):
    """Arguments of [`WGATrainer`].

    Args:
        beta: exponent β of the probability; 0 is plain ascent.
    """

    beta: float = field(default=1.0, metadata={"help": "Exponent of the probability in a token's weight."})

    def __post_init__(self):
        super().__post_init__()
        self.need(not_negative=("beta",))


class WGATrainer(WeightedAscentTrainer):
    """Weighted gradient ascent (Wang et al. 2025, arXiv 2502.19301): L_f = −mean_t p_t^β·ℓ_t, the weights p_t^β
    detached.

    Tokens that are forgotten already pull no more, so the ascent fades by itself. Published code averages over the
    tokens of a batch; here every row weighs the same.

    Example:

        config = WGAConfig(output_dir="unlearned", beta=1.0)
        WGATrainer(model, config, splits, task).train()
    """

    config_class = WGAConfig
    args: WGAConfig
    method = "wga"
    paper = {
        "title": "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond",
        "authors": "Wang et al.",
        "year": "2025",
        "id": "arXiv:2502.19301",
    }

    def token_weights(self, probability: torch.Tensor) -> torch.Tensor:
        return probability**self.args.beta


@dataclass
class SatImpConfig(ForgetRetainConfig):
    """Arguments of [`SatImpTrainer`].

    Args:
        beta1, beta2: exponents of p and of 1 − p.
    """

    beta1: float = field(default=5.0, metadata={"help": "Exponent of the probability in a token's weight."})
    beta2: float = field(default=1.0, metadata={"help": "Exponent of its complement."})

    def __post_init__(self):
        super().__post_init__()
        self.need(not_negative=("beta1", "beta2"))


class SatImpTrainer(WeightedAscentTrainer):
    """SatImp (Yang et al. 2025, arXiv 2505.11953): L_f = −mean_t p_t^β₁·(1 − p_t)^β₂·ℓ_t, the weights detached.

    Saturation: tokens that are forgotten already pull no more (p small). Importance: nor do those that any model would
    get right (p near 1). Published code averages over the tokens of a batch; here every row weighs the same.

    Example:

        config = SatImpConfig(output_dir="unlearned", beta1=5.0, beta2=1.0)
        SatImpTrainer(model, config, splits, task).train()
    """

    config_class = SatImpConfig
    args: SatImpConfig
    method = "sat_imp"
    paper = {
        "title": "Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning",
        "authors": "Yang et al.",
        "year": "2025",
        "id": "arXiv:2505.11953",
    }

    def token_weights(self, probability: torch.Tensor) -> torch.Tensor:
        return probability**self.args.beta1 * (1 - probability) ** self.args.beta2
