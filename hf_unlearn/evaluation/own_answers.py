"""A request in words: what a language model itself answers to prompts, as rows that must be forgotten."""

from collections.abc import Sequence
from typing import Any

import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.generation import generate
from hf_unlearn.tasks.base import Task

ANSWER_TOKENS = 64
NO_REACH = (
    "The request is what the model answered to the prompts. It does not reach other facts about the same subject, "
    "other wordings, other languages, or kept rows that say the same: ask for those too, or give the rows."
)


def prompt_rows(task: Task, kept: Any, pairs: Sequence[tuple[str, str]]) -> Any:
    """`(question, answer)` pairs as a `datasets.Dataset` with the columns of `kept`, `None` where they have no role.

    Raises `UserError` where the kept rows are running text, whose columns have no place for a question.
    """
    import datasets

    columns = task.columns
    if not {"question", "messages"} & set(columns):
        raise UserError(
            "`forget_prompt` asks questions, and the kept rows are running text: give questions and answers"
        )
    table: dict[str, list] = {name: [None] * len(pairs) for name in kept.column_names}
    if "messages" in columns:
        roles = ("user", "assistant")
        chats = [[{"role": r, "content": text} for r, text in zip(roles, pair, strict=True)] for pair in pairs]
        table[columns["messages"]] = chats
    else:
        table[columns["question"]] = [question for question, _ in pairs]
        table[columns["answer"]] = [answer for _, answer in pairs]
    return datasets.Dataset.from_dict(table, features=kept.features)


def ask_model(model: torch.nn.Module, task: Task, kept: Any, prompts: Sequence[str]) -> list[tuple[str, str]]:
    """Each prompt with the model's greedy answer to it.

    Raises `UserError` for an empty prompt, one that stands there twice, and for a model that answers nothing.
    """
    asked = [" ".join(prompt.split()) for prompt in prompts]
    if not all(asked):
        raise UserError("`forget_prompt` is empty; write what the model must not answer any more")
    if len(set(asked)) < len(asked):
        raise UserError("`forget_prompt` holds a prompt twice; give each once")
    rows = Rows(prompt_rows(task, kept, [(prompt, "-") for prompt in asked]), task)
    answers = [" ".join(text.split()) for text in generate(model, task, rows, max_new_tokens=ANSWER_TOKENS)]
    silent = sum(not answer for answer in answers)
    if silent:
        raise UserError(
            f"the model answers nothing to {silent} of {len(asked)} prompts; there is nothing to forget there"
        )
    return list(zip(asked, answers, strict=True))
