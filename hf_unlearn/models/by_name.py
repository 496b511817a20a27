"""Models by name: on the Hub, or a folder; and in one line why one cannot be loaded."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_unlearn.errors import UserError, in_one_line
from hf_unlearn.models import lora
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


def task_by_name(name: str) -> type[Task]:
    """The task that a model's configuration says it is made for, of an adapter its own. Raises `UserError`."""
    from transformers import AutoConfig

    tasks = [get_task(known) for known in task_names()]
    if lora.is_adapter_folder(name):
        from peft import PeftConfig

        kind, problem = PeftConfig.from_pretrained(name).task_type, None
        served = [task for task in tasks if kind and kind == task.peft_task_type]
    else:
        config = AutoConfig.from_pretrained(name)
        kind, problem = next(iter(config.architectures or []), None), config.problem_type
        served = [task for task in tasks if kind and task.serves_class(kind)]
    found = of_problem(served, problem)
    if found is None:
        raise UserError(
            f"{kind or name} belongs to no task that is known (a base without a head?); name one with task=: "
            f"{', '.join(task_names())}"
        )
    return found


def check_place(name: str) -> None:
    """Raises `UserError` for a name that can only be a folder, and is none: the Hub would call it no repository."""
    path = Path(name).expanduser()
    if path.is_file():
        raise UserError(f"{name} is a file; name the folder of a model")
    if name.startswith((".", "/", "~")) and not path.is_dir():
        raise UserError(f"there is no folder {name}; name one, or a model on the Hub")


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
