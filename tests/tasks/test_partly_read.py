"""Rows that the model sees a part of are counted and told: what is cut off is neither forgotten nor measured."""

import datasets
import numpy as np
from toy import tokenizer

from hf_unlearn.data.build import build_splits
from hf_unlearn.data.sources import Source
from hf_unlearn.tasks.causal_lm import CausalLM
from hf_unlearn.tasks.text_classification import TextClassification

CHAT = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
SHORT, LONG = "red cat", "red cat " * 10


def notes(task, columns: dict[str, list], **options) -> list[str]:
    """Of splits with six training rows, the first two to be forgotten, and the same six as validation and test."""
    rows = datasets.Dataset.from_dict(columns)
    source = Source("mine", *(rows.select(range(len(rows))) for _ in range(3)))
    _, report = build_splits(source, task, np.array([0, 1]), request_kind="ids", seed=0, **options)
    return [note for note in report.notes if "repeat" not in note]  # rows here are alike


def qa(answers: list[str], questions: list[str] | None = None, max_length: int | None = 12) -> list[str]:
    task = CausalLM(tokenizer(), {"question": "q", "answer": "a"}, max_length=max_length, prompt_template="{question}")
    return notes(task, {"q": questions or [f"dog {i}" for i in range(6)], "a": answers})


def test_answers_that_are_cut_off():
    assert qa([SHORT] * 6) == []
    assert qa([LONG] + [SHORT] * 2 + [LONG] * 3) == [
        "1 of 2 forget rows, 3 of 4 retain rows, 4 of 6 test rows are longer than 12 tokens: what follows is neither "
        "forgotten nor measured"
    ]


def test_prompts_whose_start_is_cut_off():
    said = qa([SHORT] * 6, [LONG] + ["dog"] * 5)
    assert said == [
        "1 of 2 forget rows, 1 of 6 test rows are longer than 12 tokens: the start of their prompt is not read"
    ]


def test_earlier_answers_of_the_assistant():
    made = tokenizer()
    made.chat_template = CHAT
    short = [{"role": "user", "content": "red"}, {"role": "assistant", "content": "cat"}]
    said = notes(CausalLM(made, {"messages": "m"}), {"m": [short, short * 2, *[short] * 4]})
    assert said == [
        "1 of 2 forget rows, 1 of 6 test rows have earlier answers of the assistant: only the last one is "
        "forgotten and measured"
    ]


def test_texts_of_a_classifier():
    task = TextClassification(tokenizer(), {"text": "t", "label": "y"}, ["a", "b"], max_length=6)
    said = notes(task, {"t": [SHORT] * 5 + [LONG], "y": [0, 1] * 3}, label_column="y")
    assert said == ["1 of 4 retain rows, 1 of 6 test rows are longer than 6 tokens: what follows is neither forgotten "
                    "nor measured"]  # fmt: skip


def test_running_text_is_read_in_parts():
    said = notes(CausalLM(tokenizer(), {"text": "t"}, max_length=6), {"t": [LONG] + [SHORT] * 5})
    assert said == [
        "1 of 2 forget rows, 1 of 6 test rows are longer than 6 tokens: they are read in parts, none of which sees "
        "the part before it"
    ]
