"""Which task a run is about, where nobody says it: the model's head tells, and without a model the columns do."""

from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.loading import head_of_given
from hf_unlearn.tasks import get_task, of_problem, task_names
from hf_unlearn.tasks.base import Task


def which_task(arguments: Arguments, source: Source) -> str:
    """Its name, as [`get_task`] takes it. Raises `UserError` where neither model nor columns tell."""
    named = arguments.data.task or source.task
    if named:
        return named
    if arguments.data.label_columns:
        return next(name for name in task_names() if get_task(name).has_label_sets)
    choice = f"name one of {', '.join(task_names())}"
    if (head := head_of_given(arguments)) is not None:
        served = head.tasks()
        if head.problem is None:  # several tasks may share a head; then the columns tell
            served = [task for task in served if _has_columns(task, arguments, source)] or served
        if found := of_problem(served, head.problem):
            return next(name for name in task_names() if get_task(name) is found)
        raise UserError(f"no --task, and {head} is made for none that is known (a base without a head?); {choice}")
    for name in task_names():
        if _has_columns(get_task(name), arguments, source):
            return name
    raise UserError(f"no --task, and the columns ({', '.join(source.train.column_names)}) do not tell; {choice}")


def _has_columns(task: type[Task], arguments: Arguments, source: Source) -> bool:
    try:
        task.detect_columns(source.train.column_names, source.train.features, arguments.data.columns)
    except UserError:
        return False
    return True
