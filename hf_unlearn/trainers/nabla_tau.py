"""∇τ: gradient ascent on the forget rows that stops by itself at the loss of unseen data, beside descent on the rest."""

from dataclasses import dataclass, field

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.schedule import FORGET, RETAIN, Phase
from hf_unlearn.trainers.split_output import SplitOutput

TAU_EVERY = 5  # forget epochs between two measurements of τ in the published schedule


@dataclass
class NablaTauConfig(UnlearningConfig):
    """Arguments of [`NablaTauTrainer`].

    Args:
        schedule: `held` or `paper`.
        alpha: weight α₀ of the forget term at the start of the published schedule; `None` is (5/3)·|D_f|/|D_train|.
    """

    schedule: str = field(default="held", metadata={"help": "held or paper.", "choices": ["held", "paper"]})
    alpha: float | None = field(
        default=None, metadata={"help": "Initial weight of the forget term (schedule paper only)."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.alpha is not None and not 0 < self.alpha <= 1:
            raise UserError(f"--alpha is {self.alpha}; it must lie in (0, 1]")


class NablaTauTrainer(UnlearningTrainer):
    config_class = NablaTauConfig
    method = "nabla_tau"
    paper = {"title": "∇τ: Gradient-based and Task-Agnostic machine Unlearning", "id": "arXiv:2403.14339", "year": "2024"}

    def phases(self) -> list[Phase]:
        if self.args.schedule != "paper":
            return super().phases()
        forget, retain = self.stream_sizes()[FORGET].batches, self.stream_sizes()[RETAIN].batches
        self.forget_epochs = max(1, int(6 * retain / (2 * forget)))
        return [
            Phase(
                "unlearn",
                self.forget_epochs * forget,
                learning_rate=self.args.learning_rate,
                final_learning_rate=self.args.learning_rate / 10,
                rate_every=forget,
            )
        ]

    def prepare(self) -> dict[str, torch.Tensor]:
        if self.args.schedule == "paper":
            return {}
        return {"tau": self._measure_tau()}

    def unlearning_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        if self.args.schedule == "paper":
            return self._paper_loss(forget, retain)
        tau = self.tau
        ascent = self.of_step_mean(lambda mean: torch.relu(tau - mean) ** 2 / tau, forget)
        return ascent + retain.mean(retain.loss)

    def _paper_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        """L = α·ReLU(τ − L_f)² + (1 − α)·L_r, with α falling linearly over the forget epochs (section 3)."""
        epoch, step = divmod(self.state.global_step, self.stream_sizes()[FORGET].batches)
        if step == 0 and epoch % TAU_EVERY == 0 and self._tau_step != self.state.global_step:
            self._tau_step = self.state.global_step
            self.method_state["tau"] = self._measure_tau()
        alpha = self.alpha_0 * (1 - epoch / self.forget_epochs)
        tau = self.tau
        ascent = self.of_step_mean(lambda mean: torch.relu(tau - mean) ** 2, forget)
        return alpha * ascent + (1 - alpha) * retain.mean(retain.loss)

    _tau_step = -1

    @property
    def alpha_0(self) -> float:
        if self.args.alpha is not None:
            return self.args.alpha
        forget, retain = len(self.splits.forget), len(self.splits.retain)
        return min(1.0, 5 / 3 * forget / (forget + retain))

    @property
    def tau(self) -> float:
        """The loss at which the ascent stops, in nats."""
        return float(self.method_state["tau"])

    def _measure_tau(self) -> torch.Tensor:
        loss = self.score(self.splits.validation_tau, self.model_wrapped).loss
        return torch.tensor(loss.mean(), dtype=torch.float64)
