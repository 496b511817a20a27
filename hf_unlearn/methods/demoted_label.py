"""A distribution in which the label alone is demoted, as the target of every forget token: UNDIAL, CE-U, DELETE."""

from dataclasses import dataclass, field

import torch

from hf_unlearn.trainers.forget_retain import ForgetRetainConfig, ForgetRetainTrainer, mean_by_places
from hf_unlearn.trainers.split_output import SplitOutput


class DemotedLabelTrainer(ForgetRetainTrainer):
    """L_f = mean_t CE(softmax(z_t), target_t), through whose targets no gradient flows."""

    def target_logits(self, forget: SplitOutput) -> torch.Tensor:
        """Logits of the targets, `(rows, classes)`, before the label is demoted."""
        raise NotImplementedError(f"{type(self).__name__} does not define target_logits")

    def demotion(self) -> float:
        """What is taken from the label's logit."""
        return float("inf")

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        source, labels = self.target_logits(forget).detach(), forget.labels

        def of_rows(log_probs: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            target, label = source[places].to(log_probs.dtype), labels[places, None]
            target = target.scatter(1, label, target.gather(1, label) - self.demotion())
            return -(target.softmax(1) * log_probs).sum(1)

        return mean_by_places(forget, of_rows)


@dataclass
class UndialConfig(ForgetRetainConfig):
    """Arguments of [`UndialTrainer`].

    Args:
        beta: what is taken from the label's logit.
    """

    alpha: float = field(default=0.0, metadata={"help": "Weight of the retain term."})
    beta: float = field(default=10.0, metadata={"help": "What is taken from the label's logit."})

    def __post_init__(self):
        super().__post_init__()
        self.need(positive=("beta",))


class UndialTrainer(DemotedLabelTrainer):
    """UNDIAL (Dong et al. 2024, arXiv 2402.10052): L_f = mean_t CE(softmax(z_t), softmax(z⁰_t − β·1_y)), z⁰ the
    original's logits.

    The target never moves, so the loss has a floor and training cannot diverge. Published with β 10, α 0 and LoRA of
    rank 8 at 1e-4. The original is the model with its starting weights: a copy of the trainable ones (of the adapter
    alone, with LoRA) and one more forward. Published code leaves the prompt's tokens in the loss; here only supervised
    tokens count.

    Example:

        config = UndialConfig(output_dir="unlearned")
        UndialTrainer(model, config, splits, task).train()
    """

    config_class = UndialConfig
    args: UndialConfig
    method = "undial"
    asks_original = True
    paper = {
        "title": "UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language Models",
        "authors": "Dong et al.",
        "year": "2024",
        "id": "arXiv:2402.10052",
    }

    def target_logits(self, forget: SplitOutput) -> torch.Tensor:
        return forget.original.predictions.logits

    def demotion(self) -> float:
        return self.args.beta


@dataclass
class CEUConfig(ForgetRetainConfig):
    """Arguments of [`CEUTrainer`]."""

    alpha: float = field(default=0.0, metadata={"help": "Weight of the retain term."})


class CEUTrainer(DemotedLabelTrainer):
    """CE-U (Yang 2025, arXiv 2503.01224): L_f = mean_t CE(softmax(z_t), softmax of the model's own stopped logits with
    that of the label at −∞).

    Its gradient on the logits is p − target: bounded where that of ascent explodes, and it vanishes as the label's
    probability does. Published with α 0. Published code leaves out the first token of every answer; here all
    supervised tokens count.

    Example:

        config = CEUConfig(output_dir="unlearned")
        CEUTrainer(model, config, splits, task).train()
    """

    config_class = CEUConfig
    args: CEUConfig
    method = "ceu"
    paper = {
        "title": "CE-U: Cross Entropy Unlearning",
        "authors": "Yang",
        "year": "2025",
        "id": "arXiv:2503.01224",
    }

    def target_logits(self, forget: SplitOutput) -> torch.Tensor:
        return forget.logits


@dataclass
class DeleteConfig(ForgetRetainConfig):
    """Arguments of [`DeleteTrainer`]."""

    alpha: float = field(default=0.0, metadata={"help": "Weight of the retain term."})


class DeleteTrainer(DemotedLabelTrainer):
    """DELETE (Zhou et al. 2025, arXiv 2503.23751): L_f = KL(p̃⁰‖p), p̃⁰ the original's softmax with the label's logit at
    −∞, written as its cross-entropy (the difference is a constant).

    What the original says of the other classes is kept, the label is not. Published without retain rows (α 0). The
    original is the model with its starting weights, as with UNDIAL.

    Example:

        config = DeleteConfig(output_dir="unlearned")
        DeleteTrainer(model, config, splits, task).train()
    """

    config_class = DeleteConfig
    args: DeleteConfig
    method = "delete"
    asks_original = True
    paper = {
        "title": "Decoupled Distillation to Erase: A General Unlearning Method for Any Class-centric Tasks",
        "authors": "Zhou et al.",
        "year": "2025",
        "id": "arXiv:2503.23751",
    }

    def target_logits(self, forget: SplitOutput) -> torch.Tensor:
        return forget.original.predictions.logits
