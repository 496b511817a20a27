"""∇τ: ascent on the forget rows that stops by itself at the loss of unseen data, beside descent on the rest."""

import dataclasses
import tempfile
from dataclasses import dataclass, field

import numpy as np
import torch

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.embeddings import embeddings
from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import KnownRecipe, UnlearningConfig, default_learning_rate
from hf_unlearn.trainers.fine_tune import FineTuneConfig, FineTuneTrainer
from hf_unlearn.trainers.proxies import make_proxy
from hf_unlearn.trainers.row_targets import RegressedTargets, RowTargets, class_log_odds
from hf_unlearn.trainers.schedule import FORGET, RETAIN, Phase
from hf_unlearn.trainers.split_output import SplitOutput

PAPER_RATE = 1e-3
TAU_EVERY = 5  # forget epochs between two measurements of τ in the published schedule
CHECKED_ROWS = 128  # forget and retain rows that are scored to see whether validation rows are unseen
FORGET_WEIGHT = 0.3
PULL_UP = 0.2  # weight of rows below their target, in the last quarter: a weak return for those that fell too far
REFIT = (0, 1 / 4, 1 / 2, 3 / 4, 7 / 8, 15 / 16)  # when the targets are measured, as shares of the run
BUDGET = {"proxy_epochs": (0.1, 6.0), "num_train_epochs": (1 / 15, 4.0)}  # share of the epochs of retraining, most
RATE = 0.7  # of the recipe's peak learning rate, as far as the width of the model tells it where it is not known
UNKNOWN_EPOCHS = 10.0  # assumed for retraining where the recipe is not known


@dataclass
class NablaTauConfig(UnlearningConfig):
    """Arguments of [`NablaTauTrainer`]. None of them has to be tuned.

    Args:
        schedule: `rows` (default), `held` or `paper`, see [`NablaTauTrainer`].
        alpha: weight α₀ of the forget term at the start of the published schedule; `None` is (5/3)·|D_f|/|D_train|.
        retrain_epochs: epochs that retraining would take; sets the next two. `None`: the recipe's, or 10.
        proxy_epochs: passes over the retain rows that train the proxy; `None` is 1/10 of `retrain_epochs`, at most 6.
        num_train_epochs: passes over the retain rows; `None` is 1/15 of `retrain_epochs`, at most 4.
    """

    num_train_epochs: float | None = field(
        default=None, metadata={"help": "Passes over the retain rows (default: 1/15 of retrain_epochs, at most 4)."}
    )
    retrain_epochs: float | None = field(
        default=None, metadata={"help": "Epochs that retraining would take (default: the recipe's, or 10)."}
    )
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Retain rows per process and micro-batch."})
    schedule: str = field(
        default="rows",
        metadata={
            "help": "rows: a τ for every row; held: one τ, measured once; paper: as published.",
            "choices": ["rows", "held", "paper"],
        },
    )
    alpha: float | None = field(
        default=None, metadata={"help": "Initial weight of the forget term (schedule paper only)."}
    )
    proxy_epochs: float | None = field(
        default=None,
        metadata={"help": "Passes that train the proxy, schedule rows (default: 1/10 of retrain_epochs, at most 6)."},
    )

    def __post_init__(self):
        super().__post_init__()
        if self.schedule not in ("rows", "held", "paper"):
            raise UserError(f"--schedule is '{self.schedule}'; it is one of rows, held, paper")
        if self.alpha is not None and not 0 < self.alpha <= 1:
            raise UserError(f"--alpha is {self.alpha}; it must lie in (0, 1]")
        for name in ("proxy_epochs", "num_train_epochs", "retrain_epochs"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"--{name} is {value}; give a number above 0")


class NablaTauTrainer(UnlearningTrainer):
    """∇τ (Trippa et al. 2024, arXiv 2403.14339): L = α·ReLU(τ − L_f)² + (1 − α)·L_r (equation 4).

    `schedule="paper"` is the published form: L_f is the mean over the step's forget rows, τ the current model's mean
    loss on validation rows, measured again every five forget epochs, α falls linearly from (5/3)·|D_f|/|D_train|.

    `schedule="held"` measures τ once, on the original: from a model that is being damaged it inflates. The descent
    goes on after the target is met: L = ReLU(τ − L_f)²/τ + L_r.

    `schedule="rows"` gives every forget row a τ of its own, because a mean is met by making a few rows very wrong
    while the others stay as they were memorized. With φ = log(p/(1 − p)) of the row's label, a target t_i from a proxy
    that never saw the row ([`RowTargets`]) and s the spread of φ on validation rows:

        L = 0.3·mean[ReLU(φ_i − t_i)² + u·ReLU(t_i − φ_i)²]/s² + L_r,  u = 0, and 0.2 in the last quarter of the run.

    It is still ascent on the forget loss in proportion to the gap, stopped by what validation rows say of unseen data;
    the last quarter lets rows return that fell too far. The targets are measured six times, with the current model as
    long as its loss on validation rows is the lowest so far.
    """

    config_class = NablaTauConfig
    method = "nabla_tau"
    paper = {
        "title": "∇τ: Gradient-based and Task-Agnostic machine Unlearning",
        "authors": "Trippa et al.",
        "year": "2024",
        "id": "arXiv:2403.14339",
    }

    def __init__(self, model, args, *arguments, recipe: KnownRecipe | None = None, **kwargs):
        args.retrain_epochs = args.retrain_epochs or (recipe.epochs if recipe else UNKNOWN_EPOCHS)
        for name, (share, most) in BUDGET.items():
            if getattr(args, name) is None:
                setattr(args, name, min(most, share * args.retrain_epochs))
        if args.learning_rate is None and args.schedule == "paper":
            args.learning_rate = PAPER_RATE
        elif args.learning_rate is None:
            args.learning_rate = RATE * (recipe.learning_rate if recipe else 2 * default_learning_rate(model))
        super().__init__(model, args, *arguments, recipe=recipe, **kwargs)

    def default_forget_batch(self) -> int:
        """Per process and micro-batch: twice its share of the rows, within a quarter and a half of the retain rows."""
        if self.args.schedule == "paper":
            return self.args.per_device_train_batch_size
        if self.args.schedule == "held":
            return super().default_forget_batch()
        share = 2 * len(self.splits.forget) / len(self.splits.retain)
        return max(1, round(self.args.per_device_train_batch_size * min(0.5, max(0.25, share))))

    def phases(self) -> list[Phase]:
        if self.args.schedule != "paper":
            return super().phases()
        forget, retain = self.stream_sizes()[FORGET].batches, self.stream_sizes()[RETAIN].batches
        self.forget_epochs = max(1, int(6 * retain / (2 * forget)))
        rate = self.args.learning_rate
        steps = self.forget_epochs * forget
        return [Phase("unlearn", steps, learning_rate=rate, final_learning_rate=rate / 10, rate_every=forget)]

    def plan(self) -> list[str]:
        lines = [
            f"schedule {self.args.schedule}, {self.passes(self.schedule.total_steps):.2f} passes over the retain rows"
        ]
        if self.args.schedule == "rows":
            lines.append(
                f"first a proxy that never sees the forget rows: {self.args.proxy_epochs:g} passes over the rest"
            )
        return lines

    def prepare(self) -> dict[str, torch.Tensor]:
        self._check_validation()
        if self.args.schedule == "rows":
            return self._ask_proxy()
        return {"tau": self._measure_tau()} if self.args.schedule == "held" else {}

    def _check_validation(self) -> None:
        """Refuse validation rows that the model was trained on: their loss is not that of unseen rows.

        A model that knows its training rows by heart (99 % right) knows rows no better than those by chance, so τ must
        stand out from them by two standard errors. With other models τ near the rest may be what unseen rows have.
        """
        trained = []
        for rows in (self.splits.forget, self.splits.retain):
            some = np.linspace(0, len(rows) - 1, min(len(rows), CHECKED_ROWS)).astype(int)
            trained.append(self.score(rows.select(some), self.model_wrapped))
        tau = self.score(self.splits.validation_tau, self.model_wrapped).loss.mean()
        levels = [s.loss.mean() + 2 * s.loss.std() / len(s.loss) ** 0.5 for s in trained]
        if tau <= min(levels) and trained[1].correct.mean() >= 0.99:
            raise UserError(
                "the model knows the validation rows as well as its training rows, so it was trained on them and τ "
                "cannot be measured: name unseen rows with --validation_split"
            )
        if tau <= min(s.loss.mean() for s in trained):
            self.notes.append("The model's loss on validation rows is not above that on its training rows.")

    def unlearning_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        return getattr(self, f"_{self.args.schedule}_loss")(forget, retain)

    # A τ for every row.

    def _rows_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        step, total = self.state.global_step, self.schedule.total_steps
        if step in {int(total * share) for share in REFIT} and self._first_of_step("targets"):
            self._measure_targets()
        log_odds = forget.log_odds  # (size,)
        above = log_odds - self.method_state["targets"].to(log_odds)[forget.index]
        pull_up = PULL_UP if step >= 0.75 * total else 0.0
        pull = torch.where(above > 0, above**2, pull_up * above**2) / float(self.method_state["spread"]) ** 2
        return FORGET_WEIGHT * forget.mean(pull) + retain.mean(retain.loss)

    def _measure_targets(self) -> None:
        """t_i from the log-odds on validation rows: the current model's, unless it has been better before.

        A model that is being damaged would pull its own targets down; one that gets better (wrong labels leave it)
        must not be held to what it was.
        """
        state = self.method_state
        kept = [state[key].numpy() for key in ("proxy_validation", "proxy_forget", "right") if key in state]
        rows = RowTargets(*kept) if self.task.has_classes else RegressedTargets(*kept)
        log_odds = self._class_log_odds(self.splits.validation_tau, self.model_wrapped)
        own = log_odds[kept[2] == 1] if self.task.has_classes else log_odds
        loss = torch.tensor(np.logaddexp(0, -own).mean())  # −log p
        if "tau" not in state or loss <= state["tau"]:
            targets, spread = rows.fit(log_odds)
            state |= {"tau": loss, "targets": torch.tensor(targets), "spread": torch.tensor(spread)}

    def _ask_proxy(self) -> dict[str, torch.Tensor]:
        """Train a proxy on the retain rows, and keep what it says of validation and forget rows."""
        proxy = self._train_proxy()
        validation, forget = self.splits.validation_tau, self.splits.forget
        seen, asked = self._class_log_odds(validation, proxy), self._class_log_odds(forget, proxy)
        if not self.task.has_classes:
            seen, asked = (
                np.concatenate([level, self._embed(rows, proxy)], axis=1)
                for level, rows in ((seen, validation), (asked, forget))
            )
            return {"proxy_validation": torch.tensor(seen), "proxy_forget": torch.tensor(asked)}
        labels, own = self._labels(validation), self._labels(forget)
        known = np.unique(self._labels(self.splits.retain))
        right = np.where(np.isin(np.arange(seen.shape[1]), known), 0, -1)[None].repeat(len(labels), 0)
        right[np.arange(len(labels)), labels] = np.where(np.isin(labels, known), 1, -1)
        return {
            "proxy_validation": torch.tensor(seen),
            "proxy_forget": torch.tensor(asked[np.arange(len(forget)), own]),
            "right": torch.tensor(right),
        }

    def _embed(self, rows, model) -> np.ndarray:
        self.count_examples(len(rows))
        return embeddings(model, self.task, rows, self.args.per_device_eval_batch_size)

    def _train_proxy(self) -> torch.nn.Module:
        args = self.args
        recipe = self.recipe
        proxy = make_proxy(self.accelerator.unwrap_model(self.model), args.seed, recipe.start if recipe else None)
        shared = {f.name for f in dataclasses.fields(FineTuneConfig) if f.init}
        values = {f.name: getattr(args, f.name) for f in dataclasses.fields(args) if f.name in shared}
        with tempfile.TemporaryDirectory() as scratch:
            values |= {
                "output_dir": scratch,
                "num_train_epochs": args.proxy_epochs,
                "max_steps": -1,
                "learning_rate": recipe.learning_rate if recipe else 2 * default_learning_rate(proxy),
                "disable_dropout": False,  # it is trained as a model is trained
                "eval_strategy": "no",
                "save_strategy": "no",
                "report_to": "none",
                "load_best_model_at_end": False,
                "logging_strategy": "no",
            }
            trainer = FineTuneTrainer(proxy, FineTuneConfig(**values), self.splits, self.task, quiet=True)
            if self.side_progress is not None:
                trainer.add_callback(self.side_progress("training a proxy that never saw the forget rows"))
            trainer.train()
        self.count_examples(trainer.examples)
        return trainer.accelerator.unwrap_model(trainer.model)

    def _class_log_odds(self, rows, model) -> np.ndarray:
        """`(rows, classes)`, in row order on every process."""
        self.count_examples(len(rows))
        return self.collect(rows, class_log_odds, model)

    @staticmethod
    def _labels(rows) -> np.ndarray:
        return np.array([int(features["labels"]) for features in rows.__getitems__(range(len(rows)))])

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
    def alpha_0(self) -> float:
        """Weight of the forget term at the start of the published schedule."""
        if self.args.alpha is not None:
            return self.args.alpha
        forget, retain = len(self.splits.forget), len(self.splits.retain)
        return min(1.0, 5 / 3 * forget / (forget + retain))

    @property
    def tau(self) -> float:
        """The loss at which the ascent stops, in nats."""
        return float(self.method_state["tau"])

    def _measure_tau(self) -> torch.Tensor:
        return torch.tensor(self.score(self.splits.validation_tau, self.model_wrapped).loss.mean())
