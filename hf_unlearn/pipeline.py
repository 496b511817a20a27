"""The stages of a run, in the order `train.py` calls them. The only module that knows every other one."""

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_unlearn import lora
from hf_unlearn.arguments import Arguments
from hf_unlearn.data.build import SplitReport, build_splits, complete_source, training_rows
from hf_unlearn.data.content import data_fingerprint, forget_digest
from hf_unlearn.data.labels import encode_labels
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.data.rows import Rows
from hf_unlearn.data.sources import Source, join_forget_retain, load_source
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.comparison import ModelScores, compare
from hf_unlearn.evaluation.scoring import score_splits
from hf_unlearn.loading import load_label2id, load_model, load_options, load_processor
from hf_unlearn.progress import ProgressBar
from hf_unlearn.recipe import Recipe, Trained, train_recipe
from hf_unlearn.report.card import render_card
from hf_unlearn.report.evidence import build_evidence, environment, write_json
from hf_unlearn.report.table import render_table
from hf_unlearn.tasks import get_task
from hf_unlearn.tasks.base import Task
from hf_unlearn.trainers import get_method
from hf_unlearn.trainers.base import UnlearningTrainer

SCORED = ("forget", "retain", "test", "nonmembers")
COLUMN_ROLES = ("image", "text", "text_pair", "label", "question", "answer", "messages")


@dataclass
class Data:
    """Rows in their roles, and what is known about them. `model` is the one given by the user, if there is one."""

    source: Source
    task: Task
    splits: UnlearningSplits
    report: SplitReport
    request: ForgetRequest
    digest: str
    model: torch.nn.Module | None


@dataclass
class Unlearning:
    """What the unlearning run left: the model, its scores, its cost."""

    scores: ModelScores
    seconds: float
    examples: int
    steps: int
    peak_memory_mb: float


def prepare_data(arguments: Arguments) -> Data:
    """Load rows, resolve the request and give every row its role. Nothing is written."""
    source, request = _load_rows(arguments)
    task_class = get_task(arguments.data.task or source.task)
    overrides = {role: name for role in COLUMN_ROLES if (name := getattr(arguments.data, f"{role}_column"))}
    columns = source.columns
    if columns is None or overrides:
        columns = task_class.detect_columns(source.train.column_names, source.train.features, overrides)
    label_names = None
    if task_class.has_classes:
        source, label_names = encode_labels(source, columns["label"], load_label2id(arguments))
    group = arguments.request.group_column or source.group_column
    label = columns.get("label")
    seed = arguments.trainer.seed
    given = arguments.model.model_name_or_path
    # By the recipe's seed: one original serves every request and every unlearning seed.
    source, notes = complete_source(
        source,
        trains_original=given is None,
        seed=arguments.recipe.original_seed,
        label_column=label,
        group_column=group,
    )
    processor = load_processor(arguments, source, task_class)
    task = task_class(processor, columns, label_names=label_names, max_length=arguments.data.max_length)
    # The model settles how rows are encoded (padding, longest input), so it comes before they are.
    model = load_model(arguments, task, given) if given else None
    if model is None:
        recipe = Recipe.from_arguments(arguments.recipe, arguments.model.dtype)
        recipe.build_model(task, seed, **(load_options(arguments) if recipe.model else {}))
    splits, report = build_splits(
        source,
        task,
        request.select(source, label, label_names),
        request_kind=request.kind,
        seed=seed,
        label_column=label,
        group_column=group,
        forget_duplicates=arguments.request.forget_duplicates,
        cache_rows=arguments.data.cache_rows,
    )
    report.notes[:0] = [*notes, *request.notes]
    digest = forget_digest(source.train, splits.forget.indices, list(columns.values()))
    return Data(source, task, splits, report, request, digest, model)


def _load_rows(arguments: Arguments) -> tuple[Source, ForgetRequest]:
    data, asked = arguments.data, arguments.request
    source = load_source(
        data.dataset_name,
        config_name=data.dataset_config_name,
        train_split=data.train_split,
        validation_split=data.validation_split,
        test_split=data.test_split,
        seed=arguments.recipe.original_seed,
        task=data.task,
    )
    if data.task is None and source.task is None:
        raise UserError("no --task; name image_classification, text_classification or causal_lm")
    rows = None
    if asked.forget_dataset:
        forget = load_source(asked.forget_dataset, train_split=data.train_split, task=data.task)
        source.train, rows = join_forget_retain(forget.train, source.train)
    request = ForgetRequest(
        classes=asked.forget_classes,
        fraction=asked.forget_fraction,
        group_column=asked.group_column,
        ids_file=asked.forget_ids,
        id_column=asked.id_column,
        where=asked.forget_where,
        rows=rows,
        seed=arguments.trainer.seed,
    )
    return source, request


def get_original(arguments: Arguments, data: Data) -> Trained:
    """The model that must forget: the given one, or one made by the recipe."""
    if data.model is not None:
        return Trained(data.model, None, None, cached=False)
    recipe, seed = Recipe.from_arguments(arguments.recipe, arguments.model.dtype), arguments.recipe.original_seed
    if arguments.run.dry_run:
        return Trained(recipe.build_model(data.task, seed), None, None, cached=False)
    return _train(arguments, data, training_rows(data.splits), recipe, seed, "training the original")


def get_twins(arguments: Arguments, data: Data) -> list[Trained]:
    """Models that never saw the forget rows: the recipe on the retain rows with other seeds, or given ones."""
    twins = []
    if arguments.recipe.retrain:
        recipe = Recipe.from_arguments(arguments.recipe, arguments.model.dtype)
        for k in range(1, arguments.recipe.retrain + 1):
            title = f"retraining twin {k} of {arguments.recipe.retrain}"
            twin = _train(arguments, data, data.splits.retain, recipe, arguments.recipe.original_seed + k, title)
            twins.append(twin)
    for name in arguments.recipe.reference_model or []:
        twins.append(Trained(load_model(arguments, data.task, name), None, None, cached=False))
    return twins


def score_model(arguments: Arguments, data: Data, model: torch.nn.Module) -> ModelScores:
    """One scoring pass over the reported splits."""
    device = arguments.trainer.device
    return score_splits(
        model.to(device), data.task, data.splits, SCORED, batch_size=arguments.trainer.per_device_eval_batch_size
    )


def make_trainer(arguments: Arguments, data: Data, original: Trained) -> UnlearningTrainer:
    """The method's trainer on the original, with an adapter where one is asked for or given."""
    model, options = original.model, arguments.lora
    if options.use_peft and not lora.is_peft(model):
        model = lora.add_lora(
            model,
            r=options.lora_r,
            alpha=options.lora_alpha,
            dropout=options.lora_dropout,
            target_modules=options.lora_target_modules,
            modules_to_save=options.lora_modules_to_save,
            task_name=data.task.name,
        )
    trainer = get_method(arguments.run.method)(
        model=model, args=arguments.trainer, splits=data.splits, task=data.task, quiet=True
    )
    trainer.add_callback(ProgressBar(f"unlearning ({trainer.method})", ("loss", "forget_loss", "retain_loss")))
    return trainer


def unlearn(arguments: Arguments, data: Data, trainer: UnlearningTrainer) -> Unlearning:
    """Run the method and score the result."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=arguments.trainer.resume_from_checkpoint)
    seconds = time.perf_counter() - start
    model = trainer.accelerator.unwrap_model(trainer.model)
    scores = score_model(arguments, data, model)
    return Unlearning(scores, seconds, trainer.examples, trainer.state.global_step, _peak_memory_mb())


def make_evidence(
    arguments: Arguments,
    data: Data,
    original: Trained,
    before: ModelScores,
    trainer: UnlearningTrainer,
    unlearning: Unlearning,
    twins: list[Trained],
) -> dict[str, Any]:
    """Everything the run can show, in one dict (`evidence.json`)."""
    twin_scores = [score_model(arguments, data, twin.model) for twin in twins]
    made = [twin for twin in twins if twin.seconds is not None]
    counts = list(trainer.model.parameters())
    return build_evidence(
        method={
            "name": trainer.method,
            "paper": trainer.paper,
            "hyperparameters": trainer.hyperparameters(),
        },
        task=data.task.name,
        model={
            "parameters": sum(p.numel() for p in counts),
            "trainable_parameters": sum(p.numel() for p in counts if p.requires_grad),
            "peft": lora.describe(trainer.model) if lora.is_peft(trainer.model) else None,
        },
        data={
            "source": data.source.name,
            "splits": data.report.counts,
            "request": _public_request(arguments, data),
            "forget_digest": data.digest,
        },
        comparison=compare(before, unlearning.scores, twin_scores),
        cost={
            "original_seconds": original.seconds,
            "unlearn_seconds": unlearning.seconds,
            "retrain_seconds": float(np.mean([t.seconds for t in made])) if made else None,
            "unlearn_examples": unlearning.examples,
            "retrain_examples": round(float(np.mean([t.examples for t in made]))) if made else None,
            "steps": unlearning.steps,
            "peak_memory_mb": unlearning.peak_memory_mb,
        },
        environment=environment(seed=arguments.trainer.seed, device=_device_name(arguments.trainer.device)),
        notes=[*data.report.notes, *trainer.notes, *_adapter_notes(arguments, trainer)],
    )


def save(arguments: Arguments, trainer: UnlearningTrainer, evidence: dict[str, Any]) -> None:
    """Write the model (merged, unless the adapter is asked for), its processor, the evidence and the card."""
    if not trainer.is_world_process_zero():
        return
    folder = Path(arguments.trainer.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    keeps_adapter = lora.is_peft(model) and arguments.lora.save_adapter
    if lora.is_peft(model) and not keeps_adapter:
        model = lora.merge(model)
    model.save_pretrained(folder, **lora.save_kwargs(model))
    trainer.processing_class.save_pretrained(folder)
    trainer.state.save_to_json(folder / "trainer_state.json")
    write_json(folder / "evidence.json", evidence)
    library = "peft" if keeps_adapter else "transformers"
    card = render_card(evidence, base_model=_hub_name(arguments.model.model_name_or_path), library_name=library)
    (folder / "README.md").write_text(card, encoding="utf-8")


def print_result(arguments: Arguments, trainer: UnlearningTrainer, evidence: dict[str, Any]) -> None:
    """The table, and where things are."""
    if trainer.is_world_process_zero():
        print(render_table(evidence))
        print(f"\nThe model, evidence.json and the model card are in {arguments.trainer.output_dir}")


def print_plan(arguments: Arguments, data: Data, original: Trained) -> None:
    """What a dry run shows: the splits, the model and the steps; nothing is trained or written."""
    trainer = make_trainer(arguments, data, original)
    if not trainer.is_world_process_zero():
        return
    parameters = list(trainer.model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    print(f"task       {data.task.name} on {data.source.name}")
    print("splits     " + ", ".join(f"{name} {size:,}" for name, size in data.splits.sizes().items()))
    for note in data.report.notes:
        print(f"note       {note}")
    print(f"model      {type(original.model).__name__}, {sum(p.numel() for p in parameters):,} parameters, "
          f"{trainable:,} of them trained")  # fmt: skip
    for phase in trainer.schedule.phases:
        sizes = trainer.stream_sizes()
        rows = " + ".join(f"{sizes[s].batch} {s} rows" for s in phase.streams)
        rate = phase.learning_rate or arguments.trainer.learning_rate
        print(f"phase      {phase.name}: {phase.steps:,} steps of {rows}, learning rate {rate:.2g}")
    for line in trainer.plan():
        print(f"method     {line}")
    print(f"retrain    {arguments.recipe.retrain} twins")
    print(f"output     {arguments.trainer.output_dir} (nothing was written)")


def _train(arguments, data: Data, rows: Rows, recipe: Recipe, seed: int, title: str) -> Trained:
    cache = arguments.recipe.cache_dir
    return train_recipe(
        recipe,
        data.task,
        rows,
        seed,
        fingerprint=data_fingerprint(rows.source.select(rows.indices)),
        cache_dir=Path(cache) if cache else None,
        title=title,
        load_kwargs=load_options(arguments) if recipe.model else None,
    )


def _public_request(arguments: Arguments, data: Data) -> dict[str, Any]:
    public = data.request.public(publish=arguments.request.publish_request, label_column=data.task.columns.get("label"))
    return public | {"rows": len(data.splits.forget)}


def _adapter_notes(arguments: Arguments, trainer: UnlearningTrainer) -> list[str]:
    if not lora.is_peft(trainer.model):
        return []
    if arguments.lora.save_adapter:
        return ["The adapter removes nothing from its base model: whoever switches it off has the forgotten rows back."]
    return ["Unlearned through an adapter, merged into the weights: an adapter alone can be switched off by anyone."]


def _hub_name(name: str | None) -> str | None:
    """A base model as the card may name it: a Hub name, never a local path."""
    return name if name and not Path(name).exists() else None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _peak_memory_mb() -> float:
    """Peak memory of the GPU during unlearning, or of the whole process on a CPU, in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
