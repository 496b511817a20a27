"""Counts passes over the retain rows as epochs, where Trainer sees one long epoch."""

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
