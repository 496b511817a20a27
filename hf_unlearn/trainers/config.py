"""What every method has in common: `TrainingArguments` with defaults for unlearning."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import PreTrainedModel, TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import HubStrategy

from hf_unlearn.errors import UserError
from hf_unlearn.models.zero import load_whole
from hf_unlearn.trainers.ranges import check_ranges

_DRAWN = "the rows of a step are drawn by the seed alone"
_SCORED = "splits are scored whole, in a pass of their own"
_LOADER = "rows are read by a loader of our own, which has no such choice"
_NOT_HERE = {  # arguments of TrainingArguments that would be without effect, or would change what is computed
    "auto_find_batch_size": "it would change which rows meet in a step; set `per_device_train_batch_size` yourself",
    "label_smoothing_factor": "the methods compute their own losses",
    "train_sampling_strategy": _DRAWN,
    "length_column_name": _DRAWN,
    "dataloader_drop_last": "a smaller last batch counts for less, and none is dropped",
    "dataloader_persistent_workers": _LOADER,
    "dataloader_multiprocessing_context": _LOADER,
    "ignore_data_skip": "a resumed run goes on at its step without reading the rows before it",
    "optim_target_modules": "optimizers that project the gradients of some layers are not tried here",
    "label_names": "each task knows its labels",
    "include_for_metrics": _SCORED,
    "batch_eval_metrics": _SCORED,
    "prediction_loss_only": _SCORED,
    "eval_accumulation_steps": _SCORED,
    "bf16_full_eval": _SCORED,
    "fp16_full_eval": _SCORED,
    "include_num_input_tokens_seen": "batches hold rows of two kinds, whose tokens Trainer cannot count",
    "eval_do_concat_batches": _SCORED,
    "eval_use_gather_object": _SCORED,
    "hub_always_push": "a result is pushed once, in the end",
}
_ACCELERATOR = ("split_batches", "dispatch_batches", "even_batches", "use_seedable_sampler")
_SHAPES_STEPS = {
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "adam_beta1",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "max_steps",
    "seed",
}
_NOT_TRAINING = {"score_all"}  # says what is measured
_OF_THE_RUN = {"seed", "data_seed", "bf16", "fp16"}  # of what shapes steps: not a method's own choice
_ALSO_SHAPES = {
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "bf16",
    "data_seed",
    "fp16",
    "lr_scheduler_kwargs",
    "neftune_noise_alpha",
    "optim_args",
    "warmup_steps",
}


def filled_later(help: str, **metadata: Any) -> Any:
    """A field that is `None` where the user says nothing, until the config or the trainer puts a value there.

    Its declared type is that of the value, which is what a method reads.
    """
    return field(default=None, metadata={"help": help, **metadata})


@dataclass
class UnlearningConfig(TrainingArguments):
    """Arguments shared by all methods.

    Everything not listed here means what it means in `transformers.TrainingArguments`.

    Args:
        num_train_epochs: passes over the *retain* rows.
        per_device_train_batch_size: retain rows per process and micro-batch.
        per_device_forget_batch_size: forget rows per process and micro-batch; `None` is half of the retain rows. Never
            more per step than there are forget rows.
        learning_rate: `None` lets the width of the model set it, see [`default_learning_rate`].
        saliency: kept fraction ρ in (0, 1]: only this share of the trainable weights, the most salient for the forget
            rows, moves; every other weight stays bit-identical. `None` masks nothing.
        saliency_mask: a mask file of an earlier run on the same model and forget rows, instead of measuring one.
        saliency_scope: `global` ranks all weights together, `per_tensor` keeps the share of each tensor.
        saliency_include, saliency_exclude: glob patterns of parameter names; the others do not move.
        score_all: score every row; otherwise retain, test and stopping rows are scored on seeded samples where they
            are more than 10,000 ([`~hf_unlearn.data.scored_rows.scored_rows`]).
        disable_dropout: train in eval mode, without dropout and with BatchNorm statistics frozen, so that losses mean
            the same as where τ and the targets were measured.
    """

    _argument_group_name = "the method, beside everything of transformers.TrainingArguments"

    output_dir: str = field(default="unlearned", metadata={"help": "Where the result is written."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Passes over the retain rows."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Retain rows per process and micro-batch."})
    per_device_forget_batch_size: int = filled_later(
        "Forget rows per process and micro-batch (default: half of the retain rows)."
    )
    per_device_eval_batch_size: int = field(default=128, metadata={"help": "Rows per forward pass when scoring."})
    learning_rate: float = filled_later(
        "Peak learning rate (default: set by the model's width, ten times higher with LoRA)."
    )
    weight_decay: float = field(default=0.0, metadata={"help": "Decoupled weight decay."})
    logging_steps: float = field(default=5, metadata={"help": "Log every so many steps."})
    save_strategy: str = field(default="no", metadata={"help": "When to save checkpoints (no, steps, epoch)."})
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "Nothing to filter here: a loss that is not finite stops the run before its update."},
    )
    push_to_hub: bool = field(
        default=False, metadata={"help": "Push the finished result: model, processor, evidence, report and card."}
    )
    hub_strategy: str = field(default="end", metadata={"help": "Only 'end': a repository's history keeps everything."})
    saliency: float | None = field(
        default=None,
        metadata={"help": "Share of the weights, the most salient for the forget rows, that may move (default: all)."},
    )
    saliency_mask: str | None = field(default=None, metadata={"help": "Mask file of an earlier run, to use again."})
    saliency_scope: str = field(
        default="global",
        metadata={"help": "Rank all weights together, or keep a share of each.", "choices": ["global", "per_tensor"]},
    )
    saliency_include: list[str] | None = field(
        default=None,
        metadata={"help": "Patterns of parameter names that may move, e.g. '*.attention.*'.", "nargs": "+"},
    )
    saliency_exclude: list[str] | None = field(
        default=None, metadata={"help": "Patterns of parameter names that may not move.", "nargs": "+"}
    )
    disable_dropout: bool = field(
        default=True, metadata={"help": "Train without dropout and with BatchNorm statistics frozen."}
    )

    score_all: bool = field(
        default=False,
        metadata={"help": "Score every row, however many (default: of retain and test rows 10,000 each)."},
    )

    def __post_init__(self):
        self.remove_unused_columns = False  # joint batches are nested; Trainer would look for their columns in vain
        check_ranges(vars(self))
        if self.max_steps == 0:
            raise UserError("`max_steps` is 0; give a number above 0, or leave it out")
        defaults = {f.name: f.default for f in fields(TrainingArguments)}
        for name, reason in _NOT_HERE.items():
            value, default = getattr(self, name), defaults[name]
            if value != default and (default is True or value not in (None, [], False)):
                raise UserError(f"`{name}` cannot be used here: {reason}")
        super().__post_init__()
        load_whole()
        usual = AcceleratorConfig()
        for name in _ACCELERATOR:
            if (getattr(self.accelerator_config, name, None) or False) != (getattr(usual, name, None) or False):
                raise UserError(f"`accelerator_config`: {name} is without effect here: {_DRAWN}")
        if getattr(self.accelerator_config, "gradient_accumulation_kwargs", None):
            raise UserError(
                "`accelerator_config`: say how many micro-batches with `gradient_accumulation_steps` alone"
            )
        if self.neftune_noise_alpha and self.disable_dropout is not False:
            raise UserError(
                "`neftune_noise_alpha` adds noise in train mode alone, which `disable_dropout` leaves out: switch it "
                "off, or leave the noise out"
            )
        if self.saliency_mask and not os.path.isfile(self.saliency_mask):
            raise UserError("`saliency_mask` names no file; leave it out to measure a mask")
        if self.hub_strategy != HubStrategy.END:
            raise UserError(
                "`hub_strategy` is 'end' here: what is pushed before stays in the repository's history; leave it out"
            )
        metric = self.metric_for_best_model
        if self.load_best_model_at_end and not (metric or "").removeprefix("eval_").startswith("validation"):
            raise UserError(
                f"`metric_for_best_model` is {metric}: only the validation rows may choose a checkpoint; "
                "use eval_validation_loss or eval_validation_accuracy"
            )

    @property
    def masks_updates(self) -> bool:
        """Whether some weights are held still."""
        patterns = self.saliency_include or self.saliency_exclude
        return bool(self.saliency_mask) or (self.saliency or 1) < 1 or bool(patterns)

    @classmethod
    def method_fields(cls) -> set[str]:
        """Names of the arguments that say how the method trains; not where, how precisely, by which seed."""
        own = {f.name for f in fields(cls)} - {f.name for f in fields(TrainingArguments)}
        return (own | _SHAPES_STEPS | _ALSO_SHAPES) - _OF_THE_RUN - _NOT_TRAINING

    def hyperparameters(self) -> dict[str, Any]:
        """What a reader needs to repeat the run: the method's own arguments and those that shape its steps."""
        own = {f.name for f in fields(self)} - {f.name for f in fields(TrainingArguments)}
        names = [f.name for f in fields(self) if f.name in (own | _SHAPES_STEPS) - _NOT_TRAINING]
        values = {name: getattr(self, name) for name in names} | {"world_size": self.world_size}
        if self.saliency_mask:  # its folder is nobody's business
            values["saliency_mask"] = os.path.basename(self.saliency_mask)
        return values

    def shapes_steps(self) -> dict[str, Any]:
        """Everything that must be the same for a run to go on from a checkpoint of another."""
        return self.hyperparameters() | {name: getattr(self, name) for name in sorted(_ALSO_SHAPES)}


@dataclass(frozen=True)
class KnownRecipe:
    """What a method may know of how the original was made.

    Args:
        start: makes, from a seed, the model that the recipe starts from: its base, or fresh weights.
        epochs: of the recipe; `None` where that is not known.
        learning_rate: its peak, or `None`.
        adapter: whether it trains an adapter, so that the rate is an adapter's.
        pretrained: whether it starts from a base that was trained before, rather than from random weights.
    """

    start: Callable[[int], PreTrainedModel]
    epochs: float | None = None
    learning_rate: float | None = None
    adapter: bool = False
    pretrained: bool = True

    def rate_for(self, model, factor: float) -> float | None:
        """Its peak for `model`: `factor` times as much for an adapter where the recipe trains full weights."""
        other = hasattr(model, "peft_config") and not self.adapter
        return self.learning_rate and self.learning_rate * (factor if other else 1)


def default_learning_rate(model) -> float:
    """A rate that holds across model sizes: Adam's stable rate falls as 1 / width.

    0.032 / hidden size gives 5e-4 at width 64, 4e-5 at 768 and 8e-6 at 4,096; adapters take ten times as much.
    """
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    width = getattr(config, "hidden_size", None) or getattr(config, "n_embd", None)
    if not width:  # convolutional models name the width of each stage
        width = max(getattr(config, "hidden_sizes", None) or [512])
    return 0.032 / width * (10 if hasattr(model, "peft_config") else 1)
