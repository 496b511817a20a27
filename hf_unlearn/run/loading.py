"""Models and processors that were made elsewhere, from the Hub or a folder."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError, in_one_line
from hf_unlearn.models import lora
from hf_unlearn.models.weights import load_weights
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.recipe import Recipe
from hf_unlearn.tasks.base import Task


def load_model(arguments: Arguments, task: Task, name: str):
    """A model, or a model with its adapter. Raises `UserError` if it cannot be loaded or does not fit the data."""
    check_place(name)
    options = {"dtype": arguments.model.dtype, **load_options(arguments, name)}
    with _said_in_one_line(name):
        if lora.is_adapter_folder(name):
            labels = {"num_labels": len(task.label_names)} if task.label_names else {}
            model = lora.load_adapter_model(name, task.auto_model(), **labels, **options)
        else:
            model = load_weights(task.auto_model(), name, **options)
    task.prepare_model(model)
    return model


def load_options(arguments: Arguments, name: str | None = None) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained`; the revision is that of the model that must forget, and of no other."""
    model = arguments.model
    options: dict[str, Any] = {"trust_remote_code": model.trust_remote_code}
    if name is not None and name == model.model_name_or_path:
        options["revision"] = model.model_revision
    if model.attn_implementation:
        options["attn_implementation"] = model.attn_implementation
    return options


def check_place(name: str) -> None:
    """Raises `UserError` for a name that can only be a folder, and is none: the Hub would call it no repository."""
    path = Path(name).expanduser()
    if path.is_file():
        raise UserError(f"{name} is a file; name the folder of a model")
    if name.startswith((".", "/", "~")) and not path.is_dir():
        raise UserError(f"there is no folder {name}; name one, or a model on the Hub")


def check_exists(arguments: Arguments, name: str) -> None:
    """Raises `UserError` if there is no model of this name; reads its configuration only."""
    check_place(name)
    with _said_in_one_line(name):
        if not lora.is_adapter_folder(name):
            _load_config(arguments, name)


def load_label2id(arguments: Arguments) -> dict[str, int] | None:
    """The classes of the given model, where it has some of its own."""
    name = arguments.model.model_name_or_path
    if name is None:
        return None
    with _said_in_one_line(name):
        return None if lora.is_adapter_folder(name) else _load_config(arguments, name).label2id


def load_processor(arguments: Arguments, source: Source, task_class: type[Task]):
    """The tokenizer or image processor: the one named, or that of the given model, of the recipe's base, or of the
    built-in data. Raises `UserError` if there is none."""
    model = arguments.model
    named = model.processor_name_or_path
    name = named or model.model_name_or_path or arguments.recipe.original_model
    if name is not None:
        options: dict[str, Any] = {"trust_remote_code": model.trust_remote_code}
        if name == model.model_name_or_path:
            options["revision"] = model.model_revision
        with _said_in_one_line(name):
            if not named and lora.is_adapter_folder(name):
                return _adapters_processor(name, task_class, options)
            return task_class.load_processor(name, **options)
    if source.make_processor is None:
        raise UserError(
            "a model from scratch needs a tokenizer or image processor: name one with --processor_name_or_path, or a "
            "base model with --original_model (built-in data sets bring their own)"
        )
    return source.make_processor()


def get_recipe(arguments: Arguments) -> Recipe:
    """The recipe that the arguments describe. Raises `UserError` where they contradict each other."""
    return Recipe.from_arguments(arguments.recipe, arguments.model.dtype)


def build_original(arguments: Arguments, recipe: Recipe, task: Task, seed: int):
    """The recipe's model before its first step. Raises `UserError` if it cannot be made."""
    with _said_in_one_line(recipe.model or recipe.model_type):
        return recipe.build_model(task, seed, **(load_options(arguments) if recipe.model else {}))


def _load_config(arguments: Arguments, name: str):
    from transformers import AutoConfig

    options = load_options(arguments, name)
    options.pop("attn_implementation", None)
    return AutoConfig.from_pretrained(name, **options)


def _adapters_processor(name: str, task_class: type[Task], options: dict[str, Any]):
    """An adapter's own processor, or, where it was saved without one, that of its base."""
    from peft import PeftConfig

    try:
        return task_class.load_processor(name, **options)
    except UserError:
        base = PeftConfig.from_pretrained(name, revision=options.pop("revision")).base_model_name_or_path
        return task_class.load_processor(base, **options)


@contextmanager
def _said_in_one_line(name: str):
    """Turns what `transformers` raises for a model it cannot load or make into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # configurations, weights and code of others raise anything
        raise UserError(f"model '{name}' cannot be loaded: {in_one_line(error)}") from error
