"""The trainer that all methods share: joint batches in, a scalar from `unlearning_loss` out, the rest is Trainer's."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed

from hf_unlearn.data.rows import AnyRows
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.errors import NonFiniteLossError, UserError
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.models import lora
from hf_unlearn.models.given_adapter import check_active
from hf_unlearn.models.weights import KEPT_NARROW, trains_narrow
from hf_unlearn.saliency.shards import is_spread, whole
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import eval_mode, rows_of
from hf_unlearn.trainers.checkpoints import Checkpoints
from hf_unlearn.trainers.config import KnownRecipe, UnlearningConfig, default_learning_rate
from hf_unlearn.trainers.engines import Engines
from hf_unlearn.trainers.from_datasets import FromDatasets
from hf_unlearn.trainers.joint_batch import JointCollator, JointDataset
from hf_unlearn.trainers.lens import GradientLens
from hf_unlearn.trainers.loading import Loading
from hf_unlearn.trainers.measuring import Measuring
from hf_unlearn.trainers.modes import has_batch_norm, leave_autocast, set_training_mode
from hf_unlearn.trainers.originals import Pass
from hf_unlearn.trainers.own_arguments import OwnArguments
from hf_unlearn.trainers.pass_clock import PassClock
from hf_unlearn.trainers.pushing import Pushing
from hf_unlearn.trainers.saliency_lens import SaliencyLens
from hf_unlearn.trainers.schedule import FORGET, RETAIN, Phase, Schedule
from hf_unlearn.trainers.split_output import SplitOutput
from hf_unlearn.trainers.step_means import StepMeans
from hf_unlearn.trainers.streams import Streams

LEFT_OUT = "max_steps is {}, so the run ends before its phase {}: the method is not done as a whole."


class UnlearningTrainer(
    Streams, Checkpoints, StepMeans, Measuring, Engines, Loading, Pushing, FromDatasets, metaclass=OwnArguments
):
    """A `transformers.Trainer` over joint batches of forget and retain rows.

    A method implements [`unlearning_loss`], may override [`phases`] (what is trained when) and [`prepare`] (what it
    measures before the first step), and may ask for what [`Originals`] lists. DDP, FSDP, ZeRO, accumulation,
    precision, adapters, checkpoints and logging are Trainer's own.

    Args:
        model: the original model, full or a `PeftModel`; changed in place.
        args (`UnlearningConfig`): of the method; the trainer fills in what they leave open in a copy, its `args`.
        splits (`UnlearningSplits`): the roles. Training reads forget, retain and validation; test only reports.
        task (`Task`): what kind of rows these are.
        callbacks: as in Trainer.
        quiet (`bool`): no progress bar and no printed logs; for the short trainings a method runs on the side.
        recipe (`KnownRecipe`): how the original was made, where that is known.

    Raises:
        `UserError`: several GPUs without a launcher, or a task that the method does not serve.
        `NonFiniteLossError`: from [`train`], on every process, before a broken update is made; a checkpoint of the
            last good step is written first, but not under DeepSpeed.

    Example:

        class NegGrad(UnlearningTrainer):
            method = "neg_grad"

            def unlearning_loss(self, forget, retain):
                return retain.mean(retain.loss) - 0.1 * forget.mean(forget.loss)

        NegGrad(model, UnlearningConfig(output_dir="unlearned"), splits, task).train()
    """

    config_class: ClassVar[type[UnlearningConfig]] = UnlearningConfig
    lenses: ClassVar[tuple[type[GradientLens], ...]] = (SaliencyLens,)
    loss_is_scaled_for_ga = False  # ours are per-micro-batch shares; Trainer divides by the number of micro-batches

    def __init__(
        self,
        model: torch.nn.Module,
        args: UnlearningConfig,
        splits: UnlearningSplits,
        task: Task,
        *,
        callbacks: list[TrainerCallback] | None = None,
        quiet: bool = False,
        recipe: KnownRecipe | None = None,
        **kwargs,
    ):
        self.check_task(task)
        check_active(model, lora.ADAPTER, lora.PROXY)
        task.check_method(type(self))
        if args.n_gpu > 1:
            raise UserError(
                f"{args.n_gpu} GPUs are visible to one process; start with `accelerate launch`, or show it one with "
                "CUDA_VISIBLE_DEVICES"
            )
        leave_autocast(model)
        task.settle_trained(model)
        if args.learning_rate is None:
            args.learning_rate = default_learning_rate(model)
        self.recipe = recipe
        self.splits = splits
        self.task = task
        self.notes: list[str] = [KEPT_NARROW] if trains_narrow(model) else []
        self.notes += task.advice(type(self), bool(splits.forgotten_classes))
        self.method_state: dict[str, torch.Tensor] = {}
        self.last_scores: dict[str, SplitScores] = {}
        self._recorded: dict[str, list[torch.Tensor]] = {}
        self._finite: torch.Tensor | None = None
        self._asked_at: dict[str, int] = {}
        self._made_optimizer = False
        self._notes_before: int | None = None  # any training
        self._notes_of_steps = 0  # those before, and of the last training but for what was said at its end
        super().__init__(
            model=model,
            args=args,
            data_collator=JointCollator(task),
            train_dataset=JointDataset(self.training_rows()),
            eval_dataset=splits.retain,  # Trainer asks for one; `evaluate` scores the splits themselves
            processing_class=task.processor,
            callbacks=callbacks,
            **kwargs,
        )
        if args.per_device_forget_batch_size is None:
            args.per_device_forget_batch_size = self.default_forget_batch()
        self.active_lenses = [lens(self) for lens in self.lenses if lens.is_asked(args)]
        self._settle_engine(own_steps=type(self).training_step is not UnlearningTrainer.training_step)
        self._separate_forwards = has_batch_norm(model) and not args.disable_dropout
        self.schedule = Schedule(self.phases(), args.max_steps)
        if self.schedule.left_out:
            self.notes.append(LEFT_OUT.format(args.max_steps, " and ".join(self.schedule.left_out)))
        self.add_callback(PassClock(self.passes))
        if quiet:
            self.remove_callback(ProgressCallback)
            self.remove_callback(PrinterCallback)

    # What a method writes.

    @classmethod
    def check_task(cls, task: Task) -> None:
        """Raises `UserError` for a task that the method does not serve."""

    def unlearning_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`unlearning_loss(forget, retain)`: the method's loss for one micro-batch, a scalar.

        Each is a [`SplitOutput`]. A stream that the phase does not read is not given: a method whose phases leave one
        out says `= None`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define unlearning_loss")

    def training_rows(self) -> Mapping[str, AnyRows]:
        """The rows of each stream. A method that must not read a stream leaves it out."""
        return {FORGET: self.splits.forget, RETAIN: self.splits.retain}

    def default_forget_batch(self) -> int:
        """Forget rows per process and micro-batch where the user names no number."""
        return max(1, self.args.per_device_train_batch_size // 2)

    def phases(self) -> list[Phase]:
        """What is trained, in order. Default: one phase on both streams, `num_train_epochs` passes over retain."""
        return [Phase("unlearn", math.ceil(self.args.num_train_epochs * self.stream_sizes()[RETAIN].batches))]

    def prepare(self) -> dict[str, torch.Tensor]:
        """What the method measures before the first step. Kept in checkpoints as tensors, so a resumed run has it."""
        return {}

    def record(self, name: str, value: torch.Tensor | float) -> None:
        """Add a scalar to the next training log; averaged over micro-batches and processes.

        In a run of several phases the name is prefixed with the phase's.
        """
        if len(self.schedule.names) > 1:
            name = f"{self.schedule.at(self.state.global_step)[0].name}_{name}"
        self._recorded.setdefault(name, []).append(torch.as_tensor(value).detach().float())

    @property
    def lens(self) -> SaliencyLens | None:
        """The mask, where there is one."""
        return next((lens for lens in self.active_lenses if isinstance(lens, SaliencyLens)), None)

    def plan(self) -> list[str]:
        """What a dry run says of the method, a line each."""
        return []

    def _first_of_step(self, key: str) -> bool:
        """True for the first call with `key` in an optimizer step, however many micro-batches the step has."""
        first = self._asked_at.get(key) != self.state.global_step
        self._asked_at[key] = self.state.global_step
        return first

    # One step.

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        set_training_mode(model, disable_dropout=self.args.disable_dropout)
        phase, at = self.schedule.at(self.state.global_step)
        if phase.fresh_optimizer and at == 0 and self._first_of_step("optimizer"):
            self.optimizer.state.clear()
        for lens in self.active_lenses:
            lens.before_forward()
        outputs = self._run(model, inputs)
        loss = self.unlearning_loss(**outputs)
        for name, output in outputs.items():
            self.record(f"{name}_loss", output.mean(output.loss))
        finite = torch.isfinite(loss.detach())
        self._finite = finite if self._finite is None else self._finite & finite
        return (loss, outputs) if return_outputs else loss

    def _run(self, model, batch: dict[str, Any], only_forget: bool = False) -> dict[str, SplitOutput]:
        """Forward a joint micro-batch: one `SplitOutput` per stream of the current phase."""
        inputs, index, places, first = batch["inputs"], batch["index"], batch["rows"], batch["forget_size"]
        if only_forget:
            few = slice(0, max(first, 1))
            inputs, index, places = rows_of(inputs, few), index[few], places[few]
        layers, halves = self.hidden_layers(), (slice(0, first), slice(first, None))
        if not places:
            with eval_mode(model):  # a filler leaves no trace in BatchNorm's statistics
                parts = Pass.of(self.task, model, inputs, layers).split(0)[0].split(0)
        elif self._separate_forwards and 0 < first < len(places):
            parts = [Pass.of(self.task, model, rows_of(inputs, half), layers) for half in halves]
        else:
            parts = Pass.of(self.task, model, inputs, layers).split(first)
        originals = self._ask_original(inputs, first, len(index))
        phase, _ = self.schedule.at(self.state.global_step)
        micro_batches = self.args.world_size * self.current_gradient_accumulation_steps
        outputs = {}
        for stream, part, original, own in zip((FORGET, RETAIN), parts, originals, halves, strict=True):
            if stream in phase.streams:
                scale = micro_batches / self.step_rows(stream)
                outputs[stream] = SplitOutput(
                    stream, part.predictions, index[own], scale, part, original, rows=places[own]
                )
        return outputs

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        self._finite = None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:  # after the reduce over processes, before the clip, once per step
            for lens in self.active_lenses:
                lens.change_gradients()
        return loss

    def create_optimizer(self, *args, **kwargs):
        self._made_optimizer |= self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        for lens in self.active_lenses:
            lens.attach(self.optimizer)
        return optimizer

    def _get_grad_norm(self, model, grad_norm=None):
        """Also the last moment before an update: stop here if the loss or the gradient is not finite.

        This is where a step waits for the device; the next step's rows are made ready first.
        """
        self._fetch_next_step()
        grad_norm = super()._get_grad_norm(model, grad_norm)
        finite = self._finite if self._finite is not None else torch.ones((), dtype=torch.bool)
        if getattr(self.accelerator, "scaler", None) is None:  # a loss scaler skips steps with overflow itself
            norm = whole(torch.as_tensor(grad_norm))  # FSDP2 gives it spread over the processes
            finite = finite & torch.isfinite(norm.to(finite.device))
        if self.args.world_size > 1:
            finite = self.accelerator.reduce(finite.float(), reduction="sum") == self.args.world_size
        if not bool(finite):
            step, decay = self.state.global_step + 1, self.args.weight_decay
            what = "lower `learning_rate`" + (f", or `weight_decay`, which is {decay:g}" if decay > 1 else "")
            raise NonFiniteLossError(f"the loss or its gradient is not finite at step {step}; {what}")
        return grad_norm

    # The run around the steps.

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As Trainer's; `resume_from_checkpoint=True` takes the newest whole one. Notes of an earlier training go; of
        one that is resumed, those of its end. Raises `UserError` for a checkpoint of another run, or one that is not
        whole."""
        if self._notes_before is None:
            self._notes_before = len(self.notes)
        else:
            del self.notes[self._notes_of_steps if resume_from_checkpoint else self._notes_before :]
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        except NonFiniteLossError:
            # Without an optimizer it was a training on the side, before the first step; DeepSpeed has stepped by now.
            if self.optimizer is not None and not self.is_deepspeed_enabled:
                self.model.zero_grad()
                self._save_checkpoint(self.model, trial=None)
            raise
        finally:
            self._ahead = None  # and with it the loader's workers
            self._notes_of_steps = len(self.notes)

    def release(self) -> None:
        """Give back what only steps need: the optimizer's state, two numbers a weight, gradients, and the run's mixed
        precision, in which neither the original nor a twin is scored."""
        if self.optimizer is not None:
            self.optimizer.state.clear()
        self.model.zero_grad()
        if not is_spread(self.model):
            leave_autocast(self.accelerator.unwrap_model(self.model))

    def _inner_training_loop(self, batch_size=None, args=None, resume_from_checkpoint=None, *rest, **kwargs):
        if self._made_optimizer:  # by an earlier training: its momentum is not this one's, nor its mask
            self.optimizer = None  # type: ignore[assignment]
        self._asked_at = {}
        if not resume_from_checkpoint:
            self.method_state = {}
            self.method_state.update(self._measure_originals())
            self.method_state.update(self.prepare())
            for lens in self.active_lenses:
                self.method_state.update(lens.prepare())
            set_seed(self.args.seed)  # whatever the preparation drew, the steps start from the same state
        else:
            self._load_method_state(resume_from_checkpoint)
        return super()._inner_training_loop(batch_size, args, resume_from_checkpoint, *rest, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "learning_rate" in logs and self._recorded:
            means = torch.stack([torch.stack([v.cpu() for v in values]).mean() for values in self._recorded.values()])
            if self.args.world_size > 1:
                means = self.accelerator.reduce(means.to(self.args.device), reduction="mean")
            logs.update(zip(self._recorded, means.tolist(), strict=True))
            self._recorded = {}
        super().log(logs, start_time)
