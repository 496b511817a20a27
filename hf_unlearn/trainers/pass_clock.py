"""Counts passes over the retain rows as epochs, where Trainer sees one long epoch; and tells where phases end."""

from collections.abc import Callable

from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy


class PassClock(TrainerCallback):
    """Shows passes as `epoch` in the logs, and logs, evaluates and saves at their ends where a strategy says "epoch".

    Args:
        passes (`Callable[[int], float]`): passes completed after so many steps.
    """

    def __init__(self, passes: Callable[[int], float]):
        self.passes = passes

    def on_step_end(self, args, state, control, **kwargs):
        state.epoch = self.passes(state.global_step)
        ended = int(state.epoch) > int(self.passes(state.global_step - 1))
        if ended and state.global_step < state.max_steps:  # Trainer itself attends to the end of the last one
            control.should_log |= args.logging_strategy == IntervalStrategy.EPOCH
            control.should_evaluate |= args.eval_strategy == IntervalStrategy.EPOCH
            control.should_save |= args.save_strategy == SaveStrategy.EPOCH
        return control


class PhaseEnds(TrainerCallback):
    """Evaluates at the middle and at the end of every phase, for a picture of a run whose phases do different things.

    Args:
        steps (`list[int]`): of each phase, in order.
    """

    def __init__(self, steps: list[int]):
        self.at, start = set(), 0
        for length in steps:
            self.at |= {start + length // 2, start + length}
            start += length

    def on_step_end(self, args, state, control, **kwargs):
        control.should_evaluate |= state.global_step in self.at
        return control
