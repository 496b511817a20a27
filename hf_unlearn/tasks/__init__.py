"""The tasks by name. Each is one class in one file, imported when it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

from hf_unlearn.errors import UserError

if TYPE_CHECKING:
    from hf_unlearn.tasks.base import Task

_TASKS = {
    "image_classification": "ImageClassification",
    "text_classification": "TextClassification",
    "causal_lm": "CausalLM",
}
TASK_NAMES: tuple[str, ...] = tuple(_TASKS)


def get_task(name: str) -> "type[Task]":
    """The class of a task: one of `TASK_NAMES`, `-` for `_` allowed. Raises `UserError` for any other name."""
    key = name.replace("-", "_")
    if key not in _TASKS:
        raise UserError(f"unknown task {name!r}: the tasks are {', '.join(TASK_NAMES)}")
    return getattr(import_module(f"hf_unlearn.tasks.{key}"), _TASKS[key])
