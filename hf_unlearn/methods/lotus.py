"""LoTUS: the original's predictions of the forget rows, smoothed as long as they are known better than unseen rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import TrainerCallback

from hf_unlearn.data.rows import AnyRows, Rows
from hf_unlearn.errors import UserError
from hf_unlearn.trainers.forget_retain import mean_by_places
from hf_unlearn.trainers.kept_logits import kept_logits, logits_by_row
from hf_unlearn.trainers.published import PAPER, PublishedConfig, PublishedTrainer
from hf_unlearn.trainers.schedule import FORGET, RETAIN, Phase
from hf_unlearn.trainers.split_output import SplitOutput

FAR_ENOUGH = -0.01  # accuracy on forget rows less that on unseen rows at which the run ends
_KEYS = {FORGET: 8, RETAIN: 9}  # keep these draws apart from others with the same seed


@dataclass
class LotusConfig(PublishedConfig):
    """Arguments of [`LotusTrainer`]. There is the published form only, with the settings of its ResNets; its ViTs take
    three passes at 1e-6.

    Args:
        num_train_epochs: most passes over the retain rows that are read.
        alpha: how fast the temperature grows with the difference of the accuracies; published: 2, and 8 once.
        retain_share: of the retain rows that are read, in (0, 1].
    """

    published: ClassVar[dict[str, Any]] = {"optim": "adamw_torch", "weight_decay": 5e-4, "disable_dropout": False}

    variant: str = field(default=PAPER, init=False)
    num_train_epochs: float = field(default=10.0, metadata={"help": "Most passes over the retain rows that are read."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate."})
    alpha: float = field(default=2.0, metadata={"help": "How fast the temperature grows with the accuracies' gap."})
    retain_share: float = field(default=0.3, metadata={"help": "Share of the retain rows that are read."})

    def __post_init__(self):
        super().__post_init__()
        if self.alpha < 0:
            raise UserError(f"`alpha` is {self.alpha}; give 0 or more")
        if not 0 < self.retain_share <= 1:
            raise UserError(f"`retain_share` is {self.retain_share}; it is a share in (0, 1]")


class LotusTrainer(PublishedTrainer):
    """LoTUS (Spartalis et al. 2025, arXiv 2503.18314): L = the mean over all rows of a step of −Σ_k t_k·log p_k, with

        t = softmax((z⁰ + G)/τ) for forget rows,   t = one-hot(argmax(z⁰ + G)) for retain rows,
        τ = exp(α·(acc_f − acc_v)),

    z⁰ the original's logits, G Gumbel noise drawn anew in every pass (Gumbel-softmax, the second in its limit τ → 0),
    acc_f the accuracy on the forget rows, measured before each pass, and acc_v the original's on validation rows (0
    where classes are removed). The run ends before a pass when acc_f − acc_v ≤ −0.01.

    AdamW at 1e-4 with weight decay 5e-4, ten passes at most; 30 % of the retain rows are read, and a pass is one over
    these. Published code runs the original beside the model; here its logits are kept, a number for each row and
    class. There each step draws from one shuffled mixture; here it has as many rows of each kind as their shares tell.
    Where the forget rows are known no better than unseen ones to begin with, one step is taken, and a note says so.

    Example:

        config = LotusConfig(output_dir="unlearned", alpha=2.0)
        LotusTrainer(model, config, splits, task).train()
    """

    config_class = LotusConfig
    args: LotusConfig
    method = "lotus"
    paper = {
        "title": "LoTUS: Large-Scale Machine Unlearning with a Taste of Uncertainty",
        "authors": "Spartalis et al.",
        "year": "2025",
        "id": "arXiv:2503.18314",
    }

    def __init__(self, model, args: LotusConfig, splits, task, **kwargs):
        self.check_task(task)
        self.args = args  # `training_rows` is asked before Trainer sets it
        super().__init__(model, args, splits, task, **kwargs)
        self.add_callback(_BetweenPasses(self))

    @classmethod
    def check_task(cls, task) -> None:
        if not task.has_labels():
            raise UserError("`method` lotus keeps the original's logits: a vocabulary for every token; use undial")

    def training_rows(self) -> Mapping[str, AnyRows]:
        retain = self.splits.retain
        share = max(1, int(self.args.retain_share * len(retain)))
        return {FORGET: self.splits.forget, RETAIN: self.some_rows(retain, share)}

    def default_forget_batch(self) -> int:
        """One mixture: each row once in a pass."""
        rows = self.train_dataset.streams
        return max(1, round(len(rows[FORGET]) / len(rows[RETAIN]) * self.args.per_device_train_batch_size))

    def phases(self) -> list[Phase]:
        return [Phase("unlearn", math.ceil(self.args.num_train_epochs * self.stream_sizes()[RETAIN].batches))]

    @property
    def ends_passes(self) -> bool:
        return True

    def prepare(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = {}
        for name, rows in self.train_dataset.streams.items():
            self.count_examples(len(rows))
            state[f"logits_{name}"] = torch.tensor(self.collect(rows, logits_by_row))
        unseen = 0.0 if self.splits.forgotten_classes else self.accuracy(self.splits.validation_tau)
        state |= {"unseen_accuracy": torch.tensor(unseen, dtype=torch.float64)} | self.look(unseen)
        if state["over"]:
            self.notes.append("The forgotten rows were known no better than unseen ones: one step was taken.")
        return state

    def rows_beside_steps(self) -> int:
        """Its rows under the original, unseen rows, and the forget rows once at the start."""
        streams = sum(map(len, self.train_dataset.streams.values()))
        unseen = 0 if self.splits.forgotten_classes else len(self.splits.validation_tau)
        return super().rows_beside_steps() + streams + unseen + len(self.splits.forget)

    def accuracy(self, rows: Rows) -> float:
        return float(self.score(rows).correct.mean())

    def look(self, unseen: float) -> dict[str, torch.Tensor]:
        """The temperature, by the accuracies on forget rows as they are and on unseen ones; and whether it is over."""
        gap = self.accuracy(self.splits.forget) - unseen
        temperature = torch.tensor(math.exp(self.args.alpha * gap), dtype=torch.float64)
        return {"temperature": temperature, "over": torch.tensor(gap <= FAR_ENOUGH)}

    def unlearning_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        self.record("temperature", self.method_state["temperature"])
        terms = [o.mean(self.losses(o)) * self.share_of_step(o.stream) for o in (forget, retain)]
        return terms[0] + terms[1]

    def losses(self, output: SplitOutput) -> torch.Tensor:
        """Cross-entropy to the stream's target, `(size,)`."""
        logits = kept_logits(output, self.method_state[f"logits_{output.stream}"])
        noisy = logits + self.gumbel(output).to(logits)
        if output.stream == FORGET:
            target = (noisy / float(self.method_state["temperature"])).softmax(1)
        else:
            target = torch.nn.functional.one_hot(noisy.argmax(1), noisy.shape[1]).to(noisy)
        return mean_by_places(output, lambda log_probs, places: -(target[places] * log_probs).sum(1))

    def _init_training_state(self, max_steps, num_update_steps_per_epoch, num_train_epochs, *args, **kwargs):
        sizes = (max_steps, num_update_steps_per_epoch, num_train_epochs)
        trained = super()._init_training_state(*sizes, *args, **kwargs)
        # A checkpoint of a run that is over: Trainer would take one more of the steps that it might have had.
        return (num_train_epochs, 0) if self.state.global_step and self.method_state["over"] else trained

    def gumbel(self, output: SplitOutput) -> torch.Tensor:
        """Gumbel noise in the shape of the logits: a pure function of (seed, stream, pass, row)."""
        stream, columns = output.stream, output.logits.shape[1]
        number = self.schedule.stream_steps(self.state.global_step, stream) // self.stream_sizes()[stream].batches
        drawn = [
            np.random.default_rng([self.args.seed, _KEYS[stream], number, row]).gumbel(size=(count, columns))
            for row, count in zip(output.rows, output.predictions.counts, strict=True)
        ]
        return torch.as_tensor(np.concatenate(drawn) if drawn else np.zeros((0, columns)))


class _BetweenPasses(TrainerCallback):
    """Looks at the accuracies after each pass, and ends the run where they say so."""

    def __init__(self, trainer: LotusTrainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        trainer = self.trainer
        if state.global_step % trainer.stream_sizes()[RETAIN].batches == 0 and state.global_step < state.max_steps:
            trainer.method_state |= trainer.look(float(trainer.method_state["unseen_accuracy"]))
        control.should_training_stop |= bool(trainer.method_state["over"])
        return control
