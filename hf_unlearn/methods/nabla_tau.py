"""∇τ: ascent on the forget rows that stops by itself at the loss of unseen data, beside descent on the rest."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from hf_unlearn.errors import UserError
from hf_unlearn.tasks.base import Task
from hf_unlearn.trainers import token_instead, token_pull
from hf_unlearn.trainers.config import KnownRecipe, filled_later
from hf_unlearn.trainers.lookahead import Attacked, Lookahead
from hf_unlearn.trainers.row_target_trainer import RowTargetConfig, RowTargetTrainer
from hf_unlearn.trainers.saliency_lens import SaliencyLens
from hf_unlearn.trainers.schedule import FORGET, RETAIN, Phase
from hf_unlearn.trainers.split_output import SplitOutput, on_host

VARIANTS = ("rows", "tokens", "held", "paper")
PAPER_RATE = 1e-3
PAPER_DECAY = 0.01  # AdamW's own
TAU_EVERY = 5  # forget epochs between two measurements of τ in the published schedule
FORGET_WEIGHT = 0.6
RETAIN_ROWS = {"tokens": 8}  # a step; 16 elsewhere
RELEARN_STEPS = {"tokens": 3}  # that the run looks ahead; elsewhere it does not


@dataclass
class NablaTauConfig(RowTargetConfig):
    """Arguments of [`NablaTauTrainer`]. None of them has to be tuned.

    Args:
        variant: `rows`, `tokens`, `held` or `paper`, see [`NablaTauTrainer`]. `None` is `tokens` for a causal LM that
            was not trained from random weights, as far as is known, `held` for models that say no labels, else `rows`.
        per_device_train_batch_size: retain rows per process and micro-batch; `None` is 16, with variant tokens 8.
        relearn_steps: how many steps of relearning the run looks ahead ([`Lookahead`]), variant tokens only; `None` is
            3 there. Fewer where the other forget rows do not suffice for so many. Each costs the forget rows of a step
            once more in half of the steps; 0 does without.
        alpha: weight α₀ of the forget term at the start of the published schedule; `None` is (5/3)·|D_f|/|D_train|.
    """

    published: ClassVar[dict[str, Any]] = {"optim": "adamw_torch", "weight_decay": PAPER_DECAY}

    variant: str = filled_later(
        "rows: a τ for every row; tokens: for every row and its tokens (causal LMs); held: one τ, measured once; "
        "paper: as published (default: tokens for pretrained causal LMs, else rows).",
        choices=list(VARIANTS),
    )
    alpha: float | None = field(
        default=None, metadata={"help": "Initial weight of the forget term (variant paper only)."}
    )
    per_device_train_batch_size: int = filled_later(
        "Retain rows per process and micro-batch (default: 16, variant tokens 8)."
    )
    relearn_steps: int = filled_later(
        "Steps of relearning after which rows must still be forgotten, variant tokens (default: 3)."
    )

    def __post_init__(self):
        super().__post_init__()
        if self.variant not in (None, *VARIANTS):
            raise UserError(f"`variant` is '{self.variant}'; it is one of {', '.join(VARIANTS)}")
        if self.alpha is not None and not 0 < self.alpha <= 1:
            raise UserError(f"`alpha` is {self.alpha}; it must lie in (0, 1]")
        if self.relearn_steps is not None and self.relearn_steps < 0:
            raise UserError(f"`relearn_steps` is {self.relearn_steps}; it must be 0 or more")


class NablaTauTrainer(RowTargetTrainer, Attacked):
    """∇τ (Trippa et al. 2024, arXiv 2403.14339): L = α·ReLU(τ − L_f)² + (1 − α)·L_r (equation 4).

    `variant="paper"` is the published form: L_f is the mean over the step's forget rows, τ the current model's mean
    loss on validation rows, measured again every five forget epochs, α falls linearly from (5/3)·|D_f|/|D_train|.

    `variant="held"` measures τ once, on the original: from a model that is being damaged it inflates. The descent
    goes on after the target is met: L = ReLU(τ − L_f)²/τ + L_r.

    `variant="rows"` gives every forget row a τ of its own, because a mean is met by making a few rows very wrong
    while the others stay as they were memorized. With φ = log(p/(1 − p)) of the row's label, a target t_i from
    something that never saw the row ([`RowTargets`]) and s the spread of φ on validation rows:

        L = 0.6·mean_i[h(a_i)] + R,   a_i = (φ_i − t_i)/s,
        h(a) = a²/2 from 0 to 1, a − 1/2 beyond, 0 down to a = −0.2, and h(−0.2 − a) below (Huber with a slack, which
        rows of removed classes do not have),

    and R the mean loss L_r of the retain rows, which the less they are known by heart, the more are held where they
    were ([`Holding`]). It is ascent on the forget loss as long as the row stands above its target, of bounded
    strength, so that the descent beside it is heard; it ends where validation rows say that unseen data lie. A row
    that fell further is led back by the same term; within the slack it is left alone, for held to a target to the nat
    it would be learned again. Adam runs without momentum (β₁ = 0): pushed rows would run past their targets. The
    targets are measured five times, with the current model unless validation rows say that it is worse than before.
    The run is prolonged as long as the rows stand above them on average ([`Prolonging`]).

    `variant="tokens"` is for causal LMs: the row says how much and its tokens say where ([`token_pull`]). With token
    log-odds φ_ij, their targets t_ij and the spread S of token log-odds on validation rows, a and e numbers through
    which no gradient flows:

        L = 0.6·mean_i[a_i·mean_j(e_ij·φ_ij)] + I + R,   a_i = (φ_i − t_i)/s,
        e_ij = clamp((φ_ij − t_ij)/S, 0, 1) where a_i > 0, else clamp((t_ij − φ_ij)/S, 0, 1),

    where I leads, in the first third, to what the source of the targets says in the place of the forgotten tokens
    ([`~hf_unlearn.trainers.token_instead.instead`]), and R holds the retain rows by half at least. By AdamW without
    momentum, the targets measured once on the original. Between the first third and the last fifth of the steps the
    forget term is also asked for after three steps that learn other forgotten rows ([`Lookahead`]).
    What is left of ∇τ: ascent on what is above its target, in proportion to the gap, which stops there, and beside it
    descent on rows that lose. A row that fell too far comes back the same way, from the first step on.

    Example:

        config = NablaTauConfig(output_dir="unlearned", num_train_epochs=1)
        NablaTauTrainer(model, config, splits, task).train()
    """

    config_class = NablaTauConfig
    args: NablaTauConfig
    method = "nabla_tau"
    lenses = (Lookahead, SaliencyLens)  # what is looked at ahead is masked as well
    paper = {
        "title": "∇τ: Gradient-based and Task-Agnostic machine Unlearning",
        "authors": "Daniel Trippa, Cesare Campagnano, Maria Sofia Bucarelli, Gabriele Tolomei, Fabrizio Silvestri",
        "year": "2024",
        "id": "arXiv:2403.14339",
    }

    def __init__(self, model, args: NablaTauConfig, splits, task, *, recipe: KnownRecipe | None = None, **kwargs):
        if args.variant is None:
            args.variant = default_variant(task, recipe)
        if args.learning_rate is None and args.variant == "paper":
            args.learning_rate = PAPER_RATE
        self.by_tokens = args.variant == "tokens"
        if args.variant == "rows" and not task.says_labels:
            raise UserError(f"`variant` rows is for models that say labels; for {task.name} there is held")
        if self.by_tokens and not task.generates:
            raise UserError(f"`variant` tokens is for causal_lm; the rows of {task.name} have no tokens to tell apart")
        if args.per_device_train_batch_size is None:
            args.per_device_train_batch_size = RETAIN_ROWS.get(args.variant, 16)
        if args.relearn_steps is None:
            args.relearn_steps = RELEARN_STEPS.get(args.variant, 0)
        if args.relearn_steps and not self.by_tokens:
            raise UserError(f"`relearn_steps` is for `variant` tokens; this is {args.variant}")
        if self.by_tokens:
            self.asks_others = True
            self.least_steps, self.visits = token_pull.LEAST_STEPS, token_pull.VISITS
            self.least_held = token_pull.LEAST_HELD
            args.learning_rate = args.learning_rate or token_pull.RATE * token_pull.fine_tuning_rate(model, recipe)
        super().__init__(model, args, splits, task, recipe=recipe, **kwargs)

    def default_forget_batch(self) -> int:
        if self.args.variant == "paper":
            return self.args.per_device_train_batch_size
        if self.args.variant == "held":
            return max(1, self.args.per_device_train_batch_size // 2)
        return super().default_forget_batch()

    def phases(self) -> list[Phase]:
        if self.args.variant != "paper":
            return super().phases()
        forget, retain = self.stream_sizes()[FORGET].batches, self.stream_sizes()[RETAIN].batches
        rate = self.args.learning_rate
        steps = max(1, int(6 * retain / (2 * forget))) * forget
        return [Phase("unlearn", steps, learning_rate=rate, final_learning_rate=rate / 10, rate_every=forget)]

    def plan(self) -> list[str]:
        passes = self.passes(self.schedule.total_steps)
        proxy = super().plan() if self.args.variant in ("rows", "tokens") else []
        words = [token_instead.PLAN] if self.by_tokens else []
        return [f"variant {self.args.variant}, {passes:.2f} passes over the retain rows", *proxy, *words]

    def rows_of_targets(self) -> int:
        if self.args.variant in ("rows", "tokens"):
            return super().rows_of_targets()
        times = math.ceil(self.forget_epochs / TAU_EVERY) if self.args.variant == "paper" else 1
        return self.rows_of_check() + times * len(self.calibration_rows)

    def rows_of_refits(self) -> int:
        return 0 if self.by_tokens else super().rows_of_refits()

    def prepare(self) -> dict[str, torch.Tensor]:
        self.check_validation()
        if self.by_tokens:
            self.measure_retain(0, self.schedule.total_steps)
            return token_pull.measure(self)
        if self.args.variant == "rows":
            return self.ask_source()
        return {"tau": self._measure_tau()} if self.args.variant == "held" else {}

    def unlearning_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        return getattr(self, f"_{self.args.variant}_loss")(forget, retain)

    # A τ for every row.

    def _tokens_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        step, total = self.state.global_step, self.schedule.total_steps
        instead = token_instead.instead(self.method_state, forget, step / total)
        return self.forget_term(forget) + instead + self.hold(retain)

    def forget_term(self, forget: SplitOutput, higher: float = 0.0) -> torch.Tensor:
        return token_pull.pull(self.method_state, forget, higher)

    @property
    def relearning_rate(self) -> float:
        return token_pull.fine_tuning_rate(self.model, self.recipe)

    def _rows_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        away = (forget.log_odds - self.row_targets(forget)) / self.spread  # (size,)
        away = away.clamp(min=0) + (away + self.slack(forget)).clamp(max=0)
        pull = F.huber_loss(away, torch.zeros_like(away), reduction="none")
        return FORGET_WEIGHT * forget.mean(pull) + self.hold(retain)

    # One τ for the mean.

    def _held_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        tau = self.tau
        ascent = self.of_step_mean(lambda mean: torch.relu(tau - mean) ** 2 / tau, forget)
        return ascent + retain.mean(retain.loss)

    def _paper_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        """α falls per forget epoch, α_i = α₀(1 − i/E); τ is measured at i = 0, 5, 10, …"""
        epoch, step = divmod(self.state.global_step, self.stream_sizes()[FORGET].batches)
        if step == 0 and epoch % TAU_EVERY == 0 and self._first_of_step("tau"):
            self.method_state["tau"] = self._measure_tau()
        alpha, tau = self.alpha_0 * (1 - epoch / self.forget_epochs), self.tau
        ascent = self.of_step_mean(lambda mean: torch.relu(tau - mean) ** 2, forget)
        return alpha * ascent + (1 - alpha) * retain.mean(retain.loss)

    @property
    def forget_epochs(self) -> float:
        """E, passes over the forget rows: as many as the run's steps make."""
        return self.schedule.total_steps / self.stream_sizes()[FORGET].batches

    @property
    def alpha_0(self) -> float:
        """Weight of the forget term at the start of the published schedule."""
        if self.args.alpha is not None:
            return self.args.alpha
        forget, retain = len(self.splits.forget), len(self.splits.retain)
        return min(1.0, 5 / 3 * forget / (forget + retain))

    @property
    def tau(self) -> float:
        """The loss at which the ascent stops, in nats."""
        return on_host(self.method_state["tau"])

    def _measure_tau(self) -> torch.Tensor:
        return torch.tensor(self.score(self.calibration_rows, self.model_wrapped).loss.mean())


def default_variant(task: Task, recipe: KnownRecipe | None) -> str:
    """`held` where predictions say no labels, and `tokens` for causal LMs, unless the recipe is known to start from
    random weights: there an attacker told the forgotten rows from unseen ones more often than with `rows`."""
    if not task.says_labels:
        return "held"
    if not task.generates:
        return "rows"
    return "tokens" if recipe is None or recipe.pretrained else "rows"
