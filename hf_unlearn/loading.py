"""Models and processors that were made elsewhere, from the Hub or a folder."""

from typing import Any

from hf_unlearn import lora
from hf_unlearn.arguments import Arguments
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError
from hf_unlearn.tasks.base import Task


def load_model(arguments: Arguments, task: Task, name: str):
    """A model, or a model with its adapter. Raises `UserError` if it cannot be loaded or does not fit the data."""
    options = {"dtype": arguments.model.dtype, **load_options(arguments)}
    with _said_in_one_line(name):
        if lora.is_adapter_folder(name):
            labels = {"num_labels": len(task.label_names)} if task.label_names else {}
            model = lora.load_adapter_model(name, task.auto_model(), **labels, **options)
        else:
            model = task.auto_model().from_pretrained(name, **options)
    task.prepare_model(model)
    return model


def load_options(arguments: Arguments) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained`."""
    model = arguments.model
    options = {"revision": model.model_revision, "trust_remote_code": model.trust_remote_code}
    if model.attn_implementation:
        options["attn_implementation"] = model.attn_implementation
    return options


def load_label2id(arguments: Arguments) -> dict[str, int] | None:
    """The classes of the given model, where it has some of its own."""
    name = arguments.model.model_name_or_path
    if name is None or lora.is_adapter_folder(name):
        return None
    from transformers import AutoConfig

    model = arguments.model
    with _said_in_one_line(name):
        config = AutoConfig.from_pretrained(
            name, revision=model.model_revision, trust_remote_code=model.trust_remote_code
        )
    return config.label2id


def load_processor(arguments: Arguments, source: Source, task_class: type[Task]):
    """The tokenizer or image processor of the given model, of the recipe's base, or of the built-in data."""
    name = arguments.model.model_name_or_path or arguments.recipe.original_model
    if name is not None:
        return task_class.load_processor(name, trust_remote_code=arguments.model.trust_remote_code)
    if source.make_processor is None:
        raise UserError(
            "a model from scratch needs a built-in data set, which brings its tokenizer or image processor; for your "
            "own data name a base model with --original_model"
        )
    return source.make_processor()


class _said_in_one_line:  # noqa: N801
    """Turns what `from_pretrained` raises for a name it cannot load into a `UserError`."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, (OSError, ValueError, KeyError)):
            raise UserError(f"model '{self.name}' cannot be loaded: {str(error).splitlines()[0]}") from error
