"""What models answer to the same questions: texts for the people at this machine, figures for the evidence."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.generation import generate, has_prompts, last_answers, sample_rows
from hf_unlearn.evaluation.language_metrics import rouge_l_recall
from hf_unlearn.report import blocks
from hf_unlearn.report.answer_blocks import ORIGINAL, UNLEARNED
from hf_unlearn.report.answers import PAGE, answers_page, answers_text
from hf_unlearn.tasks.base import Task

MAX_NEW_TOKENS = 64
FIGURES = ("rouge", "repetition", "refusals")
REFUSAL = re.compile(
    r"\b(i (do not|don't|cannot|can't|am not|have no|am unable)|i'm (not|afraid|sorry|unable)|no information"
    r"|as an ai|unable to (answer|provide)|not (aware|familiar))\b"
)
GENERAL = (  # what a model knows without its rows; the answers are for the figures
    ("What is the capital of France?", "The capital of France is Paris."),
    ("How many days are there in a week?", "There are seven days in a week."),
    ("What do bees make?", "Bees make honey."),
    ("Which planet is known as the Red Planet?", "Mars is known as the Red Planet."),
    ("What is water made of?", "Water is made of hydrogen and oxygen."),
    ("In which season do leaves fall from the trees?", "Leaves fall from the trees in autumn."),
    ("What is two plus three?", "Two plus three is five."),
    ("What is a group of lions called?", "A group of lions is called a pride."),
)


class Shown(Protocol):
    """What models show of their own, side by side: answers, or whatever a task has ([`Task.asked_things`]).

    Attributes:
        key (`str`): of the evidence's block.
        shown (`dict`): what each model showed, by what it is called.
    """

    key: ClassVar[str]
    shown: dict[str, Any]

    def ask(self, name: str, model: torch.nn.Module, splits: UnlearningSplits, batch_size: int = 64) -> None:
        """Have a model show it; `name` is what the model is called."""

    def of(self, name: str) -> Any:
        """Everything that the model of this name showed, for `put`."""

    def put(self, name: str, what: Any) -> None:
        """Let `what` a model showed count as what the model of this name showed."""

    def drop(self, name: str) -> None:
        """Forget what the model of this name showed."""

    def block(self) -> Mapping[str, Any]:
        """The evidence block: figures, nothing of single rows."""

    def text(self) -> str:
        """For the screen of the people at this machine."""

    def save(self, folder: Path) -> None:
        """Write what they may look at into `folder`, in files that nothing pushes."""


@dataclass
class Answers:
    """Questions of three kinds, forgotten, kept and general, and what each model has answered to them.

    Args:
        task: of the rows; they have questions and answers.
        most: rows of each kind.
        seed: draws them.
        rows: by kind, once the first model has been asked.
        shown: `shown[model][kind]`, in the order of the rows.

    Raises `UserError` for a task or rows without questions.
    """

    key: ClassVar[str] = "answers"
    task: Task
    most: int
    seed: int = 0
    rows: dict[str, Rows] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not self.task.has_prompts or not has_prompts(self.task):
            raise UserError(
                "`generate` asks a language model the questions of its rows, and there are none; leave it out"
            )

    def ask(self, name: str, model: torch.nn.Module, splits: UnlearningSplits, batch_size: int = 64) -> None:
        """Greedy answers of a model to all questions; `name` is what it is called."""
        if not self.rows:
            forgotten, kept = (sample_rows(rows, self.most, self.seed) for rows in (splits.forget, splits.retain))
            self.rows = {"forgotten": forgotten, "kept": kept, "general": general_rows(self.task, self.most)}
        options = {"max_new_tokens": MAX_NEW_TOKENS, "batch_size": batch_size}
        self.shown[name] = {kind: generate(model, self.task, rows, **options) for kind, rows in self.rows.items()}

    def of(self, name: str) -> dict[str, list[str]]:
        return self.shown[name]

    def put(self, name: str, what: dict[str, list[str]]) -> None:
        self.shown[name] = what

    def drop(self, name: str) -> None:
        del self.shown[name]

    def block(self) -> blocks.Answers:
        """The evidence block `answers`: `rows[kind]` asked, and `figures[kind][figure][model]` with the models
        `original`, `unlearned` and `twins` (the mean; `None` without any). No text."""
        figures = {kind: _side_by_side(self, kind) for kind in self.rows}
        return {"rows": {kind: len(rows) for kind, rows in self.rows.items()}, "figures": figures}

    def text(self) -> str:
        return f"{answers_text(self.sheets())}\n\nAll answers are in {PAGE}, which stays on this machine."

    def save(self, folder: Path) -> None:
        """The page, which quotes forgotten rows: readable for this user only."""
        page = folder / PAGE
        page.unlink(missing_ok=True)
        with os.fdopen(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(answers_page(self.sheets()))

    def sheets(self) -> dict[str, list[dict[str, Any]]]:
        """By kind a list of `{"question", "rows": [(who, text), …]}`, the data's own answer first."""
        found = {}
        for kind, rows in self.rows.items():
            given = [("in the data", last_answers(self.task, rows))] if kind != "general" else []
            given += [(name, texts[kind]) for name, texts in self.shown.items()]
            asked = questions(self.task, rows)
            found[kind] = [
                {"question": asked[i], "rows": [(who, " ".join(texts[i].split())) for who, texts in given]}
                for i in range(len(rows))
            ]
        return found


def general_rows(task: Task, most: int) -> Rows:
    """At most so many of the questions that every language model is asked, in the columns of the task."""
    import datasets

    pairs, columns = GENERAL[:most], task.columns
    if "messages" in columns:
        chats = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            for question, answer in pairs
        ]
        return Rows(datasets.Dataset.from_dict({columns["messages"]: chats}), task)
    table = {columns["question"]: [q for q, _ in pairs], columns["answer"]: [a for _, a in pairs]}
    if "context" in columns:
        table[columns["context"]] = [""] * len(pairs)
    return Rows(datasets.Dataset.from_dict(table), task)


def questions(task: Task, rows: Rows) -> list[str]:
    """What each row asks: its question, or what was said before its last answer."""
    column = task.columns.get("messages") or task.columns["question"]
    return [_question(rows.source[place][column]) for place in rows.indices]


def repetition(text: str, n: int = 3) -> float:
    """1 − distinct n-grams / n-grams (seq-rep-n of Welleck et al. 2020, arXiv 1908.04319), in [0, 1]; 0 for texts of
    at most n pieces. The pieces are words, long ones in parts of four letters, so that one endless word counts too."""
    pieces = re.findall(r"\w{1,4}", text.lower())
    grams = [tuple(pieces[i : i + n]) for i in range(len(pieces) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0


def refuses(text: str) -> bool:
    """Whether an answer says that it is none, by the phrases models use for it."""
    return REFUSAL.search(text.lower().replace("\u2019", "'")) is not None


def text_figures(texts: Sequence[str], references: Sequence[str]) -> dict[str, float | None]:
    """Means over answers: ROUGE-L recall of the references, [`repetition`], and the share of refusals."""
    if not len(texts):
        return dict.fromkeys(FIGURES)
    return {
        "rouge": float(rouge_l_recall(texts, references).mean()),
        "repetition": float(np.mean([repetition(text) for text in texts])),
        "refusals": float(np.mean([refuses(text) for text in texts])),
    }


def _side_by_side(answers: Answers, kind: str) -> dict[str, dict[str, float | None]]:
    references = last_answers(answers.task, answers.rows[kind])
    known = {name: text_figures(texts[kind], references) for name, texts in answers.shown.items()}
    twins = [figures for name, figures in known.items() if name not in (ORIGINAL, UNLEARNED)]
    empty = dict.fromkeys(FIGURES)

    def mean(figure: str) -> float | None:
        values = [value for twin in twins if (value := twin[figure]) is not None]
        return float(np.mean(values)) if values and len(values) == len(twins) else None

    return {
        figure: {
            "original": known.get(ORIGINAL, empty)[figure],
            "unlearned": known.get(UNLEARNED, empty)[figure],
            "twins": mean(figure),
        }
        for figure in FIGURES
    }


def _question(value: Any) -> str:
    if isinstance(value, str):
        return " ".join(value.split())
    asked = [m for m in value if (m.get("role") or m.get("from")) in ("user", "human")]
    spoken = [m.get("content") or m.get("value") for m in asked]
    return " ".join(str(spoken[-1] if spoken else "").split())
