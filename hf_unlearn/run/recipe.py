"""The recipe behind the original and its twins: a plain `Trainer` run, kept in a cache by what went into it."""

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PrinterCallback, Trainer, TrainingArguments, set_seed

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.hub.private_paths import is_local_name
from hf_unlearn.progress import ProgressBar
from hf_unlearn.tasks.base import Task


@dataclass(frozen=True)
class Recipe:
    """How a model is made from rows. Exactly one of `model` (a base to fine-tune) and `model_type` (from scratch)."""

    model: str | None = None
    model_type: str | None = None
    model_config: str | None = None
    num_train_epochs: float = 3.0
    learning_rate: float = 5e-5
    batch_size: int = 64
    lr_scheduler_type: str = "linear"
    warmup_steps: float = 0
    weight_decay: float = 0.0
    dtype: str = "float32"

    @classmethod
    def from_arguments(cls, arguments, dtype: str) -> "Recipe":
        """From the `original_*` arguments. Raises `UserError` where they contradict each other."""
        if bool(arguments.original_model) == bool(arguments.original_model_type):
            raise UserError("the recipe needs one of --original_model and --original_model_type, not both")
        names = [f for f in cls.__dataclass_fields__ if f != "dtype"]
        recipe = cls(**{name: getattr(arguments, f"original_{name}") for name in names}, dtype=dtype)
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
        set_seed(seed)
        labels = {}
        if task.label_names:
            labels = {"id2label": dict(enumerate(task.label_names)), "label2id": _inverse(task.label_names)}
        if self.model:
            if task.label_names:
                labels |= {"num_labels": len(task.label_names), "ignore_mismatched_sizes": True}
            model = task.auto_model().from_pretrained(self.model, dtype=self.dtype, **labels, **load_kwargs)
        else:
            model = task.auto_model().from_config(self._config(task, labels), dtype=getattr(torch, self.dtype, None))
        task.prepare_model(model)
        return model

    def _config(self, task: Task, labels: dict[str, Any]):
        values = self.config_values()
        if hasattr(task.processor, "convert_tokens_to_ids"):
            tokenizer = task.processor
            special = {f"{k}_token_id": getattr(tokenizer, f"{k}_token_id", None) for k in ("pad", "bos", "eos")}
            values = {"vocab_size": len(tokenizer), **special, **values}
        try:
            return AutoConfig.for_model(self.model_type, **values, **labels)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"--original_model_type {self.model_type} with its configuration is refused by transformers: "
                f"{' '.join(str(error).split())[:200]}"
            ) from None


@dataclass
class Trained:
    """A model made by the recipe, and what making it cost (as measured when it was made)."""

    model: torch.nn.Module
    seconds: float
    examples: int
    cached: bool


def train_recipe(
    recipe: Recipe,
    task: Task,
    rows: Rows,
    seed: int,
    *,
    fingerprint: str,
    cache_dir: Path | None = None,
    title: str = "training",
    load_kwargs: dict[str, Any] | None = None,
    use_cpu: bool = False,
) -> Trained:
    """Run the recipe on `rows`, or fetch the result of an identical earlier run from the cache.

    Args:
        fingerprint: hash of the rows' content; with recipe, seed and library versions it is the cache's key.
        title: what the progress line calls this run.
        use_cpu: leave accelerators alone.

    Raises:
        `UserError`: fewer rows than one batch.
    """
    folder = (cache_dir or default_cache_dir()) / _key(recipe, task, fingerprint, seed)
    if (folder / "made.json").is_file():
        made = json.loads((folder / "made.json").read_text())
        model = task.auto_model().from_pretrained(folder, dtype=recipe.dtype)
        return Trained(model, made["seconds"], made["examples"], cached=True)

    model = recipe.build_model(task, seed, **(load_kwargs or {}))
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=_training_arguments(recipe, seed, len(rows), scratch, use_cpu),
            train_dataset=rows,
            data_collator=task.collate,
        )
        _show_progress(trainer, title)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    examples = trainer.state.global_step * recipe.batch_size
    if trainer.is_world_process_zero():
        _keep(folder, model, task, {"seconds": seconds, "examples": examples, "seed": seed, "recipe": asdict(recipe)})
    return Trained(model, seconds, examples, cached=False)


def default_cache_dir() -> Path:
    """`$HF_UNLEARN_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HF_UNLEARN_CACHE") or Path(base) / "hf_unlearn")


def _training_arguments(recipe: Recipe, seed: int, rows: int, scratch: str, use_cpu: bool) -> TrainingArguments:
    world = int(os.environ.get("WORLD_SIZE", 1))
    if recipe.batch_size % world:
        raise UserError(f"--original_batch_size {recipe.batch_size} does not divide by {world} processes")
    if rows < recipe.batch_size:
        raise UserError(f"--original_batch_size {recipe.batch_size} is more than the {rows} rows to train on")
    return TrainingArguments(
        output_dir=scratch,
        num_train_epochs=recipe.num_train_epochs,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=recipe.batch_size // world,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        seed=seed,
        dataloader_drop_last=True,  # a tiny last batch at full rate makes models differ for no good reason
        save_strategy="no",
        logging_strategy="no",
        remove_unused_columns=False,
        use_cpu=use_cpu or not torch.cuda.is_available() and not torch.backends.mps.is_available(),
        disable_tqdm=True,
        average_tokens_across_devices=False,  # it would scale the loss with the number of processes
    )


def _show_progress(trainer: Trainer, title: str) -> None:
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ProgressBar(title))


def _key(recipe: Recipe, task: Task, fingerprint: str, seed: int) -> str:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    processor = task.processor.to_json_string() if hasattr(task.processor, "to_json_string") else ""
    if hasattr(task.processor, "backend_tokenizer"):
        processor = task.processor.backend_tokenizer.to_str()
    parts = [asdict(recipe), task.name, task.max_length, task.label_names, fingerprint, seed, versions, processor]
    parts.append(os.environ.get("WORLD_SIZE", "1"))
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _keep(folder: Path, model, task: Task, made: dict[str, Any]) -> None:
    """Write beside the cache and rename, so that a run that is cut off leaves no half entry."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix="writing-"))
    try:
        model.save_pretrained(scratch)
        task.processor.save_pretrained(scratch)
        (scratch / "made.json").write_text(json.dumps(made))
        if not folder.exists():
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _inverse(names: list[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate(names)}
