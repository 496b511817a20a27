"""What methods share that hold every forget row to a target of its own: the proxy, the targets, the budget."""

import dataclasses
import tempfile
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import torch

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.embeddings import embeddings
from hf_unlearn.models import lora
from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import KnownRecipe, UnlearningConfig, default_learning_rate
from hf_unlearn.trainers.proxies import make_proxy
from hf_unlearn.trainers.retain_only import RetainOnlyTrainer
from hf_unlearn.trainers.row_targets import RegressedTargets, RowTargets, class_log_odds, quantile_map
from hf_unlearn.trainers.split_output import SplitOutput

CHECKED_ROWS = 128  # forget and retain rows that are scored to see whether validation rows are unseen
REFIT = (0, 1 / 4, 1 / 2, 3 / 4, 7 / 8, 15 / 16)  # when the targets are measured, as shares of the run
BUDGET = {"proxy_epochs": (0.1, 6.0), "num_train_epochs": (1 / 15, 4.0)}  # share of the epochs of retraining, most
RATE = 0.7  # of the recipe's peak learning rate, as far as the width of the model tells it where it is not known
ADAPTER_RATE = 5.0  # a recipe's rate is for full weights; an adapter that starts at zero needs more
UNKNOWN_EPOCHS = 10.0  # assumed for retraining where the recipe is not known


@dataclass
class RowTargetConfig(UnlearningConfig):
    """Arguments of the methods with a target per row. None of them has to be tuned.

    Args:
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
    proxy_epochs: float | None = field(
        default=None,
        metadata={"help": "Passes that train the proxy, variant rows (default: 1/10 of retrain_epochs, at most 6)."},
    )


class RowTargetTrainer(UnlearningTrainer):
    """Gives a method [`row_targets`]: the log-odds that a model which never saw the row would give its label.

    A proxy that never sees the forget rows says how hard each is, and validation rows translate ([`RowTargets`]). The
    targets are measured six times, with the current model as long as its loss on validation rows is the lowest so far.
    """

    config_class = RowTargetConfig
    wants_label_targets = False  # whether the method asks for `label_targets`

    def __init__(self, model, args, *arguments, recipe: KnownRecipe | None = None, **kwargs):
        args.retrain_epochs = args.retrain_epochs or (recipe.epochs if recipe else UNKNOWN_EPOCHS)
        for name, (share, most) in BUDGET.items():
            if getattr(args, name) is None:
                setattr(args, name, min(most, share * args.retrain_epochs))
        if args.learning_rate is None:
            known = recipe and recipe.learning_rate * (ADAPTER_RATE if lora.is_peft(model) else 1)
            args.learning_rate = RATE * (known or 2 * default_learning_rate(model))
        super().__init__(model, args, *arguments, recipe=recipe, **kwargs)

    def default_forget_batch(self) -> int:
        """Per process and micro-batch: twice its share of the rows, within a quarter and a half of the retain rows."""
        share = 2 * len(self.splits.forget) / len(self.splits.retain)
        return max(1, round(self.args.per_device_train_batch_size * min(0.5, max(0.25, share))))

    def plan(self) -> list[str]:
        return [f"first a proxy that never sees the forget rows: {self.args.proxy_epochs:g} passes over the rest"]

    def row_targets(self, forget: SplitOutput) -> torch.Tensor:
        """Target log-odds of the micro-batch's forget rows, `(size,)`; measured anew when the time has come."""
        step, total = self.state.global_step, self.schedule.total_steps
        if step in {int(total * share) for share in REFIT} and self._first_of_step("targets"):
            self._measure_targets()
        return self.method_state["targets"].to(forget.log_odds)[forget.index]

    def label_targets(self, forget: SplitOutput) -> torch.Tensor:
        """As [`row_targets`], for every label: `(rows,)`. A classifier's row has one. Of a causal LM's every token has
        a target of its own: what the language alone tells of it is no memory of the row."""
        rows = self.row_targets(forget)
        if self.task.has_classes:
            return rows
        start = self.method_state["token_start"]
        places = [torch.arange(start[row], start[row + 1]) for row in forget.index.tolist()]
        return self.method_state["token_targets"][torch.cat([torch.arange(0), *places])].to(rows)

    def _ask_tokens(self, proxy: torch.nn.Module) -> dict[str, torch.Tensor]:
        seen, _ = self._token_log_odds(self.splits.validation_tau, proxy)
        asked, count = self._token_log_odds(self.splits.forget, proxy)
        found = {"token_validation": seen, "token_forget": asked, "token_start": np.r_[0, np.cumsum(count)]}
        return {name: torch.tensor(values) for name, values in found.items()}

    def _token_log_odds(self, rows, model) -> tuple[np.ndarray, np.ndarray]:
        self.count_examples(len(rows))
        return self.collect_tokens(rows, attrgetter("label_log_odds"), model)

    def _fit_tokens(self) -> None:
        now, _ = self._token_log_odds(self.splits.validation_tau, self.model_wrapped)
        seen, asked = (self.method_state[f"token_{name}"].numpy() for name in ("validation", "forget"))
        targets = quantile_map(asked, seen, now, np.ones(len(seen)))
        self.method_state |= {"token_targets": torch.tensor(targets), "token_spread": torch.tensor(now.std())}

    @property
    def spread(self) -> float:
        """Standard deviation of the log-odds on validation rows, in nats: the unit of distances to the targets."""
        return float(self.method_state["spread"])

    @property
    def label_spread(self) -> float:
        """The same for labels: for causal LMs of the tokens of validation rows."""
        return float(self.method_state.get("token_spread", self.method_state["spread"]))

    def check_validation(self) -> None:
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
                "cannot be measured: name unseen rows with `validation`"
            )
        if tau <= min(s.loss.mean() for s in trained):
            self.notes.append("The model's loss on validation rows is not above that on its training rows.")

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
            if "token_forget" in state:
                self._fit_tokens()

    def ask_proxy(self) -> dict[str, torch.Tensor]:
        """Train a proxy on the retain rows, and keep what it says of validation and forget rows."""
        proxy = self._train_proxy()
        validation, forget = self.splits.validation_tau, self.splits.forget
        seen, asked = self._class_log_odds(validation, proxy), self._class_log_odds(forget, proxy)
        if not self.task.has_classes:
            seen, asked = (
                np.concatenate([level, self._embed(rows, proxy)], axis=1)
                for level, rows in ((seen, validation), (asked, forget))
            )
            state = {"proxy_validation": torch.tensor(seen), "proxy_forget": torch.tensor(asked)}
            return state | (self._ask_tokens(proxy) if self.wants_label_targets else {})
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
        shared = {f.name for f in dataclasses.fields(UnlearningConfig) if f.init}
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
                "push_to_hub": False,
                "saliency": None,  # a mask, patterns alone too, would be made from the forget rows
                "saliency_mask": None,
                "saliency_include": None,
                "saliency_exclude": None,
                "logging_strategy": "no",
            }
            trainer = RetainOnlyTrainer(proxy, UnlearningConfig(**values), self.splits, self.task, quiet=True)
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
