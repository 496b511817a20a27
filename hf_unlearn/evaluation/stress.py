"""Does what was forgotten come back? Each model is disturbed in the same way, and measured.

A model that only hides what it knew gives it back sooner than a retrained twin learns it, so every figure stands
beside that of the twins. Models are fine-tuned first and quantized then: that is what can be done with saved weights,
and what is published.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from hf_unlearn.data.rows import Rows
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.evaluation.disturbing_rows import (
    FEW,
    FEW_ROWS,
    KEPT,
    RELATED_ROWS,
    UNTOUCHED,
    DisturbingRows,
    choose_rows,
    paraphrased_rows,
)
from hf_unlearn.evaluation.durability import cell, step_curve
from hf_unlearn.evaluation.metrics import loss_auc
from hf_unlearn.evaluation.protocols import PROTOCOLS, Protocol
from hf_unlearn.evaluation.relearn import fine_tuned_copy, trainable_copy
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.models.quantized import WHAT, round_to_int8, round_to_nf4, share_rounded
from hf_unlearn.progress import say
from hf_unlearn.report.blocks import Stress
from hf_unlearn.report.stress_blocks import Disturbance, Tuning
from hf_unlearn.tasks.base import Task

Models = Mapping[str, nn.Module | None]
Figures = dict[str, float | None]
MARGIN = 0.02  # of the original's accuracy on validation rows that benign fine-tuning may cost
MOST_HALVINGS = 12
ROUNDED: dict[str, Callable[[nn.Module], None] | None] = {
    "as_saved": None,
    "int8": round_to_int8,
    "nf4": round_to_nf4,
}
MOST_WEIGHTS = 0.5  # of which less is rounded, what quantization brings back is hardly tried
BARELY_ROUNDED = "What {} weights bring back: {:.0f} % of this model's are rounded, the others are in no linear layer."
NO_SURVIVAL = "A rate that the original survives: at the lowest one that was tried it lost more than the margin."


def stress(
    models: Models,
    task: Task,
    splits: UnlearningSplits,
    *,
    learning_rate: float,
    protocol: Protocol = PROTOCOLS["ours"],
    seed: int = 0,
    batch_size: int = 64,
) -> Stress:
    """The evidence block `stress`. JSON types only. The models, their modes and global generators are not changed.

    Args:
        models: `original` (may be `None` or missing), `unlearned`, and any others as twins.
        learning_rate: of the recipe, where the protocol has none of its own: it is halved until the original,
            fine-tuned on kept rows, loses no more than two points of its accuracy on validation rows.
        protocol: how models are fine-tuned.
        seed: draws the rows and their order.
        batch_size: of scoring.
    """
    present = {name: model for name, model in models.items() if model is not None}
    first = next(iter(present))
    test = StressTest(
        (first, present[first]),
        task,
        splits,
        learning_rate=learning_rate,
        protocol=protocol,
        seed=seed,
        batch_size=batch_size,
    )
    measured = {
        name: test.measure(model, f"{name} ({k} of {len(present)})")
        for k, (name, model) in enumerate(present.items(), 1)
    }
    return test.block(measured)


@dataclass
class Measured:
    """One model's figures: by weights and rows, over the steps, and for questions as they are and in other words."""

    cells: dict[str, dict[str, Figures]]
    looks: list[Figures]
    reworded: tuple[Figures, Figures] | None


class StressTest:
    """The disturbances, settled on a first model, so that others can be measured one by one: see [`stress`].

    Args:
        first: name and model that the rate is settled on, and whose embeddings choose the rows.
        task, splits, learning_rate, protocol, seed, batch_size: as for [`stress`].
    """

    def __init__(
        self,
        first: tuple[str, nn.Module],
        task: Task,
        splits: UnlearningSplits,
        *,
        learning_rate: float,
        protocol: Protocol,
        seed: int,
        batch_size: int,
    ):
        name, model = first
        most = protocol.steps * protocol.batch_size
        self.rows = choose_rows(model, task, splits, most=most, seed=seed, batch_size=batch_size)
        self.run = _Run(task, self.rows, protocol, seed, batch_size)
        say("stress: trying the rate")
        self.tuning = self.run.settle_rate(name, model, learning_rate)
        self.reworded = paraphrased_rows(task, self.rows.measured)
        shares = {weights: share_rounded(model, weights) for weights in WHAT}
        self.barely = [BARELY_ROUNDED.format(w, 100 * s) for w, s in shares.items() if s < MOST_WEIGHTS]

    def measure(self, model: nn.Module, title: str) -> Measured:
        """One model under every disturbance; it is not changed. `title` names it on the screen."""
        say(f"stress: {title}, {_words(self.tuning, len(self.rows.tuned_on))}")
        looks: list[Figures] = []
        cells: dict[str, dict[str, Figures]] = {weights: {} for weights in ROUNDED}
        for weights, kind, figures in self.run.cells(model, self.tuning["learning_rate"], looks):
            cells[weights][kind] = figures
        asked = None if self.reworded is None else self.run.asked_otherwise(model, self.reworded)
        return Measured(cells, looks, asked)

    def block(self, measured: Mapping[str, Measured]) -> Stress:
        """The evidence block from models by name: `original`, `unlearned`, and any others as twins."""
        count, run, one = len(self.rows.measured), self.run, next(iter(measured.values()))
        pairs = {name: each.reworded for name, each in measured.items() if each.reworded is not None}
        return {
            "protocol": self.tuning,
            "rows": self.rows.sizes(),
            "quantized": dict(WHAT),
            "cells": {
                weights: {
                    kind: cell({name: each.cells[weights][kind] for name, each in measured.items()}, count)
                    for kind in kinds
                }
                for weights, kinds in one.cells.items()
            },
            "curve": step_curve(
                run.curve_rows, [0, *run.marks], {name: each.looks for name, each in measured.items()}
            ),
            "paraphrases": {"questions": side_by_side(pairs)} if pairs else {},
            "not_checked": ([] if FEW in self.rows.tuned_on else [FEW_ROWS])
            + ([NO_SURVIVAL] if self.tuning["survives"] is False else [])
            + self.barely,
        }


class _Run:
    """The disturbances of one model after the other."""

    def __init__(self, task: Task, rows: DisturbingRows, protocol: Protocol, seed: int, batch_size: int):
        self.task, self.rows, self.protocol = task, rows, protocol
        self.seed, self.batch_size = seed, batch_size
        self.marks = [mark for mark in protocol.marks if mark < protocol.steps] + [protocol.steps]
        self.curve_rows = FEW if FEW in rows.tuned_on else RELATED_ROWS

    def settle_rate(self, name: str, model: nn.Module, asked: float) -> Tuning:
        """The protocol with its rate: the published one, or `asked`, halved until `model` survives it."""
        fixed = self.protocol.learning_rate
        rate = asked if fixed is None else fixed
        before = self._validation_accuracy(model)
        after = self._tuned_accuracy(model, rate)
        for _ in range(MOST_HALVINGS if fixed is None else 0):
            if before is None or after is None or after >= before - MARGIN:
                break
            rate /= 2
            after = self._tuned_accuracy(model, rate)
        survives = None if before is None or after is None else after >= before - MARGIN
        return {
            "name": self.protocol.name,
            "steps": self.protocol.steps,
            "batch_size": self.protocol.batch_size,
            "learning_rate": rate,
            "asked_learning_rate": asked if fixed is None else fixed,
            "survivor": name if name in ("original", "unlearned") else "twin",
            "margin": MARGIN,
            "before": before,
            "after": after,
            "survives": survives,
        }

    def cells(self, model: nn.Module, rate: float, looks: list[Figures]) -> Iterator[tuple[str, str, Figures]]:
        """Weights, rows and figures of every cell of one model; `looks` gets its figures over the steps."""
        for kind in (UNTOUCHED, *self.rows.tuned_on):
            tuned = trainable_copy(model) if kind == UNTOUCHED else self._tuned(model, kind, rate, looks)
            for weights, round_weights in ROUNDED.items():
                changed = tuned if round_weights is None else copy.deepcopy(tuned)
                if round_weights is not None:
                    round_weights(changed)
                figures = self._figures(changed, self.rows.measured)
                if (weights, kind) == ("as_saved", UNTOUCHED):
                    looks.append(figures)
                yield weights, kind, figures

    def asked_otherwise(self, model: nn.Module, paraphrased: Rows) -> tuple[Figures, Figures]:
        """The measured rows beside the same ones with their questions in other words."""
        return self._figures(model, self.rows.measured), self._figures(model, paraphrased)

    def _tuned(self, model: nn.Module, kind: str, rate: float, looks: list[Figures] | None = None) -> nn.Module:
        def watch(step: int, tuned: nn.Module) -> None:
            if looks is not None and kind == self.curve_rows and step in self.marks:
                looks.append(self._figures(tuned, self.rows.measured))

        return fine_tuned_copy(
            model,
            self.task,
            self.rows.tuned_on[kind],
            steps=self.protocol.steps,
            learning_rate=rate,
            batch_size=self.protocol.batch_size,
            seed=self.seed,
            watch=watch,
        )

    def _tuned_accuracy(self, model: nn.Module, rate: float) -> float | None:
        return self._validation_accuracy(self._tuned(model, KEPT, rate))

    def _validation_accuracy(self, model: nn.Module) -> float | None:
        rows = self.rows.validation
        return _known(self._score(model, rows).accuracy) if len(rows) else None

    def _figures(self, model: nn.Module, forget: Rows) -> Figures:
        own, unseen = self._score(model, forget), self._score(model, self.rows.unseen)
        found: Figures = {
            "forget_accuracy": _known(own.accuracy),
            "forget_loss": _known(own.loss.mean()),
            "membership_auc": loss_auc(own.loss, unseen.loss).value,
            "unseen_accuracy": _known(unseen.accuracy) if len(unseen) else None,
        }
        if self.rows.test is not None:
            found["test_accuracy"] = _known(self._score(model, self.rows.test).accuracy)
        return found

    def _score(self, model: nn.Module, rows: Rows) -> SplitScores:
        return score(model, self.task, rows, batch_size=self.batch_size)


def side_by_side(pairs: Mapping[str, tuple[Figures, Figures]]) -> Disturbance:
    """Figures before and after by `original`, `unlearned` and `twins`, and how far the unlearned model's change goes
    beyond the twins' mean change: `beyond_twins`, with the twins' own `lowest` and `highest` change."""
    twins = [pair for name, pair in pairs.items() if name not in ("original", "unlearned")]
    found: Any = {
        name: None if name not in pairs else {"before": pairs[name][0], "after": pairs[name][1]}
        for name in ("original", "unlearned")
    }
    found["twins"] = found["beyond_twins"] = None
    if not twins:
        return found
    found["twins"] = {when: _means([pair[i] for pair in twins]) for i, when in enumerate(("before", "after"))}
    found["beyond_twins"] = {}
    for key in twins[0][0]:
        changes = [change for pair in twins if (change := _change(pair, key)) is not None]
        own = _change(pairs["unlearned"], key)
        if own is not None and len(changes) == len(twins):
            ends = {"lowest": min(changes), "highest": max(changes)}
            found["beyond_twins"][key] = {"change": own, "beyond": own - float(np.mean(changes)), "twins": ends}
    return found


def _change(pair: tuple[Figures, Figures], key: str) -> float | None:
    before, after = (figures[key] for figures in pair)
    return None if before is None or after is None else after - before


def _means(blocks: list[Figures]) -> Figures:
    columns = {key: [v for block in blocks if (v := block[key]) is not None] for key in blocks[0]}
    return {key: float(np.mean(known)) if len(known) == len(blocks) else None for key, known in columns.items()}


def _known(value: float) -> float | None:
    """A figure, or `None` where it is not finite."""
    return float(value) if math.isfinite(value) else None


def _words(tuning: Tuning, kinds: int) -> str:
    rate = f"{tuning['learning_rate']:.2g}"
    return f"{kinds} fine-tunings of {tuning['steps']} steps at {rate}, each as saved, in 8 and in 4 bits"
