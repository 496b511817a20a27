"""What methods share that hold every forget row to a target of its own: the proxy, the targets, the budget."""

import dataclasses
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.evaluation.embeddings import embeddings
from hf_unlearn.evaluation.metrics import loss_auc
from hf_unlearn.models import lora
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.trainers.config import KnownRecipe, UnlearningConfig, default_learning_rate, filled_later
from hf_unlearn.trainers.prolonging import MOST_TIMES, Prolonging
from hf_unlearn.trainers.proxies import make_proxy, starts_clean
from hf_unlearn.trainers.published import PAPER, PublishedConfig, PublishedTrainer
from hf_unlearn.trainers.retain_only import RetainOnlyTrainer
from hf_unlearn.trainers.row_targets import RegressedTargets, RemovedClasses, RowTargets, class_log_odds, quantile_map
from hf_unlearn.trainers.schedule import FORGET, RETAIN, Phase
from hf_unlearn.trainers.split_output import SplitOutput
from hf_unlearn.trainers.target_sources import MOST_PROBE_ROWS, Asked, Asking, Probe, Proxy, TargetSource
from hf_unlearn.trainers.token_targets import at_tokens

CHECKED_ROWS = 128  # forget and retain rows whose loss is compared with that of validation rows
REFIT = (0, 1 / 4, 1 / 2, 3 / 4, 7 / 8)  # when the targets are measured, as shares of the run
LEAST_STEPS = 40  # however few the rows: a model that is moved in fewer, larger steps is damaged
VISITS = 3.0  # of each forget row, at least
SLACK = 0.2  # spreads that a row may fall below its target before it is led back
FORGET_SHARE = 0.5  # forget rows beside each retain row of a step
BUDGET = {"proxy_epochs": (0.1, 6.0), "num_train_epochs": (1 / 15, 4.0)}  # share of the epochs of retraining, most
RATE = 0.7  # of the recipe's peak learning rate, as far as the width of the model tells it where it is not known
ADAPTER_RATE = 12.0  # a recipe's rate is for full weights; an adapter that starts at zero needs more
MOST_CALIBRATION = 2048  # validation rows that translate; more move no quantile by what matters
LEAST_AGREEMENT = 0.2  # correlation on validation rows below which a probe says nothing of the model
COSTS_THE_SAME = 0.5  # of the examples of retraining
USUAL_MOMENTUM = 0.9  # Adam's, for whatever is trained as models usually are
UNKNOWN_EPOCHS = 10.0  # assumed for retraining where the recipe is not known
TOLD_APART = 0.05  # the AUC above one half from which a proxy is taken to remember, if three standard errors are less
PROXY_REMEMBERS = (
    "A proxy that keeps the model's lowest layers told forgotten rows from validation rows (AUC {auc:.1%}): they "
    "remember them, so one that keeps nothing was trained. To name the base of the model gives better targets."
)


@dataclass
class RowTargetConfig(PublishedConfig):
    """Arguments of the methods with a target per row. None of them has to be tuned.

    Args:
        retrain_epochs: epochs that retraining would take; sets the next two. `None`: the recipe's, or 10.
        proxy_epochs: passes over the retain rows that train the proxy; `None` is 1/10 of `retrain_epochs`, at most 6.
        num_train_epochs: passes over the retain rows; `None` is 1/15 of `retrain_epochs`, at most 4, and never fewer
            than 40 steps and three visits of each forget row.
        adam_beta1: `None` is 0 with `variant="rows"`: momentum would carry rows past their targets.
        warmup_steps: steps, or a share below 1 of them; `None` is 0.1 with `variant="rows"`.
    """

    num_train_epochs: float = filled_later("Passes over the retain rows (default: 1/15 of retrain_epochs, at most 4).")
    retrain_epochs: float = filled_later("Epochs that retraining would take (default: the recipe's, or 10).")
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Retain rows per process and micro-batch."})
    adam_beta1: float = filled_later("Adam's momentum (default: 0 with variant rows, else 0.9).")
    warmup_steps: float = filled_later(
        "Steps, or a share of them, in which the rate rises (default: 0.1 with variant rows, else 0)."
    )
    proxy_epochs: float = filled_later(
        "Passes that train the proxy, variant rows (default: 1/10 of retrain_epochs, at most 6)."
    )

    def __post_init__(self):
        by_rows = self.variant in (None, "rows", "tokens")
        self.steps_follow_request = self.num_train_epochs is None  # a trainer puts a number there
        if self.adam_beta1 is None:
            self.adam_beta1 = 0.0 if by_rows else USUAL_MOMENTUM
        if self.warmup_steps is None:
            self.warmup_steps = 0.1 if by_rows else 0.0
        super().__post_init__()


class RowTargetTrainer(Prolonging, PublishedTrainer, Asking):
    """Gives a method [`row_targets`]: the log-odds that a model which never saw the row would give its label.

    A source that never saw the forget rows says how hard each is ([`TargetSource`]), and validation rows translate
    ([`RowTargets`]). The targets are measured five times, with the current model as long as its loss on validation
    rows is the lowest so far.

    Example:

        class Squares(RowTargetTrainer):
            method = "squares"

            def prepare(self):
                return self.ask_source()

            def unlearning_loss(self, forget, retain):
                away = forget.log_odds - self.row_targets(forget)
                return forget.mean(away.square()) + retain.mean(retain.loss)

        Squares(model, RowTargetConfig(output_dir="unlearned"), splits, task).train()
    """

    config_class = RowTargetConfig
    args: RowTargetConfig
    source: TargetSource | None = None  # instead of the one that the recipe suggests
    wants_label_targets = False  # whether the method asks for `label_targets`
    least_steps, visits = LEAST_STEPS, VISITS

    def __init__(
        self,
        model: torch.nn.Module,
        args: RowTargetConfig,
        splits: UnlearningSplits,
        task: Task,
        *,
        recipe: KnownRecipe | None = None,
        **kwargs: Any,
    ):
        args.retrain_epochs = args.retrain_epochs or (recipe and recipe.epochs) or UNKNOWN_EPOCHS
        self._calibrated: tuple[int, np.ndarray] | None = None
        for name, (share, most) in BUDGET.items():
            if getattr(args, name) is None:
                setattr(args, name, min(most, share * args.retrain_epochs))
        if args.learning_rate is None:
            known = recipe and recipe.rate_for(model, ADAPTER_RATE)
            args.learning_rate = RATE * (known or 2 * default_learning_rate(model))
        super().__init__(model, args, splits, task, recipe=recipe, **kwargs)

    def default_forget_batch(self) -> int:
        """Per process and micro-batch: half of the retain rows."""
        return max(1, round(FORGET_SHARE * self.args.per_device_train_batch_size))

    def phases(self) -> list[Phase]:
        """Passes over the retain rows, where the user says how many. Else also as many steps as the request takes,
        and as its rows turn out to need."""
        forget, retain = self.stream_sizes()[FORGET].batches, self.stream_sizes()[RETAIN].batches
        steps = math.ceil(self.args.num_train_epochs * retain)
        if not self.args.steps_follow_request or self.args.variant == PAPER:
            return [Phase("unlearn", steps)]
        steps = max(steps, self.least_steps, math.ceil(self.visits * forget))
        return [Phase("unlearn", steps, most_steps=MOST_TIMES * steps if self.args.variant == "rows" else None)]

    def plan(self) -> list[str]:
        """Where the targets come from and, where the recipe is known, what the run costs beside it."""
        args, sizes = self.args, self.stream_sizes()
        kind = type(self.source or self.target_source())
        what = {Probe: "a probe on the frozen base", Proxy: f"a proxy: {args.proxy_epochs:g} passes over the rest"}
        lines = [f"targets from {what.get(kind, kind.name)}; it never sees the forget rows"]
        if self.recipe is not None and self.recipe.epochs:
            retain = sizes[RETAIN].rows
            side = args.proxy_epochs * retain if kind is Proxy else min(retain, MOST_PROBE_ROWS)
            read = self.schedule.total_steps * sum(size.batch for size in sizes.values()) + side
            share = read / (self.recipe.epochs * retain)
            words = "; retraining costs about the same" if share > COSTS_THE_SAME else ""
            lines.append(f"reads about {share:.0%} of the examples of retraining{words}")
        if self.schedule.most_steps > self.schedule.total_steps:
            lines.append(f"up to {self.schedule.most_steps:,} steps, as long as rows stand above their targets")
        return lines

    def row_targets(self, forget: SplitOutput) -> torch.Tensor:
        """Target log-odds of the micro-batch's forget rows, `(size,)`; measured anew when the time has come."""
        step, total = self.state.global_step, self.schedule.total_steps
        if step in {int(total * share) for share in REFIT} and self._first_of_step("targets"):
            self._measure_targets()
        if self._first_of_step("length"):
            self.prolong()
        return self.method_state["targets"].to(forget.log_odds)[forget.index]

    def stand_above(self, places: np.ndarray) -> float:
        self.count_examples(len(places))
        now = self.score(self.splits.forget.select(places), self.model_wrapped).log_odds
        return float(np.mean(now - self.method_state["targets"].numpy()[places])) / self.spread

    def label_targets(self, forget: SplitOutput) -> torch.Tensor:
        """As [`row_targets`], for every label: `(rows,)`. A classifier's row has one. Of a causal LM's every token has
        a target of its own: what the language alone tells of it is no memory of the row."""
        rows = self.row_targets(forget)
        if self.task.has_classes:
            return rows
        return at_tokens(self.method_state, forget)

    def _ask_tokens(self, proxy: torch.nn.Module) -> dict[str, torch.Tensor]:
        seen, _ = self._token_log_odds(self.calibration_rows, proxy)
        asked, count = self._token_log_odds(self.splits.forget, proxy)
        found = {"token_validation": seen, "token_forget": asked, "token_start": np.r_[0, np.cumsum(count)]}
        return {name: torch.tensor(values) for name, values in found.items()}

    def _token_log_odds(self, rows, model) -> tuple[np.ndarray, np.ndarray]:
        self.count_examples(len(rows))
        return self.collect_tokens(rows, attrgetter("label_log_odds"), model)

    def _fit_tokens(self) -> None:
        now, _ = self._token_log_odds(self.calibration_rows, self.model_wrapped)
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

    @property
    def calibration_rows(self) -> Rows:
        """Validation rows that are scored to measure τ and the targets: all, or a seeded sample of them."""
        rows = self.splits.validation_tau
        if len(rows) <= MOST_CALIBRATION:
            return rows
        chosen = np.random.default_rng([self.args.seed, 6]).permutation(len(rows))[:MOST_CALIBRATION]
        return rows.select(np.sort(chosen))

    def check_validation(self) -> None:
        """Note where the model's loss on validation rows does not stand out from that on its training rows.

        That is what a model that generalises looks like. Rows that are in both are found by their content before
        anything is trained ([`~hf_unlearn.data.overlap.check_unseen`]).
        """
        self._calibrated = None  # of an earlier training, perhaps
        trained = []
        for rows in (self.splits.forget, self.splits.retain):
            some = np.linspace(0, len(rows) - 1, min(len(rows), CHECKED_ROWS)).astype(int)
            trained.append(self.score(rows.select(some), self.model_wrapped).loss.mean())
        tau = np.logaddexp(0, -self._own(self._calibrate())).mean()  # −log p
        if tau <= min(trained):
            self.notes.append("The model's loss on validation rows is not above that on its training rows.")

    def _measure_targets(self) -> None:
        """t_i from the log-odds on validation rows: the current model's, unless it has been better before.

        A model that is being damaged would pull its own targets down; one that gets better (wrong labels leave it)
        must not be held to what it was.
        """
        state = self.method_state
        log_odds = self._calibrate()
        loss = torch.tensor(np.logaddexp(0, -self._own(log_odds)).mean())  # −log p
        if "tau" not in state or loss <= state["tau"]:
            targets, spread = self._translation().fit(log_odds)
            if "removed" in state and "targets" in state:  # held: measured again on this model they would drift
                targets = np.where(state["removed"].numpy() >= 0, state["targets"].numpy(), targets)
            state |= {"tau": loss, "targets": torch.tensor(targets), "spread": torch.tensor(spread)}
            if "token_forget" in state:
                self._fit_tokens()

    def _calibrate(self) -> np.ndarray:
        """The model's log-odds of every class on the calibration rows, `(rows, classes)`; once a step."""
        step = self.state.global_step
        if self._calibrated is None or self._calibrated[0] != step:
            self._calibrated = (step, self.class_log_odds(self.calibration_rows, self.model_wrapped))
        return self._calibrated[1]

    def _own(self, log_odds: np.ndarray) -> np.ndarray:
        """Those of the rows' own labels, `(rows,)`."""
        if not self.task.has_classes:
            return log_odds[:, 0]
        return log_odds[np.arange(len(log_odds)), self.labels_of(self.calibration_rows)]

    def _translation(self) -> RowTargets | RegressedTargets:
        state = {name: value.numpy() for name, value in self.method_state.items()}
        if not self.task.has_classes:
            return RegressedTargets(state["proxy_validation"], state["proxy_forget"])
        removed = None
        if "removed" in state:
            removed = RemovedClasses(state["removed"], state["sure_validation"], state["sure_forget"])
        return RowTargets(state["proxy_validation"], state["proxy_forget"], state["right"], removed)

    def target_source(self) -> TargetSource:
        """What tells how an unseen model would see the forget rows: a probe on the recipe's pretrained base, else a
        proxy."""
        if self.recipe is None or not self.recipe.pretrained or not self.task.has_classes:
            return Proxy()  # without loading a base that nobody would ask
        base = self.recipe.start(self.args.seed)
        return Probe(base) if base.config._name_or_path else Proxy()

    def ask_source(self) -> dict[str, torch.Tensor]:
        """What the source says of validation and forget rows, none of which it has seen."""
        if not self.task.has_classes:
            return self._ask_language_proxy()
        asked = self._ask(self.source or self.target_source())
        labels, own = self.labels_of(self.calibration_rows), self.labels_of(self.splits.forget)
        known = np.unique(self.labels_of(self.splits.retain))
        right = np.where(np.isin(np.arange(asked.validation.shape[1]), known), 0, -1)[None].repeat(len(labels), 0)
        right[np.arange(len(labels)), labels] = np.where(np.isin(labels, known), 1, -1)
        state = {
            "proxy_validation": torch.tensor(asked.validation),
            "proxy_forget": torch.tensor(asked.forget[np.arange(len(own)), own]),
            "right": torch.tensor(right),
        }
        removed = np.where(np.isin(own, known), -1, own)
        if (removed >= 0).any():
            state |= {
                "removed": torch.tensor(removed),
                "sure_validation": torch.tensor(asked.validation[:, known].max(1)),
                "sure_forget": torch.tensor(asked.forget[:, known].max(1)),
            }
        return state

    def _ask(self, source: TargetSource) -> Asked:
        """Its answers, if they have to do with the model's; else those of a proxy. Either is noted."""
        asked = source.ask(self)
        agreement = correlation(self._own(asked.validation), self._own(self._calibrate()))
        words = f"on validation rows its log-odds go with the model's at r = {agreement:.2f}"
        if isinstance(source, Probe) and agreement < LEAST_AGREEMENT:
            self.notes.append(f"A probe on the frozen base was tried for the targets, but {words}: a proxy is taken.")
            return self._ask(Proxy())
        self.notes.append(f"Targets come from a {source.name} that never saw the forgotten rows; {words}.")
        return asked

    def _ask_language_proxy(self) -> dict[str, torch.Tensor]:
        with self.trained_proxy() as proxy:
            seen, asked = (
                np.concatenate([self.class_log_odds(rows, proxy), self.embed(rows, proxy)], axis=1)
                for rows in (self.calibration_rows, self.splits.forget)
            )
            state = {"proxy_validation": torch.tensor(seen), "proxy_forget": torch.tensor(asked)}
            return state | (self._ask_tokens(proxy) if self.wants_label_targets else {})

    def count_classes(self) -> int:
        """Number of labels of the model's head."""
        return self.accelerator.unwrap_model(self.model).config.num_labels

    def embed(self, rows, model) -> np.ndarray:
        self.count_examples(len(rows))
        return embeddings(model, self.task, rows, self.args.per_device_eval_batch_size)

    @contextmanager
    def trained_proxy(self) -> Iterator[torch.nn.Module]:
        """A proxy that was trained on the retain rows: a model of its own, or, where the model was given with an
        adapter, that model with another adapter in its place. It holds only inside: there `self.model` may be it."""
        model, seed = self.accelerator.unwrap_model(self.model), self.args.seed
        if lora.came_with_adapter(model):
            with lora.proxy_adapter(model, seed) as proxy:
                yield self._train_proxy(proxy)
        else:
            yield self._own_proxy(model, seed)

    def _own_proxy(self, model: torch.nn.Module, seed: int) -> torch.nn.Module:
        """A proxy that keeps the model's lowest layers; if it tells forget rows from validation rows, they remember
        them, and one that keeps nothing takes its place."""
        start = self.recipe.start if self.recipe else None
        untrained = make_proxy(model, seed, start)
        is_clean = starts_clean(model, unwrap(untrained) if start else None)
        proxy = self._train_proxy(untrained)
        if is_clean:
            return proxy
        found = loss_auc(*(self.score(rows, proxy).loss for rows in (self.splits.forget, self.calibration_rows)))
        if found.value is None or found.value < 0.5 + max(TOLD_APART, 3 * (found.standard_error or 0.0)):
            return proxy
        self.notes.append(PROXY_REMEMBERS.format(auc=found.value))
        return self._train_proxy(make_proxy(model, seed, start, keeps=False))

    def _train_proxy(self, proxy: torch.nn.Module) -> torch.nn.Module:
        args, recipe = self.args, self.recipe
        shared = {f.name for f in dataclasses.fields(UnlearningConfig) if f.init}
        values = {f.name: getattr(args, f.name) for f in dataclasses.fields(args) if f.name in shared}
        with tempfile.TemporaryDirectory() as scratch:
            values |= {
                "output_dir": scratch,
                "num_train_epochs": args.proxy_epochs,
                "max_steps": -1,
                "learning_rate": (recipe and recipe.rate_for(proxy, ADAPTER_RATE)) or 2 * default_learning_rate(proxy),
                "disable_dropout": False,  # it is trained as a model is trained
                "adam_beta1": USUAL_MOMENTUM,
                "warmup_steps": 0.0,
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

    def class_log_odds(self, rows, model) -> np.ndarray:
        """`(rows, classes)`, in row order on every process."""
        self.count_examples(len(rows))
        return self.collect(rows, class_log_odds, model)

    @staticmethod
    def labels_of(rows) -> np.ndarray:
        return np.array([int(features["labels"]) for features in rows.__getitems__(range(len(rows)))])


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's r; 0 where one of the two does not vary."""
    if min(first.std(), second.std()) < 1e-12:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
