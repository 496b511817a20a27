"""What methods share whose loss is a weighted sum of a forget term and a retain term: L = γ·L_f + α·L_r."""

from dataclasses import dataclass, field

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.tasks.row_chunks import RowFigure, by_rows
from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import UnlearningConfig, filled_later
from hf_unlearn.trainers.schedule import FORGET, RETAIN, Phase
from hf_unlearn.trainers.split_output import SplitOutput

PASSES = 10  # over the forget rows, as these methods are published


@dataclass
class ForgetRetainConfig(UnlearningConfig):
    """Arguments of the methods with a weighted sum.

    Args:
        gamma, alpha: weights of the forget and of the retain term. With `alpha` 0 no retain row is read.
        retain_term: `nll`, the loss; or `kl`, KL(θ₀‖θ) of the labels' distribution, which costs a copy of the
            trainable weights and one more forward.
        num_train_epochs: passes over the retain rows; `None` reads ten retain rows for each forget row, which is ten
            passes over the forget rows, or fewer where these do not fill the batches.
    """

    num_train_epochs: float = filled_later("Passes over the retain rows (default: ten passes over the forget rows).")
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Retain rows per process and micro-batch."})
    gamma: float = field(default=1.0, metadata={"help": "Weight of the forget term."})
    alpha: float = field(default=1.0, metadata={"help": "Weight of the retain term."})
    retain_term: str = field(
        default="nll",
        metadata={"help": "The retain rows' loss, or their KL from the original.", "choices": ["nll", "kl"]},
    )

    def __post_init__(self):
        super().__post_init__()
        if self.retain_term not in ("nll", "kl"):
            raise UserError(f"`retain_term` is '{self.retain_term}'; it is one of nll, kl")
        self.need(positive=("gamma",), not_negative=("alpha",))

    def need(self, positive: tuple[str, ...] = (), not_negative: tuple[str, ...] = ()) -> None:
        """Raises `UserError` for a field that is out of range."""
        for name in (*positive, *not_negative):
            value = getattr(self, name)
            if value < 0 or (name in positive and value == 0):
                raise UserError(f"`{name}` is {value}; give {'a number above 0' if name in positive else '0 or more'}")


class ForgetRetainTrainer(UnlearningTrainer):
    """L = γ·mean(forget losses) + α·L_r, one retain row for each forget row. A method gives [`forget_losses`].

    Example:

        class Ascent(ForgetRetainTrainer):
            method = "ascent"

            def forget_losses(self, forget):
                return -forget.loss

        Ascent(model, ForgetRetainConfig(output_dir="unlearned"), splits, task).train()
    """

    config_class = ForgetRetainConfig
    args: ForgetRetainConfig

    def __init__(self, model, args: ForgetRetainConfig, splits, task, **kwargs):
        if args.num_train_epochs is None:
            args.num_train_epochs = PASSES * len(splits.forget) / len(splits.retain)
        super().__init__(model, args, splits, task, **kwargs)

    @property
    def asks_original(self) -> bool:
        return self.args.retain_term == "kl" and self.args.alpha > 0

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        """The method's forget term for each row, `(size,)`."""
        raise NotImplementedError(f"{type(self).__name__} does not define forget_losses")

    def retain_losses(self, retain: SplitOutput) -> torch.Tensor:
        """The retain term for each row, `(size,)`."""
        return divergence(retain) if self.args.retain_term == "kl" else retain.loss

    def default_forget_batch(self) -> int:
        return self.args.per_device_train_batch_size

    def phases(self) -> list[Phase]:
        (phase,) = super().phases()
        streams = (FORGET, RETAIN) if self.args.alpha else (FORGET,)
        return [Phase(phase.name, phase.steps, streams)]

    def unlearning_loss(self, forget: SplitOutput, retain: SplitOutput | None = None) -> torch.Tensor:
        loss = self.args.gamma * forget.mean(self.forget_losses(forget))
        if retain is None:
            return loss
        return loss + self.args.alpha * retain.mean(self.retain_losses(retain))


def divergence(output: SplitOutput, temperature: float = 1.0) -> torch.Tensor:
    """T²·KL(p⁰‖p) = T²·Σ p⁰(log p⁰ − log p) over labels, softmaxes at temperature T, p⁰ the original's: `(size,)`,
    mean over a row's supervised tokens."""
    original = output.original.predictions.logits

    def of_rows(log_probs: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        before = (original[places].to(log_probs.dtype) / temperature).log_softmax(1)
        after = (log_probs / temperature).log_softmax(1)
        return temperature**2 * (before.exp() * (before - after)).sum(1)

    return mean_by_places(output, of_rows)


def mean_by_places(output: SplitOutput, figure: RowFigure) -> torch.Tensor:
    """Mean over each row's tokens of `figure(log_probs, places)`, `(size,)`; `places` number the rows of logits.
    A few tokens at a time, so that no vocabulary is copied as a whole."""
    places = torch.arange(len(output.logits), device=output.logits.device)
    return output.predictions.example_mean(by_rows(figure, output.logits, places))
