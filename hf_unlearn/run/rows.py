"""The first stage of a command: its arguments name rows and a request, and every row gets its role."""

from dataclasses import dataclass

import numpy as np
import torch

from hf_unlearn.data import tofu
from hf_unlearn.data.prepare import Prepared, prepare
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.data.sources import Source, join_forget_retain, load_files, load_source
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.answers import Answers, Shown
from hf_unlearn.evaluation.own_answers import NO_REACH
from hf_unlearn.progress import say
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.asking import ask_for_answers
from hf_unlearn.run.in_force import in_force
from hf_unlearn.run.loading import build_start, check_exists, get_recipe, load_label2id, load_model, load_processor
from hf_unlearn.run.recipe import check_batch
from hf_unlearn.run.which_task import which_task
from hf_unlearn.tasks import get_task
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.causal_lm import CHAT


@dataclass
class Data(Prepared):
    """Rows in their roles, and what is known about them.

    Args:
        model: the one given by the user; without one the recipe's start, untrained: built to be looked at, so that
            nothing is refused after hours of training.
        side_examples: rows read before the unlearning, for its sake.
        answers: with `--generate`, what each model answers, or draws, when it is scored.
    """

    model: torch.nn.Module | None = None
    side_examples: int = 0
    answers: Shown | None = None

    @property
    def loaded(self) -> torch.nn.Module:
        """The model, where there still is one."""
        assert self.model is not None
        return self.model


def prepare_data(arguments: Arguments) -> Data:
    """Load rows and the given model, resolve the request and give every row its role. Nothing is written."""
    say(f"processes  {in_force(arguments.trainer)}")
    say("reading the rows")
    source, request = load_rows(arguments)
    task_class = get_task(which_task(arguments, source))
    given, models, noted = arguments.model.model_name_or_path, [], []

    def make_task(columns: dict[str, str], label_names: list[str] | None) -> Task:
        return make_task_of(arguments, source, task_class, columns, label_names)

    if arguments.request.forget_prompt:
        chosen = task_class.detect_columns(source.train.column_names, source.train.features, arguments.data.columns)
        models.append(ask_for_answers(arguments, source, request, make_task(chosen, None)))
        noted.append(NO_REACH)

    def settle_model(task: Task) -> None:
        seed = arguments.recipe.original_seed
        if models:
            task.prepare_model(models[0])
        else:
            models.append(load_model(arguments, task, given) if given else build_start(arguments, task, seed))
        for name in _used_later(arguments):
            check_exists(arguments, name, task_class, models[0])

    prepared = prepare(
        source,
        request,
        task_class,
        make_task=make_task,
        settle_model=settle_model,
        trains_original=given is None,
        seed=arguments.trainer.seed,
        split_seed=arguments.split_seed,
        columns=arguments.data.columns,
        label2id=load_label2id(arguments, task_class) if task_class.has_labels() else None,
        forget_duplicates=arguments.request.forget_duplicates,
        cache_rows=arguments.data.cache_rows,
        max_train_rows=arguments.data.max_train_rows,
    )
    _check_batches(arguments, prepared)
    data = Data(**vars(prepared), model=models[0])
    data.report.notes += noted
    if arguments.run.generate:
        most, seed = arguments.run.generate, arguments.trainer.seed
        data.answers = data.task.asked_things(most, seed) or Answers(data.task, most, seed)
    if arguments.model.attn_implementation is None and arguments.model.dtype in ("float32", "float64"):
        data.task.try_model(models[0], data.splits.retain[0])  # other kinds may need the accelerator
    if not arguments.run.dry_run:  # it would make the user's key
        data.measure_digest()
    return data


def _check_batches(arguments: Arguments, prepared: Prepared) -> None:
    """Raises `UserError` where the original or a twin, which is trained after everything else, has too few rows."""
    splits, recipe = prepared.splits, arguments.recipe
    if arguments.has_recipe and arguments.model.model_name_or_path is None:
        check_batch(get_recipe(arguments), len(splits.forget) + len(splits.retain))
    if arguments.has_recipe and recipe.retrain:
        check_batch(get_recipe(arguments), len(splits.retain))


def load_rows(arguments: Arguments) -> tuple[Source, ForgetRequest]:
    """The rows as they are, those of the request among them, and the request."""
    asked = arguments.request
    apart = asked.forget_dataset or asked.forget_file or asked.forget_prompt
    request = ForgetRequest(
        classes=asked.forget_classes,
        fraction=asked.forget_fraction,
        group_column=asked.group_column,
        ids_file=asked.forget_ids,
        id_column=asked.id_column,
        where=asked.forget_where,
        rows=np.zeros(0, dtype=np.int64) if apart or asked.forget_split else None,
        seed=arguments.trainer.seed,
    )
    source, forgotten = load_raw(arguments)
    if forgotten is not None:
        request.rows = forgotten
    if apart and not asked.forget_prompt:
        forget = (
            load_files(asked.forget_file)
            if asked.forget_file
            else _load_dataset(arguments, asked.forget_dataset or "")
        )
        source.train, request.rows = join_forget_retain(forget.train, source.train)
    return source, request


def _load_dataset(arguments: Arguments, name: str) -> Source:
    return load_source(name, train_split=arguments.data.train_split, task=arguments.data.task)


def load_raw(arguments: Arguments) -> tuple[Source, np.ndarray | None]:
    """The rows, and the places of those to forget where the data says itself which they are."""
    data, forget_split = arguments.data, arguments.request.forget_split
    named = {"validation_split": data.validation_split, "test_split": data.test_split}
    if train := data.train_file or data.retain_file:
        return load_files(train, data.validation_file, data.test_file), None
    if data.dataset_name == tofu.NAME or forget_split:
        if data.task and get_task(data.task).name != "causal_lm":
            raise UserError(f"--task is {data.task}, and TOFU is made for causal_lm; leave it out")
        trains_original = arguments.model.model_name_or_path is None
        seed = arguments.split_seed
        return tofu.load_tofu(
            data.dataset_name or "", forget_split, trains_original=trains_original, seed=seed, **named
        )
    source = load_source(
        data.dataset_name or "",
        config_name=data.dataset_config_name,
        train_split=data.train_split,
        seed=arguments.split_seed,
        task=data.task and get_task(data.task).name,
        **named,
    )
    return source, None


def make_task_of(arguments: Arguments, source: Source, task_class: type[Task], columns, label_names) -> Task:
    """The task with its processor and the options that the arguments name."""
    data = arguments.data
    usual = {"prompt_template": None, "supervise": "all"}
    options = {name: getattr(data, name) for name, value in usual.items() if getattr(data, name) != value}
    if options and not task_class.has_prompts:
        raise UserError(f"--{next(iter(options))} is for tasks with prompts; {task_class.name} has none")
    processor = load_processor(arguments, source, task_class)
    task = task_class(processor, columns, label_names=label_names, max_length=data.max_length, **options)
    if data.prompt_template is None and "question" in columns and getattr(task, "prompt_template", None) == CHAT:
        say("questions go through the tokenizer's chat template (--prompt_template names another)")
    return task


def _used_later(arguments: Arguments) -> list[str]:
    """Names of models that are loaded after something was trained."""
    later = list(arguments.recipe.reference_model or [])
    if arguments.recipe.retrain and arguments.recipe.original_model:
        later.append(arguments.recipe.original_model)
    return later
