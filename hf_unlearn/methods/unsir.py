"""UNSIR: noise, impair, repair. Forgets classes without reading one row of them."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.models import lora
from hf_unlearn.models.noise import ErrorMaximizingNoise, find_space
from hf_unlearn.tasks.forward import unwrap, without_data_parallel
from hf_unlearn.trainers.config import KnownRecipe, default_learning_rate, filled_later
from hf_unlearn.trainers.noise_stream import IMPAIR, NOISE, PAPER_COPIES, REPAIR, NoiseRows, PublishedSampler
from hf_unlearn.trainers.published import PublishedConfig, PublishedTrainer
from hf_unlearn.trainers.random_streams import Stream, random_numbers
from hf_unlearn.trainers.sampler import JointSampler
from hf_unlearn.trainers.schedule import FORGET, RETAIN, Phase
from hf_unlearn.trainers.split_output import SplitOutput

PAPER_RATES = {IMPAIR: 0.02, REPAIR: 0.01}
PENALTY = {"fresh": 1e-4, "paper": 0.1}
RATE = 0.35  # of the recipe's peak learning rate, as far as the width of the model tells it where it is not known
STEPS = {IMPAIR: 20, REPAIR: 100}
PRETRAINED_STEPS = {IMPAIR: 40, REPAIR: 40}  # fewer leave the label likelier than a twin finds it
FEWEST_STEPS = 5
LEAST_NOISE, NOISE_PER_CLASS = 16, 8  # rows of noise in all, and of each class
BUDGET = 0.09  # of the examples that retraining reads
# Arguments of Trainer whose place the phases take, and the values that they have unasked.
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "num_train_epochs": (3.0,),
    "lr_scheduler_type": (None, "linear", "constant"),
    "lr_scheduler_kwargs": (None, {}),
    "warmup_steps": (0,),
}
UNKNOWN_EPOCHS = 10.0  # assumed for retraining where the recipe is not known


@dataclass
class UnsirConfig(PublishedConfig):
    """Arguments of [`UnsirTrainer`]. None of them has to be tuned.

    Args:
        variant: `fresh` (default) or `paper`, see [`UnsirTrainer`].
        retain_per_class: rows of each kept class that the run may read, drawn at random.
        noise_rows: rows of noise per class; `None` is 8, and at least 16 in all (paper: a whole batch).
        noise_steps, noise_learning_rate: Adam's on the noise, in standard units of real embeddings.
        noise_penalty: λ, see [`ErrorMaximizingNoise.step`]; `None` is 1e-4, which keeps the noise as large as real
            embeddings (paper: 0.1).
        noise_space: `embeddings`, `pixels`, or `auto`, which takes pixels where the model has no input embeddings.
        impair_steps, repair_steps: `None` is 40 and 40 where the recipe starts from a pretrained base, else 20 and
            100, less where that would read more than a tenth of what retraining reads (paper: an epoch each).
        impair_learning_rate, repair_learning_rate: `None` is `learning_rate` (paper: 0.02 and 0.01).
        learning_rate: `None` is 0.35 of the recipe's, or set by the model's width.
        retrain_epochs: epochs that retraining would take; `None`: the recipe's, or 10.
    """

    published: ClassVar[dict[str, Any]] = {"optim": "adamw_torch", "disable_dropout": False}  # without decay: Adam

    per_device_train_batch_size: int = field(default=16, metadata={"help": "Retain rows per process and micro-batch."})
    variant: str = field(
        default="fresh",
        metadata={
            "help": "fresh: output rows are made neutral before impairing; paper: as published.",
            "choices": ["fresh", "paper"],
        },
    )
    retain_per_class: int = field(default=1000, metadata={"help": "Rows of each kept class that may be read."})
    noise_rows: int = filled_later("Rows of noise per class (default: 8, at least 16 in all; paper: a batch).")
    noise_steps: int = field(default=40, metadata={"help": "Steps that learn the noise."})
    noise_learning_rate: float = field(default=0.1, metadata={"help": "Adam's rate on the noise, in standard units."})
    noise_penalty: float = filled_later("Weight of the noise's size (default: 1e-4; paper: 0.1).")
    noise_space: str = field(
        default="auto",
        metadata={"help": "Where the noise is put in.", "choices": ["auto", "embeddings", "pixels"]},
    )
    impair_steps: int = filled_later("Steps of impairing (default: 40 from a pretrained base, else 20 or less).")
    repair_steps: int = filled_later("Steps of repairing (default: 40 from a pretrained base, else 100 or less).")
    impair_learning_rate: float = filled_later("Rate of impairing (default: --learning_rate; paper: 0.02).")
    repair_learning_rate: float = filled_later(
        "Rate at which repairing starts (default: --learning_rate; paper: 0.01)."
    )
    retrain_epochs: float = filled_later("Epochs that retraining would take (default: the recipe's, or 10).")

    def __post_init__(self):
        for name, usual in WITHOUT_EFFECT.items():
            if getattr(self, name) not in usual:
                raise UserError(
                    f"`{name}` is without effect in UNSIR; `impair_steps`, `repair_steps` and rates have one"
                )
        super().__post_init__()
        for name, known in (("variant", ("fresh", "paper")), ("noise_space", ("auto", "embeddings", "pixels"))):
            if getattr(self, name) not in known:
                raise UserError(f"`{name}` is '{getattr(self, name)}'; it is one of {', '.join(known)}")
        if self.saliency is not None or self.masks_updates:
            raise UserError("`method` unsir reads no forget row, and a saliency mask is made from them: leave it out")
        if self.fp16:
            raise UserError("`fp16`: the noise has no scaled gradients; use `bf16` with `method` unsir")


class UnsirTrainer(PublishedTrainer):
    """UNSIR (Tarun et al. 2023, arXiv 2111.08947): noise on which the model errs most about the forgotten classes,
    impairing on that noise, repairing on the rest.

    - *noise*: real steps of the run that move the noise and leave the model alone ([`ErrorMaximizingNoise`]).
    - *impair*: L = CE(noise, its class) + L_r.
    - *repair*: L = L_r, at a rate that falls to 0.

    Zero-glance: neither the forget rows nor unseen rows of their classes are read, only the classes' labels, and of
    the retain rows at most `retain_per_class` of each class. In the joint batch the noise takes the forget rows'
    place.

    `variant="paper"` is the published sequence: one shuffled epoch over 20 copies of each noise batch and the retain
    subset at a rate of 0.02, then one over the subset at 0.01. What forgets there is the damage, which transformers do
    not recover from.

    `variant="fresh"` (default) makes the output rows of the forgotten classes neutral before impairing: the mean of
    the kept classes' rows, so that none of them is ever the largest. Impairing then ties the labels to the noise
    instead of to what the model knew, which takes no high rate, and repairing drives the labels off real inputs. A
    third of the rate that the model was trained with serves both.

    Example:

        config = UnsirConfig(output_dir="unlearned", noise_rows=16)
        UnsirTrainer(model, config, splits, task).train()
    """

    config_class = UnsirConfig
    args: UnsirConfig
    method = "unsir"
    paper = {
        "title": "Fast Yet Effective Machine Unlearning",
        "authors": "Ayush K. Tarun, Vikram S. Chundawat, Murari Mandal, Mohan Kankanhalli",
        "year": "2023",
        "id": "arXiv:2111.08947",
    }

    def __init__(self, model, args: UnsirConfig, splits, task, *, recipe: KnownRecipe | None = None, **kwargs):
        self.check_task(task)
        if not splits.forgotten_classes:
            raise UserError(
                "`method` unsir forgets whole classes and reads none of their rows: name them with `classes`"
            )
        self.args = args  # `training_rows` is asked before Trainer sets it
        self.space = find_space(model, args.noise_space)
        args.retrain_epochs = args.retrain_epochs or (recipe and recipe.epochs) or UNKNOWN_EPOCHS
        if args.noise_penalty is None:
            args.noise_penalty = PENALTY[args.variant]
        if args.learning_rate is None:
            # An adapter's tenfold rate is not needed here: the output rows do most of the work.
            by_width = 2 * default_learning_rate(model) / (10 if lora.is_peft(model) else 1)
            args.learning_rate = RATE * ((recipe and recipe.learning_rate) or by_width)
        for phase, published in PAPER_RATES.items():
            if getattr(args, f"{phase}_learning_rate") is None:
                rate = published if args.variant == "paper" else args.learning_rate
                setattr(args, f"{phase}_learning_rate", rate)
        self._structure: list[dict[str, Any]] | None = None
        super().__init__(model, args, splits, task, recipe=recipe, **kwargs)

    @classmethod
    def check_task(cls, task) -> None:
        if not task.has_classes:
            raise UserError(
                f"`method` unsir forgets classes, and the rows of {task.name} are not of one class each: use `method` "
                "nabla_tau"
            )

    # Which rows, and when.

    def training_rows(self) -> dict[str, Any]:
        """The noise's structure in place of the forget rows, and the retain subset."""
        subset = self._retain_subset()
        classes = self.splits.forgotten_classes
        if self.args.noise_rows is None:
            few = max(NOISE_PER_CLASS, -(-LEAST_NOISE // len(classes)))
            self.args.noise_rows = few if self.args.variant == "fresh" else self._step_size()
        labels = np.repeat(classes, self.args.noise_rows)
        rng = random_numbers(self.args.seed, Stream.NOISE_TEMPLATES)
        templates = rng.choice(len(subset), len(labels), replace=len(labels) > len(subset))
        return {FORGET: NoiseRows(subset, templates, labels), RETAIN: subset}

    def _retain_subset(self) -> Rows:
        """At most `retain_per_class` rows of each class, by the labels' column alone."""
        rows = self.splits.retain
        labels = np.asarray(rows.source.select(rows.indices)[self.task.columns["label"]])
        rng = random_numbers(self.args.seed, Stream.KEPT_SUBSET)
        most = self.args.retain_per_class
        kept = [rng.permutation(np.flatnonzero(labels == label))[:most] for label in np.unique(labels)]
        return rows.select(np.sort(np.concatenate(kept)))

    def _step_size(self) -> int:
        """Retain rows of a whole optimizer step."""
        args = self.args
        return args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps

    def default_forget_batch(self) -> int:
        return self.args.per_device_train_batch_size

    def phases(self) -> list[Phase]:
        args = self.args
        both = (FORGET, RETAIN)
        self._set_steps()
        if 0 < args.max_steps <= args.noise_steps:
            raise UserError(f"`max_steps` {args.max_steps}: the first {args.noise_steps} learn noise alone; give more")
        end = None if args.variant == "paper" else 0.0
        return [
            Phase(NOISE, args.noise_steps, (), args.noise_learning_rate),
            Phase(IMPAIR, args.impair_steps, both, args.impair_learning_rate),
            Phase(REPAIR, args.repair_steps, (RETAIN,), args.repair_learning_rate, end, fresh_optimizer=end is None),
        ]

    def _set_steps(self) -> None:
        """The steps that are not given. A model from scratch was trained for long, and a tenth of what retraining
        reads is enough; from a pretrained base that would be a handful of steps."""
        args, sizes = self.args, self.stream_sizes()
        noise, retain = sizes[FORGET], sizes[RETAIN]
        if args.variant == "paper":
            default = {
                IMPAIR: math.ceil((PAPER_COPIES * noise.rows + retain.rows) / retain.batch),
                REPAIR: retain.batches,
            }
        elif self.recipe is not None and self.recipe.pretrained:
            default = PRETRAINED_STEPS
        else:
            left = BUDGET * args.retrain_epochs * len(self.splits.retain) - noise.rows * (args.noise_steps + 1)
            wanted = STEPS[IMPAIR] * (noise.batch + retain.batch) + STEPS[REPAIR] * retain.batch
            share = min(1.0, max(0.0, left / wanted))
            default = {phase: max(FEWEST_STEPS, int(steps * share)) for phase, steps in STEPS.items()}
        args.impair_steps = args.impair_steps or default[IMPAIR]
        args.repair_steps = args.repair_steps or default[REPAIR]

    @property
    def ends_passes(self) -> bool:
        return self.as_published

    def _sampler(self) -> JointSampler:
        sampler = super()._sampler()
        return PublishedSampler(sampler) if self.args.variant == "paper" else sampler

    def plan(self) -> list[str]:
        noise = self.train_dataset.streams[FORGET]
        return [
            f"variant {self.args.variant}, no forget row is read; "
            f"{len(self.train_dataset.streams[RETAIN])} of {len(self.splits.retain)} retain rows are",
            f"{len(noise)} rows of noise in {self.space}; "
            + ", ".join(
                f"{phase.name} {phase.steps} steps at {phase.learning_rate:g}" for phase in self.schedule.phases
            ),
        ]

    # Noise.

    def prepare(self) -> dict[str, torch.Tensor]:
        batches = self._noise_batches()
        self.count_examples(len(self.train_dataset.streams[FORGET]))
        with self.compute_loss_context_manager():
            return ErrorMaximizingNoise.start(self._frozen(), self.task, batches, self.space, self.args.seed)

    def rows_beside_steps(self) -> int:
        noise = len(self.train_dataset.streams[FORGET])
        return super().rows_beside_steps() + noise * (1 + self.args.noise_steps)

    @property
    def noise(self) -> ErrorMaximizingNoise:
        """The noise as it is now; its tensors live in `method_state`, and so in checkpoints."""
        for key, value in self.method_state.items():
            if key.startswith("noise"):
                self.method_state[key] = value.to(self.args.device)
        return ErrorMaximizingNoise(self.method_state, self.task, self.space, self.args.noise_penalty)

    def _noise_batches(self) -> list[dict[str, Any]]:
        """The noise's structure, collated in parts no larger than a training forward."""
        if self._structure is None:
            rows = self.train_dataset.streams[FORGET]
            size = self.args.per_device_train_batch_size + self.args.per_device_forget_batch_size
            parts = [range(i, min(i + size, len(rows))) for i in range(0, len(rows), size)]
            self._structure = [self._prepare_inputs(self.task.collate(rows.__getitems__(part))) for part in parts]
        return self._structure

    def _frozen(self) -> torch.nn.Module:
        return without_data_parallel(self.model_wrapped).eval()

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        phase, at = self.schedule.at(self.state.global_step)
        if phase.name == NOISE:
            return self._noise_step(at)
        if phase.name == IMPAIR and at == 0 and self.args.variant == "fresh" and self._first_of_step("neutral"):
            self._make_neutral()
        return super().training_step(model, inputs, num_items_in_batch)

    def _noise_step(self, at: int) -> torch.Tensor:
        """A step of the run that moves the noise. Every process learns the same noise, once a step."""
        zero = torch.zeros((), device=self.args.device)
        if not self._first_of_step("noise"):
            return zero
        self.count_examples(len(self.train_dataset.streams[FORGET]))
        with self.compute_loss_context_manager():
            figures = self.noise.step(self._frozen(), self._noise_batches(), at, self.args.noise_learning_rate)
        self.record("loss", figures["loss"])
        self.record("norm_ratio", figures["norm_ratio"])
        return zero + figures["objective"]

    # Impair and repair.

    @torch.no_grad()
    def _make_neutral(self) -> None:
        """Give the forgotten classes the mean of the kept classes' output rows: never the largest logit."""
        model = unwrap(self.model_wrapped)
        classes, gone = model.config.num_labels or 0, list(self.splits.forgotten_classes)
        kept = [i for i in range(classes) if i not in gone]
        own = [m for name, m in model.named_modules() if ".lora_" not in name]  # an adapter's rank may be that number
        heads = [m for m in own if isinstance(m, torch.nn.Linear) and m.out_features == classes]
        heads = [head for head in heads if head.weight.requires_grad]
        if not heads:
            self.notes.append("The output layer is frozen, so the forgotten classes kept their output rows.")
            return
        for values in (heads[-1].weight, heads[-1].bias):
            if values is not None:
                values[gone] = values[kept].mean(0)

    def _run(self, model, batch: dict[str, Any], only_forget: bool = False) -> dict[str, SplitOutput]:
        size = batch["forget_size"]
        if not size:
            return super()._run(model, batch, only_forget)
        with self.noise.inside(model, batch["inputs"], batch["index"][:size]):
            return super()._run(model, batch, only_forget)

    def unlearning_loss(self, retain: SplitOutput, forget: SplitOutput | None = None) -> torch.Tensor:
        loss = retain.mean(retain.loss)
        if forget is None:
            return loss
        noise = forget.mean(forget.loss)
        if self.args.variant != "paper":
            return noise + loss
        # Every example of the shuffled union weighs the same, of whichever kind it is.
        return noise * self.share_of_step(FORGET) + loss * self.share_of_step(RETAIN)

    def record(self, name: str, value: torch.Tensor | float) -> None:
        super().record("noise_loss" if name == "forget_loss" else name, value)
