"""Rows with wrong answers and a paraphrased right one beside them, as TOFU has them (Maini et al. 2024)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.language_metrics import normalised_probability, truth_ratio
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.tasks.base import Task

WRONG, PARAPHRASE = "perturbed_answer", "paraphrased_answer"


@dataclass
class Choices:
    """Questions with their options, each an own row of `Rows`.

    Args:
        right: the rows as they stand in the data, `(questions,)`.
        paraphrase: the same questions with the paraphrased answer; where there is none, with the answer itself.
        wrong: the same questions with each wrong answer, question by question.
        owner: `(wrong,)`, the question of each wrong answer.
    """

    right: Rows
    paraphrase: Rows
    wrong: Rows
    owner: np.ndarray

    def __len__(self) -> int:
        return len(self.right)


def has_choices(task: Task, rows: Any) -> bool:
    """Whether a `datasets.Dataset` has wrong answers to the questions that `task` asks."""
    return WRONG in rows.column_names and {"question", "answer"} <= set(task.columns)


def make_choices(task: Task, rows: Any) -> Choices | None:
    """From the rows of a `datasets.Dataset` with `perturbed_answer`; those without wrong answers are left out.

    `None` where no row has any. Raises `UserError` for columns that are missing, or wrong answers that are no texts.
    """
    question, answer = task.columns.get("question"), task.columns.get("answer")
    needed = [name for name in (question, answer, WRONG) if name not in rows.column_names]
    if needed:
        raise UserError(f"rows with wrong answers lack the columns {', '.join(map(str, needed))}")
    wrong = [[] if item is None else [item] if isinstance(item, str) else item for item in rows[WRONG]]
    if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in wrong):
        raise UserError(f"column '{WRONG}' must hold lists of texts")
    places = [i for i, texts in enumerate(wrong) if texts]
    if not places:
        return None
    columns = [column for role, column in task.columns.items() if role != "answer" and column in rows.column_names]
    asked = rows.select(places).select_columns(list(dict.fromkeys(columns)))
    right = [rows[answer][i] for i in places]
    paraphrases = rows[PARAPHRASE] if PARAPHRASE in rows.column_names else [None] * len(rows)
    other = [paraphrases[i] or rows[answer][i] for i in places]
    owner = np.repeat(np.arange(len(places)), [len(wrong[i]) for i in places])

    def with_answers(base, texts):
        return Rows(base.add_column(answer, texts), task, cache=False)

    return Choices(
        with_answers(asked, right),
        with_answers(asked, other),
        with_answers(asked.select(owner), [text for i in places for text in wrong[i]]),
        owner,
    )


def choices_of(task: Task, rows: Rows, others: list[Any]) -> Choices | None:
    """The options for `rows`: from their own columns, or from other data sets that ask the same questions."""
    question = task.columns.get("question")
    if question is None or not len(rows):
        return None
    own = rows.source.select(rows.indices)
    if has_choices(task, own):
        return make_choices(task, own)
    asked = set(own[question])
    for other in others:
        places = [i for i, text in enumerate(other[question]) if text in asked]
        if places:
            return make_choices(task, other.select(places))
    return None


def choice_figures(
    model: torch.nn.Module, task: Task, choices: Choices, *, options_only: bool = False, **options: Any
) -> dict[str, np.ndarray]:
    """`truth_ratio` and `probability` of the right answer, `(questions,)` each. `options` are those of [`score`].

    With `options_only` (real authors, world facts) the probability is normalised over the right and the wrong answers.
    """
    right, paraphrase, wrong = (
        score(model, task, rows, **options).loss for rows in (choices.right, choices.paraphrase, choices.wrong)
    )
    counts = np.bincount(choices.owner, minlength=len(choices))  # of wrong answers, which questions may differ in
    own = np.split(wrong, np.cumsum(counts)[:-1])
    ratio = np.array([truth_ratio(p[None], losses[None])[0] for p, losses in zip(paraphrase, own, strict=True)])
    probability = np.exp(-right)
    if options_only:
        rest = np.array([np.exp(-losses).sum() for losses in own])
        probability = normalised_probability(probability, rest[:, None])
    return {"truth_ratio": ratio, "probability": probability}
