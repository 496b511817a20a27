"""The recipe behind the original and its twins: a plain `Trainer` run, kept in a cache by what went into it."""

import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PrinterCallback, Trainer, TrainingArguments, set_seed

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import NonFiniteLossError, UserError
from hf_unlearn.evaluation.comparison import ModelScores
from hf_unlearn.hub.private_paths import is_local_name
from hf_unlearn.models import lora
from hf_unlearn.models.start import labels_of, load_start
from hf_unlearn.models.weights import first_not_finite, load_weights
from hf_unlearn.models.zero import load_whole, make_whole
from hf_unlearn.run.recipe_cache import default_cache_dir, entry_key, keep_entry, read_entry
from hf_unlearn.tasks.base import Task
from hf_unlearn.trainers.modes import leave_autocast
from hf_unlearn.trainers.progress_bar import ProgressBar


@dataclass(frozen=True)
class Recipe:
    """How a model is made from rows. Exactly one of `model` (a base to fine-tune) and `model_type` (from scratch).

    With `use_peft` the base stays as it is and a LoRA adapter on it is trained; the result is a `PeftModel`. A step
    has `batch_size` rows, whatever the processes and the accumulation.
    """

    model: str | None = None
    model_type: str | None = None
    model_config: str | None = None
    num_train_epochs: float = 3.0
    learning_rate: float = 5e-5
    batch_size: int = 64
    lr_scheduler_type: str = "linear"
    warmup_steps: float = 0
    weight_decay: float = 0.0
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    bf16: bool = False
    use_peft: bool = False
    lora_r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    lora_target_modules: tuple[str, ...] | None = None
    dtype: str = "float32"

    @classmethod
    def from_arguments(cls, arguments, dtype: str) -> "Recipe":
        """From the `original_*` arguments. Raises `UserError` where they contradict each other."""
        if bool(arguments.original_model) == bool(arguments.original_model_type):
            raise UserError("the recipe needs one of --original_model and --original_model_type, not both")
        names = [f for f in cls.__dataclass_fields__ if f != "dtype"]
        values = {name: getattr(arguments, f"original_{name}") for name in names}
        if values["lora_target_modules"]:
            values["lora_target_modules"] = tuple(values["lora_target_modules"])
        recipe = cls(**values, dtype=dtype)
        if recipe.use_peft and not recipe.model:
            raise UserError("--original_use_peft adapts a base: name it with --original_model")
        recipe.config_values()
        return recipe

    def config_values(self) -> dict[str, Any]:
        """The architecture's configuration as a dict."""
        try:
            values = json.loads(self.model_config) if self.model_config else {}
        except json.JSONDecodeError as error:
            raise UserError(f"--original_model_config is not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise UserError("--original_model_config must be a mapping of configuration values")
        return values

    def describe(self) -> dict[str, Any]:
        """The evidence block `recipe`; a base that is a folder of this machine is not named."""
        local = self.model is not None and is_local_name(self.model, Path.cwd())
        return asdict(self) | {"model": None if local else self.model, "model_config": self.config_values() or None}

    def build_model(self, task: Task, seed: int, **load_kwargs):
        """The model as it is before the first step: the base with a fresh head, or freshly initialised weights."""
        if self.model:
            return load_start(task, self.model, seed, dtype=self.dtype, **load_kwargs)
        set_seed(seed)
        model = task.auto_model().from_config(self._config(task), dtype=getattr(torch, self.dtype, None))
        task.prepare_model(model)
        return model

    def add_adapter(self, model, task: Task):
        """The model of [`build_model`] with the recipe's fresh adapter on it, where the recipe has one."""
        if not self.use_peft:
            return model
        targets = list(self.lora_target_modules) if self.lora_target_modules else None
        if self.gradient_checkpointing:
            model.enable_input_require_grads()  # what is recomputed is asked for gradients by its inputs
        return lora.add_lora(
            model,
            r=self.lora_r,
            alpha=self.lora_alpha,
            dropout=self.lora_dropout,
            target_modules=targets,
            task_type=task.peft_task_type,
        )

    def load(self, folder: Path, task: Task, **load_kwargs):
        """What an earlier run of the recipe left in `folder`, prepared as [`build_model`] prepares its model, since
        folders do not record all that a task settles."""
        if self.use_peft:
            labels: dict[str, Any] = {"num_labels": len(task.label_names)} if task.label_names else {}
            model: Any = lora.load_adapter_model(
                str(folder), task.auto_model(), dtype=self.dtype, **labels, **load_kwargs
            )
        else:
            model = load_weights(task.auto_model(), str(folder), dtype=self.dtype, **load_kwargs)
        task.prepare_model(model)
        return model

    def _config(self, task: Task):
        values = self.config_values()
        if hasattr(task.processor, "convert_tokens_to_ids"):
            tokenizer = task.processor
            special = {f"{k}_token_id": getattr(tokenizer, f"{k}_token_id", None) for k in ("pad", "bos", "eos")}
            values = {"vocab_size": len(tokenizer), **special, **values}
        try:
            return AutoConfig.for_model(str(self.model_type), **values, **labels_of(task))
        except (KeyError, ValueError) as error:
            raise UserError(
                f"--original_model_type {self.model_type} with its configuration is refused by transformers: "
                f"{' '.join(str(error).split())[:200]}"
            ) from None


@dataclass
class Trained:
    """A model made by the recipe, and what making it cost, as measured when it was made; `None` for a given one.

    `scores`: over the reported splits, where they were measured.
    """

    model: torch.nn.Module
    seconds: float | None = None
    examples: int | None = None
    cached: bool = False
    scores: ModelScores | None = None


def train_recipe(
    recipe: Recipe,
    task: Task,
    rows: Rows,
    seed: int,
    *,
    cache_dir: Path | None = None,
    title: str = "training",
    load_kwargs: dict[str, Any] | None = None,
    use_cpu: bool = False,
) -> Trained:
    """Run the recipe on `rows`, or fetch the result of an identical earlier run from the cache.

    Args:
        title: what the progress line calls this run.
        use_cpu: leave accelerators alone.

    Raises:
        `UserError`: fewer rows than one batch.
        `NonFiniteLossError`: the training left no numbers.
    """
    load_kwargs = load_kwargs or {}
    # The model settles how rows are encoded (padding, longest input), and the cache's key is made from encoded rows.
    model = recipe.build_model(task, seed, **load_kwargs)
    key = entry_key(asdict(recipe), task, rows, seed, load=load_kwargs, device=device_kind(use_cpu))
    folder = (cache_dir or default_cache_dir()) / key
    if made := read_entry(folder):
        model = recipe.load(folder, task, **load_kwargs)
        return Trained(model, made["seconds"], made["examples"], cached=True)

    model = recipe.add_adapter(model, task)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=_training_arguments(recipe, seed, len(rows), scratch, use_cpu),
            train_dataset=rows,
            data_collator=task.collate,
        )
        if recipe.gradient_accumulation_steps > 1 and task.has_labels():
            # Heads take the keyword of a loss that is summed over the step, and ignore it.
            trainer.model_accepts_loss_kwargs = False
        load_whole()
        _show_progress(trainer, title)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        if trainer.is_deepspeed_enabled:
            make_whole(model, trainer.model_wrapped)
        leave_autocast(model)  # a twin from the cache has none either
    if first_not_finite(model):
        raise NonFiniteLossError(f"{title} ended in weights that are not finite; lower `original_learning_rate`")
    examples = trainer.state.global_step * recipe.batch_size
    if trainer.is_world_process_zero():
        made = {"seconds": seconds, "examples": examples, "rows": len(rows), "seed": seed, "recipe": asdict(recipe)}
        keep_entry(folder, model, task, made)
    if recipe.use_peft:
        lora.add_reference_adapter(model)
    return Trained(model, seconds, examples, cached=False)


def _training_arguments(recipe: Recipe, seed: int, rows: int, scratch: str, use_cpu: bool) -> TrainingArguments:
    world = int(os.environ.get("WORLD_SIZE", 1))
    parts = world * recipe.gradient_accumulation_steps
    if recipe.batch_size % parts:
        raise UserError(
            f"--original_batch_size {recipe.batch_size} does not divide by {world} processes times "
            f"{recipe.gradient_accumulation_steps} accumulation steps"
        )
    check_batch(recipe, rows)
    return TrainingArguments(
        output_dir=scratch,
        num_train_epochs=recipe.num_train_epochs,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=recipe.batch_size // parts,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        gradient_checkpointing=recipe.gradient_checkpointing or None,  # False would be warned of
        bf16=recipe.bf16,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        seed=seed,
        dataloader_drop_last=True,  # a tiny last batch at full rate makes models differ for no good reason
        save_strategy="no",
        logging_strategy="no",
        remove_unused_columns=False,
        use_cpu=device_kind(use_cpu) == "cpu",
        disable_tqdm=True,
        average_tokens_across_devices=False,  # it would scale the loss with the number of processes
    )


def check_batch(recipe: Recipe, rows: int) -> None:
    """Raises `UserError` where one batch takes more rows than there are."""
    if rows < recipe.batch_size:
        raise UserError(
            f"--original_batch_size {recipe.batch_size} is more than the {rows} rows to train on; lower it"
        )


def device_kind(use_cpu: bool) -> str:
    """What a recipe trains on, `cpu` or `accelerator`: the same seed gives other weights there."""
    found = torch.cuda.is_available() or torch.backends.mps.is_available()
    return "accelerator" if found and not use_cpu else "cpu"


def _show_progress(trainer: Trainer, title: str) -> None:
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ProgressBar(title))
