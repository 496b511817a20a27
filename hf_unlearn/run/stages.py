"""The stages of a run up to its result, in the order `train.py` calls them."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from transformers import PreTrainedModel

from hf_unlearn.data.build import training_rows
from hf_unlearn.data.rows import Rows
from hf_unlearn.data.scored_rows import scored_rows
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.errors import NonFiniteLossError, UserError
from hf_unlearn.evaluation.account import SAID, SCORED, Scored
from hf_unlearn.evaluation.answers import UNLEARNED
from hf_unlearn.evaluation.comparison import ModelScores
from hf_unlearn.evaluation.original_check import check_original
from hf_unlearn.evaluation.references import check_apart, check_reference
from hf_unlearn.evaluation.scoring import score_splits
from hf_unlearn.methods import get_method
from hf_unlearn.models import lora
from hf_unlearn.progress import RowsDone, say
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.loading import build_original, get_recipe, load_model, load_options, merge_unquantized, placed
from hf_unlearn.run.lock import only_run_in
from hf_unlearn.run.nearby import handle_near_duplicates
from hf_unlearn.run.peak_memory import peak_memory_mb
from hf_unlearn.run.recipe import Trained, train_recipe
from hf_unlearn.run.recipe_cache import default_cache_dir
from hf_unlearn.run.rows import Data
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.trainers import handover
from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import KnownRecipe
from hf_unlearn.trainers.known_base import known_base
from hf_unlearn.trainers.pass_clock import PhaseEnds
from hf_unlearn.trainers.progress_bar import ProgressBar


@dataclass
class Unlearning:
    """What the unlearning run left: the model as it is saved, and its cost."""

    model: PreTrainedModel
    seconds: float
    examples: int
    steps: int
    peak_memory_mb: float | None


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


def load_references(arguments: Arguments, data: Data) -> list[Trained]:
    """The retrained models that were given; read whole before anything is trained."""
    names = arguments.recipe.reference_model or []
    return [Trained(load_model(arguments, data.task, name)) for name in names]


def try_references(arguments: Arguments, data: Data) -> None:
    """Read each reference whole before anything is trained; none is kept. Raises `UserError` for a broken one."""
    for name in arguments.recipe.reference_model or []:
        load_model(arguments, data.task, name)


def check_references(arguments: Arguments, data: Data, before: ModelScores) -> list[Trained]:
    """Score the given references, and say what is wrong with them; their models are let go. Raises `UserError` for
    one that is the original."""
    found: dict[str, ModelScores] = {}
    names = arguments.recipe.reference_model or []
    for k, name in enumerate(names, 1):
        reference = load_model(arguments, data.task, name)
        scores = found[f"reference {k}"] = score_model(arguments, data, reference, f"reference {k} of {len(names)}")
        del reference  # before the next one is read
        warn(data, check_reference(before, scores, f"reference {k}"))
    check_apart(found)
    return [Trained(torch.nn.Identity(), scores=scores) for scores in found.values()]


def warn(data: Data, warnings: list[str]) -> None:
    """On the screen and among the notes of the evidence."""
    for warning in warnings:
        say(warning)
    data.report.notes += warnings


def rehearse(arguments: Arguments, data: Data) -> None:
    """Refuse before anything is trained what would be refused after it: folders that cannot be written to, and what
    the method's trainer refuses, which is made once around the recipe's untrained model. Changes `data`."""
    output, model = Path(arguments.trainer.output_dir), data.loaded
    handover.check_room(output, "output_dir", model)
    if arguments.has_recipe and (arguments.recipe.retrain or arguments.model.model_name_or_path is None):
        handover.check_room(cache_folder(arguments), "cache_dir", model)
    if arguments.model.model_name_or_path is not None:
        return  # it is trained by nobody before the trainer is made
    trainer = make_trainer(arguments, data, Trained(model))
    trainer.plan()
    for lens in trainer.active_lenses:
        lens.plan()
    data.model = None


def get_original(arguments: Arguments, data: Data) -> Trained:
    """The model that must forget: the given one, or one made by the recipe."""
    if arguments.model.model_name_or_path is not None:
        return Trained(data.loaded)
    seed = arguments.recipe.original_seed
    return train_by_recipe(arguments, data, training_rows(data.splits), seed, "training the original")


def look_at_original(arguments: Arguments, data: Data, before: ModelScores) -> None:
    """Say where a model that was given does not seem to be one of these rows and labels."""
    if arguments.model.model_name_or_path is not None:
        warn(data, check_original(before))


def look_for_near_duplicates(arguments: Arguments, data: Data, original: Trained) -> None:
    """With `--near_duplicates`: count them, and with `--forget_duplicates` forget them too. Changes `data`."""
    if not arguments.request.near_duplicates:
        return
    say("looking for near duplicates of the forgotten rows")
    data.splits, data.report, read = handle_near_duplicates(
        data.splits,
        data.report,
        data.task,
        placed(original.model, arguments.trainer.device),
        move=arguments.request.forget_duplicates,
        held_out=data.held_out(),
        batch_size=arguments.trainer.per_device_eval_batch_size,
    )
    data.measure_digest()
    data.side_examples += read


def make_twins(arguments: Arguments, data: Data) -> list[Trained]:
    """Models that never saw the forget rows: the recipe on the retain rows with other seeds."""
    return [make_twin(arguments, data, k) for k in range(1, arguments.recipe.retrain + 1)]


def make_twin(arguments: Arguments, data: Data, k: int) -> Trained:
    """The twin with this number, from 1 on."""
    title = f"retraining twin {k} of {arguments.recipe.retrain}"
    return train_by_recipe(arguments, data, data.splits.retain, arguments.twin_seed(k), title)


def score_model(arguments: Arguments, data: Data, model: torch.nn.Module, title: str | None = None) -> ModelScores:
    """One scoring pass over the reported splits; `title` names the model on the screen, and what it answers."""
    if title is not None:
        say(f"scoring {title}")
    model, args = placed(model, arguments.trainer.device), arguments.trainer
    options: dict[str, Any] = {
        "batch_size": args.per_device_eval_batch_size,
        "num_workers": args.dataloader_num_workers,
    }
    splits = scored_splits(arguments, data)
    if title is not None:
        sizes = {id(rows): len(rows) for rows in (getattr(splits, name) for name in SCORED)}  # the same rows run once
        options["progress"] = RowsDone(f"scoring {title}", sum(sizes.values()), args.world_size)
    scores = score_splits(model, data.task, splits, SCORED, said=SAID, **options)
    ask(arguments, data, model, title)
    return scores


def scored_splits(arguments: Arguments, data: Data) -> UnlearningSplits:
    """The rows that models are scored on: samples of large roles, unless `--score_all`."""
    return scored_rows(data.splits, arguments.trainer.seed, every=arguments.trainer.score_all)


def ask(arguments: Arguments, data: Data, model: torch.nn.Module, title: str | None) -> None:
    """With `--generate`: have the model of this title answer."""
    if data.answers is not None and title is not None:
        data.answers.ask(title, model, data.splits, arguments.trainer.per_device_eval_batch_size)


def score_models(
    arguments: Arguments,
    data: Data,
    trainer: UnlearningTrainer,
    before: ModelScores,
    unlearning: Unlearning,
    references: list[Trained],
    also: Callable[[torch.nn.Module], None] | None = None,
) -> tuple[Scored, list[Trained]]:
    """What the evidence compares, and the twins and references without their models: each twin is scored when it is
    made, and let go. The unlearned model's scores go to the log and to every tracker.

    Args:
        also: gets the model of each twin and reference.
    """
    after = score_model(arguments, data, unlearning.model, UNLEARNED)
    trainer.log_scores(after)
    count, twins = arguments.recipe.retrain, []
    for k in range(1, count + 1):
        twin = make_twin(arguments, data, k)
        scores = score_model(arguments, data, twin.model, f"twin {k} of {count}")
        if also is not None:
            also(twin.model)
        twins.append(replace(twin, model=torch.nn.Identity(), scores=scores))
        del twin  # before the next one is made
    for name in arguments.recipe.reference_model or []:
        if also is not None:
            also(load_model(arguments, data.task, name))
    twins += references
    return Scored(before, after, [twin.scores for twin in twins if twin.scores is not None]), twins


def make_trainer(arguments: Arguments, data: Data, original: Trained) -> UnlearningTrainer:
    """The method's trainer on the original, with an adapter where one is asked for or given."""
    recipe = _known_recipe(arguments, data, original.model)
    model = _with_adapter(arguments, data.task, original.model)
    method = get_method(arguments.run.method)
    AcceleratorState._reset_state()  # the training before has settled it, mixed precision included, for its own run
    try:
        trainer = method(
            model=model,
            args=arguments.trainer,
            splits=data.splits,
            task=data.task,
            quiet=True,
            recipe=recipe,
        )
    except (ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the training arguments are refused by transformers: {reason}") from error
    phases = [(phase.name, phase.steps) for phase in trainer.schedule.phases]
    shown = ("loss", "forget_loss", "retain_loss")
    trainer.add_callback(ProgressBar(f"unlearning ({trainer.method})", shown, phases))
    if trainer.schedule.in_stages:
        trainer.add_callback(PhaseEnds([phase.steps for phase in trainer.schedule.phases]))
    trainer.side_progress = ProgressBar
    trainer.forget_digest = data.digest
    return trainer


def _known_recipe(arguments: Arguments, data: Data, model: torch.nn.Module) -> KnownRecipe | None:
    """How the original was made: by the recipe, or from the base that the user, its adapter or its card names."""
    if arguments.has_recipe:
        recipe = get_recipe(arguments)
        start = partial(build_original, arguments, recipe, data.task)  # (seed) -> model
        rate, base = recipe.learning_rate, bool(recipe.model)
        return KnownRecipe(start, recipe.num_train_epochs, rate, adapter=recipe.use_peft, pretrained=base)
    given = arguments.model
    options = {"dtype": given.dtype, **load_options(arguments)}
    known, notes = known_base(data.task, model, given.base_model, given.model_name_or_path, **options)
    data.report.notes += [note for note in notes if note not in data.report.notes]
    return known


def _with_adapter(arguments: Arguments, task: Task, model: torch.nn.Module) -> torch.nn.Module:
    options = arguments.lora
    if getattr(unwrap(model), "is_quantized", False) and arguments.quantized is None:  # it was saved like that
        if not (options.use_peft or lora.is_peft(model)):
            raise UserError("the model's weights are quantized and cannot be trained: add --use_peft --save_adapter")
        if not options.save_adapter:
            raise UserError("the base is quantized, so no adapter can be merged into it: add --save_adapter")
    if options.save_adapter and not (options.use_peft or lora.is_peft(model)):
        raise UserError("--save_adapter: there is no adapter; add one with --use_peft, or give a model that has one")
    if not options.use_peft or lora.is_peft(model):
        return model
    return lora.add_lora(
        unwrap(model),
        r=options.lora_r,
        alpha=options.lora_alpha,
        dropout=options.lora_dropout,
        target_modules=options.lora_target_modules,
        modules_to_save=options.lora_modules_to_save,
        task_type=task.peft_task_type,
        seed=arguments.trainer.seed,
    )


def unlearn(arguments: Arguments, data: Data, trainer: UnlearningTrainer) -> Unlearning:
    """Run the method."""
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
    peak, examples = peak_memory_mb(), trainer.examples + data.side_examples
    trainer.release()  # twins are trained next
    if arguments.lora.merge_unquantized:
        model = merge_unquantized(arguments, data.task, trainer.accelerator.unwrap_model(trainer.model))
    else:
        model = handover.final_model(trainer, save_adapter=arguments.lora.save_adapter)
    return Unlearning(model, seconds, examples, trainer.state.global_step, peak)


def train_by_recipe(arguments: Arguments, data: Data, rows: Rows, seed: int, title: str) -> Trained:
    """The recipe on `rows`, or what it gave the last time; `title` names it on the screen."""
    recipe = get_recipe(arguments)
    AcceleratorState._reset_state()  # a method trains in a precision of its own; the recipe's runs are all alike
    trained = train_recipe(
        recipe,
        data.task,
        rows,
        seed,
        cache_dir=cache_folder(arguments),
        title=title,
        load_kwargs=load_options(arguments) if recipe.model else None,
        use_cpu=arguments.trainer.use_cpu,
    )
    if trained.cached:
        say(f"{title}: done before, taken from the cache")
    return trained


def cache_folder(arguments: Arguments) -> Path:
    """Where originals and twins are kept."""
    return Path(arguments.recipe.cache_dir) if arguments.recipe.cache_dir else default_cache_dir()
