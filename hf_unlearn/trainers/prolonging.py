"""A run that goes on as long as the forget rows stand above their targets: how many steps they take, nobody knows."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from hf_unlearn.trainers.measuring import Measuring
from hf_unlearn.trainers.random_streams import Stream, random_numbers

LOOK_AT = 3 / 4  # of the run: by then the falling rate has covered 15/16 of the way
FACTOR = 1.5  # how much longer the run gets then
MOST_TIMES = 8  # the planned steps
ENOUGH = 0.1  # mean distance above the targets, in spreads; further away an attack on the losses still finds the rows
MOST_ROWS = 1024  # forget rows that are looked at
STEPS, ABOVE = "steps/total", "steps/above"  # how long the run is; how far above the rows stood at the last look
CUT = (
    "After {steps:,} step{s}, as {argument} says, the forgotten rows stand above their targets by {above:.2f} of the "
    "spread of unseen rows on average, {far:,} of {rows:,} by more than the whole of it: they are not forgotten yet. "
    "Leave {argument} out, or raise it."
)


class Prolonging(Measuring):
    """Gives a trainer [`prolong`], to be called once in a step, before its rows are pulled."""

    @property
    def spread(self) -> float:
        """Standard deviation of the log-odds on validation rows, in nats: the unit of distances to the targets."""
        raise NotImplementedError

    def nats_above(self, places: np.ndarray) -> np.ndarray:
        """How far each of these forget rows stands above its target, `(rows,)`; below 0 where it does not."""
        raise NotImplementedError

    def stand_above(self, places: np.ndarray) -> float:
        """How far these forget rows stand above their targets on average, in spreads of validation rows."""
        return float(np.mean(self.nats_above(places))) / self.spread

    def cut_by(self) -> str | None:
        """The argument by which the user made a run with targets shorter than it would have been; `None` where it had
        as many steps as it takes."""
        raise NotImplementedError

    def looked_at(self) -> np.ndarray:
        """Places of the forget rows that are looked at: all, or a seeded sample of them."""
        places = random_numbers(self.args.seed, Stream.PROLONGING_ROWS).permutation(len(self.splits.forget))
        return np.sort(places[:MOST_ROWS])

    def prolong(self) -> None:
        """At three quarters of the run, if the rows stand well above their targets: lengthen it, while it may be.

        The rate of the steps to come is that of a run which was planned so long.
        """
        schedule, step = self.schedule, self.state.global_step
        may_be = schedule.most_steps > schedule.planned_steps
        if not may_be or step != int(LOOK_AT * schedule.total_steps):
            return
        places = self.looked_at()
        self.count_examples(len(places))
        above = self.stand_above(places)
        self.method_state[ABOVE] = torch.tensor(above)
        if above <= ENOUGH or schedule.total_steps >= schedule.most_steps:
            return
        schedule.prolong(int(FACTOR * schedule.total_steps))
        self.method_state[STEPS] = torch.tensor(schedule.total_steps)
        self.state.max_steps = schedule.total_steps
        stretch(self.lr_scheduler, schedule.total_steps)

    def train(self, *args, **kwargs):
        output = super().train(*args, **kwargs)
        planned, total = self.schedule.planned_steps, self.schedule.total_steps
        if STEPS in self.method_state:
            words = f"The forgotten rows still stood above their targets after {LOOK_AT:.0%} of {planned:,} steps"
            self.notes.append(f"{words}: the run was prolonged to {total:,}.")
        above = float(self.method_state.get(ABOVE, 0.0))
        if above > ENOUGH:
            words = f"Near the end of {total:,} steps the forgotten rows still stood above their targets"
            self.notes.append(f"{words} by {above:.1f} of the spread of unseen rows: they are not quite forgotten.")
        if argument := self.cut_by():
            self._note_cut(argument)
        return output

    def _note_cut(self, argument: str) -> None:
        """Of each row, as a mean hides few that stand far above behind many that are a little below."""
        spreads = self.nats_above(self.looked_at()) / self.spread
        above = float(spreads.clip(min=0).mean())
        if above > ENOUGH:
            steps = self.schedule.total_steps
            counts = {"steps": steps, "s": "s" * (steps != 1), "far": int((spreads > 1).sum()), "rows": len(spreads)}
            self.notes.append(CUT.format(argument=argument, above=above, **counts))

    # How long the run is, from the first step on and after a resume.

    def set_initial_training_values(self, args, dataloader):
        self.schedule.prolong(int(self.method_state.get(STEPS, self.schedule.planned_steps)))
        return super().set_initial_training_values(args, dataloader)

    def _init_training_state(self, max_steps, num_update_steps_per_epoch, num_train_epochs, *args, **kwargs):
        sizes = (max_steps, num_update_steps_per_epoch, num_train_epochs)
        trained = super()._init_training_state(*sizes, *args, **kwargs)
        # A checkpoint of a run that is over: Trainer would take one more of the steps that it might have had.
        return (num_train_epochs, 0) if self.state.global_step >= max_steps else trained

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        created = self.lr_scheduler is None
        scheduler = super().create_scheduler(self.schedule.planned_steps, optimizer)
        if created:
            stretch(scheduler, num_training_steps)
        return scheduler


def stretch(scheduler: Any, steps: int) -> None:
    """Let a rate that falls over the run fall over `steps` steps; its warm-up, and rates of another kind, stay."""
    if isinstance(scheduler, LambdaLR):
        scheduler.lr_lambdas = [_over(rate, steps) for rate in scheduler.lr_lambdas]


def _over(rate: Any, steps: int) -> Any:
    if not isinstance(rate, partial) or "num_training_steps" not in rate.keywords:
        return rate
    return partial(rate.func, *rate.args, **{**rate.keywords, "num_training_steps": steps})
