"""SalUn: random labels on the forget rows, with updates masked to the weights that are salient for them."""

import math
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any, ClassVar

import torch
from transformers import TrainerCallback

from hf_unlearn.errors import UserError
from hf_unlearn.saliency.soft_threshold import PREFIX, SoftThreshold
from hf_unlearn.trainers.config import filled_later
from hf_unlearn.trainers.published import SALUN_RELEASE
from hf_unlearn.trainers.random_labels import draws, soft_losses, uniform_labels
from hf_unlearn.trainers.row_target_trainer import RowTargetConfig, RowTargetTrainer
from hf_unlearn.trainers.schedule import FORGET, RETAIN, Phase
from hf_unlearn.trainers.split_output import SplitOutput

SHARE = 0.5  # of the weights may move, as published
PAPER_EPOCHS = 10
PAPER_RATE = 0.013
MOST_PULL = 10.0  # 1/p beyond it would let single rows rule a step


@dataclass
class SalUnConfig(RowTargetConfig):
    """Arguments of [`SalUnTrainer`]. None of them has to be tuned.

    `saliency` is 0.5 where nothing else is said, as published; 1 masks nothing, which leaves plain random labels.

    Args:
        variant: `rows` (default) or `paper`, see [`SalUnTrainer`].
        labels: `uniform` draws wrong labels, each alike; `soft` takes all of them at once, each as far as the model
            itself finds it likely. `None` is `uniform` with `variant="paper"` and for causal LMs, else `soft`.
        allow_true_label: with `uniform`: draw from all labels, the true one included, as the released code does.
        mixing: `shuffled`: every step has forget and retain rows; `sequential`: a pass over the forget rows, then one
            over the retain rows, and so on.
        soft_threshold: instead of a mask: the part of the weights, in (0, 1], that a step pulls back to the original,
            those that moved least; falls linearly to 0 over the run. Keeps a copy of the weights.
    """

    published: ClassVar[dict[str, Any]] = SALUN_RELEASE

    variant: str = field(
        default="rows",
        metadata={
            "help": "rows: until a row is as unseen rows are; paper: as published.",
            "choices": ["rows", "paper"],
        },
    )
    labels: str = filled_later(
        "Wrong labels drawn alike, or all at once (default: the task's; variant paper: uniform).",
        choices=["soft", "uniform"],
    )
    allow_true_label: bool = field(default=False, metadata={"help": "Draw from all labels, the true one included."})
    mixing: str = field(
        default="shuffled",
        metadata={"help": "Forget and retain rows in every step, or in turn.", "choices": ["shuffled", "sequential"]},
    )
    soft_threshold: float | None = field(
        default=None, metadata={"help": "Instead of a mask: part of the weights that a step pulls back, at first."}
    )

    def __post_init__(self):
        super().__post_init__()
        for name, known in (
            ("variant", ("rows", "paper")),
            ("labels", (None, "soft", "uniform")),
            ("mixing", ("shuffled", "sequential")),
        ):
            if getattr(self, name) not in known:
                choices = ", ".join(choice for choice in known if choice)
                raise UserError(f"`{name}` is '{getattr(self, name)}'; it is one of {choices}")
        if self.labels is None and (self.variant == "paper" or self.allow_true_label):
            self.labels = "uniform"
        if self.allow_true_label and self.labels != "uniform":
            raise UserError("`allow_true_label` is for labels drawn alike; add `labels` uniform")
        if self.soft_threshold is not None:
            if self.masks_updates:
                raise UserError("`soft_threshold` takes the place of the mask; leave the `saliency` arguments out")
        elif self.saliency is None and not self.saliency_mask:
            self.saliency = SHARE


class SalUnTrainer(RowTargetTrainer):
    """SalUn (Fan et al. 2024, arXiv 2310.12508): descent on wrong labels y′ for the forget rows and on the true ones
    for the rest, moving only the weights whose saliency |∇L_f(θ₀)| is in the upper half (equations 3 to 5).

    `variant="paper"`: L = mean of CE(y′) over forget rows and CE(y) over retain rows, ten epochs, y′ uniform. How far
    it forgets hangs on the learning rate and the number of epochs: the pull on a row never ends.

    `variant="rows"` ends it where a model that never saw the row would stand. With φ = log(p/(1 − p)) of the row's
    true label, its target t_i ([`RowTargetTrainer`]) and s the spread of φ on validation rows:

        L = mean_i[ReLU(a_i) · min(1/p_i, 10) · CE(π(· | x, y′ ≠ y)) + min(ReLU(−0.2 − a_i), 1) · CE(y)] + R,

    with a_i = (φ_i − t_i)/s, the factors being numbers through which no gradient flows, and R the retain rows' loss,
    which are held where they were the more, the less they are known by heart ([`Holding`]). A row that fell well below
    its target returns, and the run is prolonged as long as rows stand above theirs. π(· | x, y′ ≠ y) is the model's
    own opinion of the wrong labels: those drawn alike pull a row to another far-fetched class each time and undo each
    other, so that hard rows never become as wrong as they are for a model that never saw them. 1/p makes up for a
    pull that fades with p. The tokens of a causal LM have targets of their own and labels drawn alike, without that
    factor: a likely wrong token is soon the most likely one, and easy words are lost with the rest.

    Example:

        config = SalUnConfig(output_dir="unlearned", saliency=0.3)
        SalUnTrainer(model, config, splits, task).train()
    """

    config_class = SalUnConfig
    args: SalUnConfig
    method = "salun"
    wants_label_targets = True
    paper = {
        "title": "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency in Both Image "
        "Classification and Generation",
        "authors": "Chongyu Fan, Jiancheng Liu, Yihua Zhang, Eric Wong, Dennis Wei, Sijia Liu",
        "year": "2024",
        "id": "arXiv:2310.12508",
    }

    def __init__(self, model, args: SalUnConfig, splits, task, **kwargs):
        if args.num_train_epochs is None and args.variant == "paper":
            args.num_train_epochs = PAPER_EPOCHS
        if args.learning_rate is None and args.variant == "paper":
            args.learning_rate = PAPER_RATE
        super().__init__(model, args, splits, task, **kwargs)
        if args.labels is None:
            args.labels = self.task.wrong_labels
        self._soft: SoftThreshold | None = None
        if args.soft_threshold is not None:
            self.add_callback(_PullBack(self))

    @property
    def ends_passes(self) -> bool:
        return self.as_published

    def default_forget_batch(self) -> int:
        if self.args.variant != "paper":
            return super().default_forget_batch()
        if self.args.mixing == "sequential":
            return self.args.per_device_train_batch_size
        share = len(self.splits.forget) / len(self.splits.retain)  # one mixture: each row once an epoch
        return max(1, round(share * self.args.per_device_train_batch_size))

    def phases(self) -> list[Phase]:
        if self.args.mixing == "shuffled":
            return super().phases()
        forget, retain = (self.stream_sizes()[stream].batches for stream in (FORGET, RETAIN))
        epoch = [Phase("forget pass", forget, (FORGET,)), Phase("retain pass", retain, (RETAIN,))]
        return epoch * max(1, math.ceil(self.args.num_train_epochs))

    def _most_steps(self, steps: int) -> int:
        """The pull of wrong labels on a removed class fades before its rows are as unlikely as their targets say:
        eight times the steps left them where they were."""
        return steps if self.splits.forgotten_classes else super()._most_steps(steps)

    def plan(self) -> list[str]:
        args = self.args
        passes = f"{self.passes(self.schedule.total_steps):.2f} passes over the retain rows"
        lines = [f"variant {args.variant}, labels {args.labels}, mixing {args.mixing}, {passes}"]
        return lines + (super().plan() if args.variant == "rows" else [])

    def rows_of_targets(self) -> int:
        return super().rows_of_targets() if self.args.variant == "rows" else 0

    def prepare(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = {}
        if self.args.variant == "rows":
            self.check_validation()
            state |= self.ask_source()
        if self.args.soft_threshold is not None:
            self._soft = None
            state |= self.soft_threshold().to_tensors()
        return state

    def soft_threshold(self) -> SoftThreshold:
        """Around the original's weights: the model's before the first step, later a checkpoint's copy of them."""
        if self._soft is None:
            share = self.args.soft_threshold
            assert share is not None
            self._soft = SoftThreshold(self.model, share, self.schedule.planned_steps)
            if any(name.startswith(PREFIX) for name in self.method_state):
                self._soft.load_tensors(self.method_state)
        return self._soft

    def unlearning_loss(self, forget: SplitOutput | None = None, retain: SplitOutput | None = None) -> torch.Tensor:
        terms = []
        if forget is not None:
            terms.append(self._forget_term(forget) * self._share(FORGET))
        if retain is not None:
            terms.append(self._retain_term(retain) * self._share(RETAIN))
        return reduce(add, terms)

    def _share(self, stream: str) -> float:
        """Weight of a stream's mean: as published, every example of a step counts the same."""
        return self.share_of_step(stream) if self.as_published else 1.0

    def _retain_term(self, retain: SplitOutput) -> torch.Tensor:
        return self.hold(retain) if self.args.variant == "rows" else retain.mean(retain.loss)

    def _forget_term(self, forget: SplitOutput) -> torch.Tensor:
        loss, predictions = self.wrong_label_losses(forget), forget.predictions
        if self.args.variant == "rows":
            above = (predictions.label_log_odds.detach() - self.label_targets(forget)) / self.label_spread
            back = predictions.losses_for(predictions.labels)
            loss = above.clamp(min=0) * loss + (above.neg() - self.slack(forget)).clamp(0, 1) * back
        return forget.mean(predictions.example_mean(loss))

    def wrong_label_losses(self, forget: SplitOutput) -> torch.Tensor:
        """Cross-entropy against this step's wrong labels, `(rows,)`."""
        if self.args.labels == "soft":
            faded = forget.predictions.token_log_prob.detach().neg().exp().clamp(max=MOST_PULL)
            return faded * soft_losses(forget)
        seen = self.schedule.stream_steps(self.state.global_step, FORGET)
        uniform = draws(forget, self.args.seed, epoch=seen // self.stream_sizes()[FORGET].batches)
        labels = uniform_labels(forget, uniform, self.args.allow_true_label)
        return forget.predictions.losses_for(labels)


class _PullBack(TrainerCallback):
    """Soft-thresholds θ − θ₀ after each optimizer step."""

    def __init__(self, trainer: SalUnTrainer):
        self.trainer = trainer

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.soft_threshold().apply(state.global_step)
