"""What methods share that hold every forget row to a target of its own: the targets and the budget."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.tasks.base import Task
from hf_unlearn.trainers.calibrating import Calibrating
from hf_unlearn.trainers.config import KnownRecipe, default_learning_rate, filled_later
from hf_unlearn.trainers.holding import SHARE, Holding
from hf_unlearn.trainers.prolonging import MOST_ROWS, MOST_TIMES, Prolonging
from hf_unlearn.trainers.proxy_source import ADAPTER_RATE, NO_BASE, USUAL_MOMENTUM, Proxy
from hf_unlearn.trainers.published import PAPER, PublishedConfig, PublishedTrainer
from hf_unlearn.trainers.restoring import Restoring, is_worse
from hf_unlearn.trainers.row_targets import RegressedTargets, RowTargets, Unmet
from hf_unlearn.trainers.schedule import FORGET, RETAIN, Phase
from hf_unlearn.trainers.split_output import SplitOutput, on_host
from hf_unlearn.trainers.target_sources import MOST_PROBE_ROWS, Asked, Blend, Probe, Said, TargetSource
from hf_unlearn.trainers.token_targets import at_tokens, fit_tokens

CHECKED_ROWS = 128  # forget and retain rows whose loss is compared with that of validation rows
REFIT = (0, 1 / 4, 1 / 2, 3 / 4, 7 / 8)  # when the targets are measured, as shares of the run
LEAST_STEPS = 40  # however few the rows: a model that is moved in fewer, larger steps is damaged
FEW_STEPS = 160  # cheap, whatever they are compared with
VISITS = 3.0  # of each forget row, at least
SLACK = 0.2  # spreads that a row may fall below its target before it is led back
FORGET_SHARE = 0.5  # forget rows beside each retain row of a step
BUDGET = {"proxy_epochs": (0.1, 6.0), "num_train_epochs": (1 / 15, 4.0)}  # share of the epochs of retraining, most
RATE = 0.7  # of the recipe's peak learning rate, as far as the width of the model tells it where it is not known
HASTE = 2.0  # times the recipe's rate, for a proxy that is trained a fraction as long
ENOUGH_PROXY_STEPS = 80  # from which a probe has nothing to add
PROXY_STEPS, PROXY_SHARE = 160, 0.25  # of a proxy from a pretrained base; but at most this share of the recipe
UNKNOWN_EPOCHS = 10.0  # assumed for retraining where the recipe is not known


@dataclass
class RowTargetConfig(PublishedConfig):
    """Arguments of the methods with a target per row. None of them has to be tuned.

    Args:
        retrain_epochs: epochs that retraining would take; sets the next two. `None`: the recipe's, or 10.
        proxy_epochs: passes over the retain rows that train the proxy; `None` is 1/10 of `retrain_epochs`, at most 6,
            and from a pretrained base 160 steps, but no more than a quarter of `retrain_epochs`.
        num_train_epochs: passes over the retain rows; `None` is 1/15 of `retrain_epochs`, at most 4, and where the
            recipe starts from a pretrained base no more than 40 steps; never fewer than 40 steps and three visits of
            each forget row, and more while rows stand above their targets.
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


class RowTargetTrainer(Holding, Restoring, Prolonging, Calibrating, PublishedTrainer):
    """Gives a method [`row_targets`]: the log-odds that a model which never saw the row would give its label.

    A source that never saw the forget rows says how hard each is ([`TargetSource`]), and validation rows translate
    ([`RowTargets`]). The targets are measured five times, with the current model unless validation rows say that
    it is worse than before, and the run goes on while the rows stand above them, where the method prolongs. A run
    that ends with a damaged model is set back ([`Restoring`]).

    Example:

        class Squares(RowTargetTrainer):
            method = "squares"

            def prepare(self):
                return self.ask_source()

            def unlearning_loss(self, forget, retain):
                away = forget.log_odds - self.row_targets(forget)
                return forget.mean(away.square()) + self.hold(retain)

        Squares(model, RowTargetConfig(output_dir="unlearned"), splits, task).train()
    """

    config_class = RowTargetConfig
    args: RowTargetConfig
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
        for name, passes in self._usual_passes(args, splits, _starts_pretrained(recipe)).items():
            if getattr(args, name) is None:
                setattr(args, name, passes)
        if args.learning_rate is None:
            known = recipe and recipe.rate_for(model, ADAPTER_RATE)
            args.learning_rate = RATE * (known or 2 * default_learning_rate(model))
        super().__init__(model, args, splits, task, recipe=recipe, **kwargs)

    @staticmethod
    def _usual_passes(args: RowTargetConfig, splits: UnlearningSplits, pretrained: bool) -> dict[str, float]:
        """Passes over the retain rows, of the run and of the proxy: shares of the recipe's. A base that was trained
        before needs as many steps whatever is kept."""
        epochs = args.retrain_epochs
        passes = {name: min(most, share * epochs) for name, (share, most) in BUDGET.items()}
        if pretrained and args.variant in (None, "rows", "tokens"):
            step = (
                args.train_batch_size * args.gradient_accumulation_steps * args.world_size / max(1, len(splits.retain))
            )
            passes["num_train_epochs"] = min(LEAST_STEPS * step, passes["num_train_epochs"])
            passes["proxy_epochs"] = min(PROXY_STEPS * step, PROXY_SHARE * epochs)
        return passes

    def default_forget_batch(self) -> int:
        """Per process and micro-batch: half of the retain rows."""
        return max(1, round(FORGET_SHARE * self.args.per_device_train_batch_size))

    def phases(self) -> list[Phase]:
        """Passes over the retain rows, where the user says how many. Else also as many steps as the request takes,
        and as its rows turn out to need."""
        steps = math.ceil(self.args.num_train_epochs * self.stream_sizes()[RETAIN].batches)
        if not self.args.steps_follow_request or self.args.variant == PAPER:
            return [Phase("unlearn", steps)]
        steps = max(steps, self._fewest_steps())
        return [Phase("unlearn", steps, most_steps=self._most_steps(steps) if self.args.variant == "rows" else None)]

    def _fewest_steps(self) -> int:
        """What the request takes, however short the recipe."""
        return max(self.least_steps, math.ceil(self.visits * self.stream_sizes()[FORGET].batches))

    def _most_steps(self, steps: int) -> int:
        """What `steps` may be prolonged to: where the recipe is known, not beyond the examples of retraining, unless
        those are few anyway."""
        most, sizes = MOST_TIMES * steps, self.stream_sizes()
        if self.recipe is not None and self.recipe.epochs:
            retraining = self.recipe.epochs * sizes[RETAIN].rows / sum(size.batch for size in sizes.values())
            most = min(most, max(FEW_STEPS, int(retraining)))
        return max(steps, most)

    def plan(self) -> list[str]:
        """Where the targets come from, and how far the run may be prolonged."""
        args = self.args
        passes = f"{args.proxy_epochs:.2g} {'pass' if args.proxy_epochs == 1 else 'passes'}"
        proxy, name = f"a proxy: {passes} over the rest", self.source_name
        words = {"proxy": proxy, "probe": "a probe on the frozen base", "probe and a proxy": f"a probe and {proxy}"}
        lines = [f"targets from {words.get(name, name)}; nothing of it sees the forget rows"]
        if self.recipe is None and name == Proxy.name:
            lines.append(NO_BASE)
        if (rows := len(self.calibration_rows)) > len(self.splits.validation_tau):
            lines.append(f"all {rows} validation rows measure targets, those for when to stop too: there are few")
        if self.schedule.most_steps > self.schedule.total_steps:
            lines.append(f"up to {self.schedule.most_steps:,} steps, as long as rows stand above their targets")
        if self.rows_of_refits() and self.keeps_states:
            megabytes = f"{self.kept_bytes() / 2**20:,.0f} MB"
            lines.append(f"a copy of what is trained is kept ({megabytes}), to go back to where a run does damage")
        return lines

    def rows_beside_steps(self) -> int:
        return super().rows_beside_steps() + self.rows_of_targets()

    def rows_of_targets(self) -> int:
        """Those of the check, of the source of the targets, of their refits, of one look whether to prolong, and the
        retain rows that are held."""
        return self.rows_of_check() + self.rows_of_source() + self.rows_of_refits() + self.rows_of_retain()

    def rows_of_check(self) -> int:
        """What [`check_validation`] reads."""
        some = (min(len(rows), CHECKED_ROWS) for rows in (self.splits.forget, self.splits.retain))
        return sum(some) + len(self.calibration_rows)

    def rows_of_source(self) -> int:
        """What trains the source of the targets, and what it is asked for."""
        retain, name = self.stream_sizes()[RETAIN], self.source_name
        asked = len(self.calibration_rows) + len(self.splits.forget)
        read = {
            Probe.name: min(retain.rows, MOST_PROBE_ROWS),
            Proxy.name: math.ceil((self.args.proxy_epochs or 0) * retain.batches) * retain.batch,
        }
        return sum(rows + asked for source, rows in read.items() if source in name) or asked

    def rows_of_refits(self) -> int:
        """What measures the targets anew, looks once how far the rows still stand above them, and at the end whether
        the model is damaged."""
        schedule = self.schedule
        # The check serves the first, and none is left where no step reads forget rows any more.
        refits = len(self.refits() - {0, schedule.stream_steps(schedule.total_steps, FORGET)})
        looks = min(len(self.splits.forget), MOST_ROWS) if schedule.most_steps > schedule.total_steps else 0
        return (refits + 1) * len(self.calibration_rows) + looks

    def refits(self) -> set[int]:
        """At which of the steps that read forget rows the targets are measured: the first from each share of the run
        on."""
        return {self.schedule.stream_steps(int(self.schedule.total_steps * share), FORGET) for share in REFIT}

    @cached_property
    def source_name(self) -> str:
        """Of the source that will be asked; finding out may load the recipe's base."""
        return (self.source or self.target_source()).name

    def row_targets(self, forget: SplitOutput) -> torch.Tensor:
        """Target log-odds of the micro-batch's forget rows, `(size,)`; measured anew when the time has come."""
        step, total = self.state.global_step, self.schedule.total_steps
        if self.schedule.stream_steps(step, FORGET) in self.refits() and self._first_of_step("targets"):
            self._measure_targets()
            self.note_state()
        if self._first_of_step("length"):
            self.prolong()
            if self.schedule.total_steps > total:
                self.measure_retain(total, self.schedule.total_steps)
        return forget.own(self.method_state["targets"], forget.log_odds)

    def slack(self, forget: SplitOutput) -> torch.Tensor:
        """How far below its target each of the micro-batch's rows is left alone, in spreads, `(size,)` or a scalar.

        A row that is held to its target to the nat is learned again. Those of a removed class are held: where they
        stand, far below all others, there is nothing to learn.
        """
        removed = self.method_state.get("removed")
        if removed is None:
            return torch.tensor(SLACK)
        return forget.own(torch.where(removed < 0, SLACK, 0.0), forget.log_odds)

    def cut_by(self) -> str | None:
        fewest, total = self._fewest_steps(), self.schedule.total_steps
        goes_on = self.args.variant == "rows" and self._most_steps(fewest) > fewest  # as long as rows stand above
        if "targets" not in self.method_state or (total >= fewest and not goes_on):
            return None
        if self.args.max_steps > 0:
            return "max_steps"
        return None if self.args.steps_follow_request else "num_train_epochs"

    def nats_above(self, places: np.ndarray) -> np.ndarray:
        now = self._score(self.splits.forget.select(places), self.model_wrapped).log_odds
        return now - self.method_state["targets"].numpy()[places]

    def label_targets(self, forget: SplitOutput) -> torch.Tensor:
        """As [`row_targets`], for every label: `(rows,)`. A classifier's row has one. Of a causal LM's every token has
        a target of its own: what the language alone tells of it is no memory of the row."""
        rows = self.row_targets(forget)
        if self.task.chooses_class():
            return rows
        return at_tokens(self.method_state, forget)

    def _fit_tokens(self) -> None:
        seen, asked = (self.method_state[f"token_{name}"].numpy() for name in ("validation", "forget"))
        targets, spread = fit_tokens(self.calibrate().by_token.values, seen, asked)
        self.method_state |= {"token_targets": torch.tensor(targets), "token_spread": torch.tensor(spread)}

    @property
    def spread(self) -> float:
        return on_host(self.method_state["spread"])

    @property
    def label_spread(self) -> float:
        """The same for labels: for causal LMs of the tokens of validation rows."""
        return on_host(self.method_state.get("token_spread", self.method_state["spread"]))

    @property
    def proxy_epochs(self) -> float:
        return self.args.proxy_epochs

    def check_validation(self) -> None:
        """Note where the model's loss on validation rows does not stand out from that on its training rows, and settle
        how far the rest is held.

        That is what a model that generalises looks like. Rows that are in both are found by their content before
        anything is trained ([`~hf_unlearn.data.overlap.check_unseen`]).
        """
        self.calibrate_anew()
        trained = []
        for rows in (self.splits.forget, self.splits.retain):
            some = np.linspace(0, len(rows) - 1, min(len(rows), CHECKED_ROWS)).astype(int)
            trained.append(self.score(rows.select(some), self.model_wrapped).loss.mean())
        tau = self._losses(self.calibrate()).mean()
        self.settle_hold(trained[1], tau)
        if tau <= min(trained):
            self.notes.append("The model's loss on validation rows is not above that on its training rows.")

    def _measure_targets(self) -> None:
        """t_i from the log-odds on validation rows: the current model's, unless it has been better before.

        A model that is being damaged would pull its own targets down; one that gets better (wrong labels leave it)
        must not be held to what it was, nor one that drifts, for unseen rows drift with it.
        """
        state = self.method_state
        said = self.calibrate()
        losses = self._losses(said)
        best = state["tau_rows"].numpy() if "tau_rows" in state else None
        if best is None or losses.mean() < best.mean():
            state["tau_rows"] = torch.tensor(losses)
        if best is None or not is_worse(losses, best):
            targets, spread = self._translation().fit(said.log_odds)
            if "removed" in state and "targets" in state:  # held: measured again on this model they would drift
                targets = np.where(state["removed"].numpy() >= 0, state["targets"].numpy(), targets)
            state |= {"targets": torch.tensor(targets), "spread": torch.tensor(spread)}
            if "token_forget" in state:
                self._fit_tokens()

    def _losses(self, said: Said) -> np.ndarray:
        """−log p of the calibration rows, `(rows,)`."""
        return np.logaddexp(0, -self.own_log_odds(said, self.calibration_rows))

    def look_at_validation(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the calibration rows; right is the likeliest class, all labels of a set, and of a causal LM's tokens the
        share that is likelier than not."""
        said = self.calibrate()
        if self.task.chooses_class():
            return self._losses(said), self.own_log_odds(said, self.calibration_rows) >= said.log_odds.max(1)
        tokens = np.split(said.by_token.values > 0, said.by_token.start[1:-1])
        return self._losses(said), np.array([each.mean() if self.task.generates else each.all() for each in tokens])

    def _translation(self) -> RowTargets | RegressedTargets:
        kind = RowTargets if self.task.chooses_class() else RegressedTargets
        return kind.from_tensors(self.method_state)

    def target_source(self) -> TargetSource:
        """What tells how an unseen model would see the forget rows: a proxy, and beside one that is short, where rows
        have classes, a probe on the recipe's pretrained base."""
        if self.recipe is None or not _starts_pretrained(self.recipe):
            return Proxy()
        if not self.task.chooses_class():
            return Proxy(haste=HASTE)  # without loading a base that nobody would ask
        base = self.recipe.start(self.args.seed)
        if not base.config._name_or_path:
            return Proxy()
        proxy = Proxy(haste=HASTE)
        steps = self.args.proxy_epochs * self.stream_sizes()[RETAIN].batches
        single = len(self.kept_classes) < 2  # nothing to tell apart for a probe
        return Blend(proxy) if single or steps >= ENOUGH_PROXY_STEPS else Blend(Probe(base), proxy)

    def ask_source(self) -> dict[str, torch.Tensor]:
        """What the source says of validation and forget rows, none of which it has seen."""
        if SHARE not in self.method_state:
            self.check_validation()
        self.measure_retain(0, self.schedule.total_steps)
        asked = self.ask()
        if not self.task.chooses_class():
            return self._language_state(asked)
        labels, own = (self.labels_of(rows) for rows in (self.calibration_rows, self.splits.forget))
        seen, said = asked.validation.log_odds, asked.forget.log_odds
        unmet = None
        if asked.trained is not None:
            unmet = Unmet(self.own_log_odds(asked.trained, self.splits.forget), asked.ends)
        return RowTargets.from_answers(
            seen, said, labels, own, self.kept_classes, steadies=asked.steadies, unmet=unmet
        ).to_tensors()

    def _language_state(self, asked: Asked) -> dict[str, torch.Tensor]:
        seen, said = (np.c_[each.log_odds, each.places] for each in (asked.validation, asked.forget))
        state = RegressedTargets(seen, said).to_tensors()
        if self.wants_label_targets:
            tokens = asked.forget.by_token
            found = {"validation": asked.validation.by_token.values, "forget": tokens.values, "start": tokens.start}
            state |= {f"token_{name}": torch.tensor(values) for name, values in found.items()}
        return state


def _starts_pretrained(recipe: KnownRecipe | None) -> bool:
    """Whether the recipe is known to start from a base that was trained before."""
    return recipe is not None and recipe.pretrained
