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


class Prolonging(Measuring):
    """Gives a trainer [`prolong`], to be called once in a step, before its rows are pulled."""

    def stand_above(self, places: np.ndarray) -> float:
        """How far these forget rows stand above their targets on average, in spreads of validation rows."""
        raise NotImplementedError

    def prolong(self) -> None:
        """At three quarters of the run, if the rows stand well above their targets: lengthen it, while it may be.

        The rate of the steps to come is that of a run which was planned so long.
        """
        schedule, step = self.schedule, self.state.global_step
        may_be = schedule.most_steps > schedule.planned_steps
        if not may_be or step != int(LOOK_AT * schedule.total_steps):
            return
        places = random_numbers(self.args.seed, Stream.PROLONGING_ROWS).permutation(len(self.splits.forget))[
            :MOST_ROWS
        ]
        above = self.stand_above(np.sort(places))
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
        return output

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
