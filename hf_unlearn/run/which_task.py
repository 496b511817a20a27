"""Which task a run is about, where nobody says it: the model's head tells, and without a model the columns do."""

from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.loading import head_of
from hf_unlearn.tasks import get_task, task_names


def which_task(arguments: Arguments, source: Source) -> str:
    """Its name, as [`get_task`] takes it. Raises `UserError` where neither model nor columns tell."""
    named = arguments.data.task or source.task
    if named:
        return named
    choice = f"name one of {', '.join(task_names())}"
    if arguments.model.model_name_or_path is not None:
        architecture, kind = head_of(arguments, arguments.model.model_name_or_path)
        for name in task_names():
            task = get_task(name)
            if (architecture and task.serves_class(architecture)) or (kind and kind == task.peft_task_type):
                return name
        what = f"{architecture or 'the model'} is made for none that is known"
        raise UserError(f"no --task, and {what}; {choice}")
    for name in task_names():
        try:
            get_task(name).detect_columns(source.train.column_names, source.train.features, arguments.data.columns)
            return name
        except UserError:
            continue
    raise UserError(f"no --task, and the columns ({', '.join(source.train.column_names)}) do not tell; {choice}")
