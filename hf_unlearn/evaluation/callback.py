"""The scoring pass for any `Trainer`: curves of forgetting and of what is left of membership while it trains."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.evaluation.metrics import evaluation_metrics
from hf_unlearn.evaluation.scoring import score_splits
from hf_unlearn.tasks.base import Task

if TYPE_CHECKING:
    from transformers import Trainer


class UnlearningEvalCallback(TrainerCallback):
    """Logs `eval_<split>_accuracy`, `eval_<split>_loss`, `eval_membership_auc` and `eval_membership_auc_se` through
    `trainer.log`, so that they reach the log history and every tracker. It changes nothing about the training.

        trainer.add_callback(UnlearningEvalCallback(trainer, splits, task))

    Scores with the trainer's own evaluation where it has one (`eval_strategy`), every `eval_steps` steps where that is
    given, and else after each epoch; without an evaluation of its own also at the end of the training.

    Args:
        trainer (`Trainer`): any; callbacks are not handed the trainer they belong to.
        splits (`UnlearningSplits`): the rows by role.
        task (`Task`): collates rows and reads the model's output.
        splits_to_score: names of roles. Membership needs `forget` and `test`; for class removal unseen rows of the
            removed classes take the place of `test` there, and are scored too.
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
        eval_steps: int | None = None,
        batch_size: int | None = None,
    ):
        self.trainer = trainer
        self.splits = splits
        self.task = task
        self.names = list(dict.fromkeys(splits_to_score))
        if "forget" in self.names and splits.unseen_forgotten is not None:
            self.names.append("nonmembers")
        self.eval_steps = eval_steps
        self.batch_size = batch_size
        self._last_step: int | None = None

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
            self.splits,
            self.names,
            batch_size=self.batch_size or args.per_device_eval_batch_size,
            device=args.device,
            num_workers=args.dataloader_num_workers,
            autocast=self.trainer.compute_loss_context_manager,
        )
        self._last_step = state.global_step
        # `trainer.log` clears this flag, and with it the trainer would skip its own log of the same step.
        should_log = control.should_log
        self.trainer.log({f"eval_{name}": value for name, value in evaluation_metrics(scores).items()})
        control.should_log = should_log
