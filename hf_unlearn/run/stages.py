"""The stages of a run up to its result, in the order `train.py` calls them."""

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

from hf_unlearn.data.build import training_rows
from hf_unlearn.data.content import data_fingerprint
from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import NonFiniteLossError, UserError
from hf_unlearn.evaluation.account import SCORED
from hf_unlearn.evaluation.comparison import ModelScores
from hf_unlearn.evaluation.scoring import score_splits
from hf_unlearn.methods import get_method
from hf_unlearn.models import lora
from hf_unlearn.progress import ProgressBar, say
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.loading import build_original, get_recipe, load_model, load_options
from hf_unlearn.run.lock import only_run_in
from hf_unlearn.run.nearby import handle_near_duplicates
from hf_unlearn.run.recipe import Trained, train_recipe
from hf_unlearn.run.rows import Data
from hf_unlearn.tasks.base import Task
from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import KnownRecipe
from hf_unlearn.trainers.pass_clock import PhaseEnds


@dataclass
class Unlearning:
    """What the unlearning run left: the model, its scores, its cost."""

    scores: ModelScores
    seconds: float
    examples: int
    steps: int
    peak_memory_mb: float


@contextmanager
def nothing_left_behind(arguments: Arguments) -> Iterator[None]:
    """Around a whole run: an output folder that is still empty at the end, after an error or a dry run, is removed."""
    output = Path(arguments.trainer.output_dir).absolute()
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    is_first = int(os.environ.get("RANK", 0)) == 0
    try:
        with only_run_in(output) if is_first and not arguments.run.dry_run else nullcontext():
            yield
    finally:
        if is_first:
            for folder in made:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def get_original(arguments: Arguments, data: Data) -> Trained:
    """The model that must forget: the given one, or one made by the recipe (in a dry run its start, untrained)."""
    if arguments.model.model_name_or_path is not None or arguments.run.dry_run:
        return Trained(data.model, None, None, cached=False)
    seed = arguments.recipe.original_seed
    return train_by_recipe(arguments, data, training_rows(data.splits), seed, "training the original")


def look_for_near_duplicates(arguments: Arguments, data: Data, original: Trained) -> None:
    """With `--near_duplicates`: count them, and with `--forget_duplicates` forget them too. Changes `data`."""
    if not arguments.request.near_duplicates or arguments.run.dry_run:
        return
    say("looking for near duplicates of the forgotten rows")
    splits = data.splits
    data.splits, data.report = handle_near_duplicates(
        splits,
        data.report,
        data.task,
        original.model.to(arguments.trainer.device),
        move=arguments.request.forget_duplicates,
        batch_size=arguments.trainer.per_device_eval_batch_size,
    )
    data.measure_digest()
    data.side_examples += sum(
        len(rows) for rows in (splits.forget, splits.retain, splits.validation_tau, splits.validation_stop)
    )


def get_twins(arguments: Arguments, data: Data) -> list[Trained]:
    """Models that never saw the forget rows: the recipe on the retain rows with other seeds, or given ones."""
    twins = []
    for k in range(1, arguments.recipe.retrain + 1):
        title = f"retraining twin {k} of {arguments.recipe.retrain}"
        twins.append(train_by_recipe(arguments, data, data.splits.retain, arguments.recipe.original_seed + k, title))
    for name in arguments.recipe.reference_model or []:
        twins.append(Trained(load_model(arguments, data.task, name), None, None, cached=False))
    return twins


def score_model(arguments: Arguments, data: Data, model: torch.nn.Module, title: str | None = None) -> ModelScores:
    """One scoring pass over the reported splits; `title` names the model on the screen."""
    if title is not None:
        say(f"scoring {title}")
    device = arguments.trainer.device
    return score_splits(
        model.to(device), data.task, data.splits, SCORED, batch_size=arguments.trainer.per_device_eval_batch_size
    )


def make_trainer(arguments: Arguments, data: Data, original: Trained) -> UnlearningTrainer:
    """The method's trainer on the original, with an adapter where one is asked for or given."""
    model = _with_adapter(arguments, data.task, original.model)
    method = get_method(arguments.run.method)
    AcceleratorState._reset_state()  # training the original has settled it, mixed precision included, for its own run
    try:
        trainer = method(
            model=model,
            args=arguments.trainer,
            splits=data.splits,
            task=data.task,
            quiet=True,
            recipe=_known_recipe(arguments, data.task),
        )
    except (ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the training arguments are refused by transformers: {reason}") from error
    trainer.add_callback(ProgressBar(f"unlearning ({trainer.method})", ("loss", "forget_loss", "retain_loss")))
    if trainer.schedule.in_stages:
        trainer.add_callback(PhaseEnds([phase.steps for phase in trainer.schedule.phases]))
    trainer.side_progress = ProgressBar
    trainer.forget_digest = data.digest
    return trainer


def _known_recipe(arguments: Arguments, task: Task) -> KnownRecipe | None:
    if not arguments.has_recipe:
        return None
    recipe = get_recipe(arguments)
    start = partial(build_original, arguments, recipe, task)  # (seed) -> model
    return KnownRecipe(start, recipe.num_train_epochs, recipe.learning_rate)


def _with_adapter(arguments: Arguments, task: Task, model: torch.nn.Module) -> torch.nn.Module:
    options = arguments.lora
    if options.save_adapter and not (options.use_peft or lora.is_peft(model)):
        raise UserError("--save_adapter: there is no adapter; add one with --use_peft, or give a model that has one")
    if not options.use_peft or lora.is_peft(model):
        return model
    return lora.add_lora(
        model,
        r=options.lora_r,
        alpha=options.lora_alpha,
        dropout=options.lora_dropout,
        target_modules=options.lora_target_modules,
        modules_to_save=options.lora_modules_to_save,
        task_type=task.peft_task_type,
    )


def unlearn(arguments: Arguments, data: Data, trainer: UnlearningTrainer) -> Unlearning:
    """Run the method and score the result."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=arguments.trainer.resume_from_checkpoint)
    except NonFiniteLossError as error:
        kept = Path(arguments.trainer.output_dir) / f"checkpoint-{trainer.state.global_step}"
        where = f"; the last good step is kept in {kept.name} of the output folder" if kept.is_dir() else ""
        raise NonFiniteLossError(f"{error}{where}") from None
    seconds = time.perf_counter() - start
    model = trainer.accelerator.unwrap_model(trainer.model)
    scores = score_model(arguments, data, model, "the unlearned model")
    trainer.log_scores(scores)
    examples = trainer.examples + data.side_examples
    return Unlearning(scores, seconds, examples, trainer.state.global_step, _peak_memory_mb())


def train_by_recipe(arguments: Arguments, data: Data, rows: Rows, seed: int, title: str) -> Trained:
    """The recipe on `rows`, or what it gave the last time; `title` names it on the screen."""
    recipe, cache = get_recipe(arguments), arguments.recipe.cache_dir
    trained = train_recipe(
        recipe,
        data.task,
        rows,
        seed,
        fingerprint=data_fingerprint(rows.source.select(rows.indices)),
        cache_dir=Path(cache) if cache else None,
        title=title,
        load_kwargs=load_options(arguments) if recipe.model else None,
        use_cpu=arguments.trainer.use_cpu,
    )
    if trained.cached:
        say(f"{title}: done before, taken from the cache")
    return trained


def _peak_memory_mb() -> float:
    """Peak memory of the GPU during unlearning, or of the whole process on a CPU, in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
