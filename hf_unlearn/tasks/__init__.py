"""The tasks by name. Each is one class in one file, imported when it is asked for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_unlearn.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from hf_unlearn.tasks.base import Task

TASKS = {
    "image_classification": "hf_unlearn.tasks.image_classification:ImageClassification",
    "text_classification": "hf_unlearn.tasks.text_classification:TextClassification",
    "multilabel_text_classification": "hf_unlearn.tasks.multilabel_text_classification:MultilabelTextClassification",
    "causal_lm": "hf_unlearn.tasks.causal_lm:CausalLM",
}
_REGISTRY = Registry("task", TASKS, "hf_unlearn.tasks.base:Task")


def get_task(task: "str | type[Task]") -> "type[Task]":
    """The class of a task: by its name (`-` for `_` allowed), as `module:Class`, or as it is. Raises `UserError`."""
    if isinstance(task, str) and ":" not in task:
        task = task.replace("-", "_")
    return _REGISTRY.get(task)


def task_names() -> list[str]:
    """Names of all tasks, those of installed packages included."""
    return _REGISTRY.names()


def task_for(model: "nn.Module") -> "type[Task] | None":
    """The task that a model's class is made for; `None` where it is none of those that are known."""
    from hf_unlearn.tasks.forward import unwrap

    found = [task for task in map(get_task, task_names()) if task.serves(model)]
    return of_problem(found, getattr(getattr(unwrap(model), "config", None), "problem_type", None))


def of_problem(tasks: Sequence["type[Task]"], problem_type: str | None) -> "type[Task] | None":
    """Of tasks that a model's class serves the one of its `problem_type`; where none has that, the first."""
    same = [task for task in tasks if task.problem_type == problem_type]
    return next(iter([*same, *tasks]), None)
