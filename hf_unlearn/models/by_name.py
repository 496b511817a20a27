"""Models by name: on the Hub, or a folder; and in one line why one cannot be loaded."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_unlearn.errors import UserError, in_one_line
from hf_unlearn.models import lora
from hf_unlearn.models.places import check_place
from hf_unlearn.models.weights import load_weights
from hf_unlearn.tasks import get_task, of_problem, task_names
from hf_unlearn.tasks.base import Task


def load_by_name(name: str, task: type[Task] | None = None) -> Any:
    """A model, or a model with its adapter; `task` by default what its configuration says it is made for.

    Raises `UserError` if it cannot be loaded, or is made for no task that is known.
    """
    check_place(name)
    with said_in_one_line(name):
        task = task or task_by_name(name)
        auto_model = task.auto_model()
        return (
            lora.load_adapter_model(name, auto_model)
            if lora.is_adapter_folder(name)
            else load_weights(auto_model, name)
        )


@dataclass(frozen=True)
class Head:
    """What a configuration says that its model is made for.

    Args:
        architecture: the model's class; `None` where it names none, and of an adapter.
        problem: the problem type.
        adapter: of an adapter its task type.
    """

    architecture: str | None = None
    problem: str | None = None
    adapter: str | None = None

    def __str__(self) -> str:
        return self.architecture or self.adapter or "the model"

    def tasks(self) -> list[type[Task]]:
        """All that a model with it serves; several tasks may share a head."""
        return [task for task in map(get_task, task_names()) if self._is_of(task)]

    def _is_of(self, task: type[Task]) -> bool:
        if self.adapter:
            return self.adapter == task.peft_task_type
        return bool(self.architecture) and task.serves_class(str(self.architecture))


def head_of(name: str, **options: Any) -> Head:
    """The head of a model, or of an adapter; no weights are read. Raises `UserError` if there is none of this name.

    Args:
        options: for the configuration's `from_pretrained`.
    """
    check_place(name)
    with said_in_one_line(name):
        if lora.is_adapter_folder(name):
            from peft import PeftConfig

            return Head(adapter=PeftConfig.from_pretrained(name).task_type)
        config = Task.load_config(name, **options)
        return Head(next(iter(getattr(config, "architectures", None) or []), None), config.problem_type)


def task_by_name(name: str) -> type[Task]:
    """The task that a model is made for, by its head alone. Raises `UserError`."""
    head = head_of(name)
    found = of_problem(head.tasks(), head.problem)
    if found is None:
        raise UserError(
            f"{head} belongs to no task that is known (a base without a head?); name one with task=: "
            f"{', '.join(task_names())}"
        )
    return found


@contextmanager
def said_in_one_line(name: str):
    """Turns what `transformers` raises for a model it cannot load or make into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # configurations, weights and code of others raise anything
        raise UserError(f"model '{name}' cannot be loaded: {cause(name, error)}") from error


def cause(name: str, error: Exception) -> str:
    """Why a model cannot be loaded, with the mend where it is known."""
    folder, said = Path(name).expanduser(), in_one_line(error)
    if not folder.is_dir():
        there = "it is no folder here, and there is no such model on the Hub, or the Hub cannot be reached"
        return f"{there} ({said})" if _asks_hub(error) else said
    if not any((folder / file).exists() for file in ("config.json", "adapter_config.json", "model_index.json")):
        within = sorted(path.parent for path in folder.glob("*/config.json"))
        mend = f"there is one in {within[-1]}" if within else "name the folder that save_pretrained wrote"
        return f"there is no config.json in it; {mend}"
    if type(error).__name__ == "SafetensorError":
        return f"a file of weights is cut off or damaged; copy or save it again ({said})"
    return said


def _asks_hub(error: Exception) -> bool:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    return isinstance(error, OSError | HfHubHTTPError | HFValidationError | LocalEntryNotFoundError)
