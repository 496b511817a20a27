"""The scoring pass for any `Trainer`: curves of forgetting and of what is left of membership while it trains."""

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from hf_unlearn.data.scored_rows import scored_rows
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.evaluation.early_stop import StopAtValidation
from hf_unlearn.evaluation.logged_metrics import DEFAULT, Metric, choose
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.evaluation.scoring import score_splits
from hf_unlearn.tasks.base import Task

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)
STOP_ROWS = "validation_stop"


class UnlearningEvalCallback(TrainerCallback):
    """Logs figures through `trainer.log`, so that they reach the log history and every tracker: by default
    `eval_<split>_accuracy`, `eval_<split>_loss`, `eval_membership_auc` and `eval_membership_auc_se`. Each row runs
    through the model once, whatever the metrics. But for `stop` it changes nothing about the training.

        trainer.add_callback(UnlearningEvalCallback(trainer, splits, task))

    Scores with the trainer's own evaluation where it has one (`eval_strategy`), every `eval_steps` steps where that is
    given, and else after each epoch; without an evaluation of its own also at the end of the training.

    Args:
        trainer (`Trainer`): any; callbacks are not handed the trainer they belong to.
        splits (`UnlearningSplits`): the rows by role.
        task (`Task`): collates rows and reads the model's output.
        splits_to_score: names of roles. Membership needs `forget` and `test`; for class removal unseen rows of the
            removed classes take the place of `test` there, and are scored too.
        metrics: names in `METRICS`, or functions of the scores by split that return numbers by
            name; undefined ones are left out.
        stop (`StopAtValidation`, *optional*): end the training when the forget rows look like the validation rows that
            are meant for stopping. The decision reads these two and nothing else; it logs `eval_stop_difference` and
            `eval_stop_half_width`.
        eval_steps (`int`, *optional*): a schedule of its own, in optimizer steps.
        batch_size (`int`, *optional*): default: the trainer's `per_device_eval_batch_size`.
    """

    def __init__(
        self,
        trainer: "Trainer",
        splits: UnlearningSplits,
        task: Task,
        splits_to_score: Sequence[str] = ("forget", "retain", "test"),
        *,
        metrics: Sequence[str | Metric] = DEFAULT,
        stop: StopAtValidation | None = None,
        eval_steps: int | None = None,
        batch_size: int | None = None,
    ):
        self.trainer = trainer
        self.splits = splits
        self.task = task
        self.names = list(dict.fromkeys(splits_to_score))
        if "forget" in self.names and splits.unseen_forgotten is not None:
            self.names.append("nonmembers")
        self.metrics = choose(metrics)
        self.stop = stop
        self.eval_steps = eval_steps
        self.batch_size = batch_size
        self._last_step: int | None = None
        self._warned = False

    def on_step_end(self, args, state, control, **kwargs):
        if self.eval_steps is not None and state.global_step % self.eval_steps == 0:
            self._score(args, state, control)

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.eval_steps is None and args.eval_strategy == IntervalStrategy.NO:
            self._score(args, state, control)

    def on_evaluate(self, args, state, control, **kwargs):
        if self.eval_steps is None:
            self._score(args, state, control)

    def on_train_end(self, args, state, control, **kwargs):
        has_own_schedule = self.eval_steps is not None or args.eval_strategy == IntervalStrategy.NO
        if has_own_schedule and self._last_step != state.global_step:
            self._score(args, state, control)

    def _score(self, args, state, control) -> None:
        scores = score_splits(
            self.trainer.model_wrapped,
            self.task,
            scored_rows(self.splits, args.seed, every=getattr(args, "score_all", False)),
            self.names if self.stop is None else dict.fromkeys([*self.names, "forget", STOP_ROWS]),
            batch_size=self.batch_size or args.per_device_eval_batch_size,
            device=args.device,
            num_workers=args.dataloader_num_workers,
            autocast=self.trainer.compute_loss_context_manager,
        )
        self._last_step = state.global_step
        asked_for = {name: scores[name] for name in self.names}
        logs: dict[str, float | None] = {}
        for metric in self.metrics:
            logs |= metric(asked_for)
        if self.stop is not None:
            logs |= self._stop_or_go_on(self.stop, scores["forget"], scores[STOP_ROWS], control)
        # `trainer.log` clears this flag, and with it the trainer would skip its own log of the same step.
        should_log = control.should_log
        self.trainer.log({f"eval_{name}": value for name, value in logs.items() if _is_number(value)})
        control.should_log = should_log

    def _stop_or_go_on(
        self, rule: StopAtValidation, forget: SplitScores, validation: SplitScores, control
    ) -> dict[str, float]:
        """The same on all processes, because each has the arrays of all rows."""
        reached = rule.look(forget, validation)
        if reached.stop:
            control.should_training_stop = True
        elif reached.half_width > rule.tolerance and not self._warned:
            self._warned = True
            logger.warning(
                "early stopping: %d forget and %d validation rows tell the difference to ± %.3g, and the tolerance "
                "is %.3g: it will hardly stop; allow more, or give more rows",
                len(forget),
                len(validation),
                reached.half_width,
                rule.tolerance,
            )
        return {"stop_difference": reached.difference, "stop_half_width": reached.half_width}


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
