"""A request in words: the model is asked, its answers are shown, and what is confirmed becomes the forget rows."""

import sys

import torch

from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.data.sources import Source, join_forget_retain
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.own_answers import ask_model, prompt_rows
from hf_unlearn.progress import say
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.loading import load_model, placed
from hf_unlearn.tasks.base import Task


def ask_for_answers(arguments: Arguments, source: Source, request: ForgetRequest, task: Task) -> torch.nn.Module:
    """The model that was asked; its answers stand before the kept rows in `source.train`, and in the request.

    Raises `UserError` where there is no model to ask, and where nobody confirms.
    """
    name, asked = arguments.model.model_name_or_path, arguments.request
    if not task.generates:
        raise UserError(f"--forget_prompt asks a language model; the task is {task.name}: name rows, or classes")
    if name is None:
        raise UserError("--forget_prompt asks the model that must forget: name it with --model_name_or_path")
    model = load_model(arguments, task, name)
    pairs = ask_model(placed(model, arguments.trainer.device), task, source.train, asked.forget_prompt or [])
    lines = ["this must be forgotten, in the model's own words:"]
    lines += [f"  {prompt}  →  {answer}" for prompt, answer in pairs]
    if asked.yes or arguments.run.dry_run:
        for line in lines:
            say(line)
    else:
        _confirm(lines)
    source.train, request.rows = join_forget_retain(prompt_rows(task, source.train, pairs), source.train)
    return model


def _confirm(lines: list[str]) -> None:
    """Raises `UserError` unless somebody at a terminal says yes."""
    if not sys.stdin.isatty():
        raise UserError(
            "--forget_prompt: nobody is there to confirm; look at the answers with --dry_run, then add --yes"
        )
    print("\n".join(lines))
    if input("Forget these answers? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("--forget_prompt: not confirmed; nothing was done")
