"""Questions and answers about ten writers who do not exist: few rows, which a chat model learns in minutes.

Six rows a writer, written for this package. What a model knows of them it knows from these rows. Splits are by writer.
"""

import json
from importlib.resources import files

from hf_unlearn.data.builtin.vocabulary import train_tokenizer
from hf_unlearn.data.sources import Source

TRAIN, VALIDATION, TEST = 5, 3, 2  # writers


def load(seed: int = 0) -> Source:
    """30 training rows, 18 validation rows and 12 test rows, the same for every seed."""
    import datasets

    text = (files("hf_unlearn") / "data" / "builtin" / "invented_authors.jsonl").read_text(encoding="utf-8")
    table = [json.loads(line) for line in text.splitlines()]
    names = list(dict.fromkeys(row["author"] for row in table))

    def rows(authors: list[str]):
        return datasets.Dataset.from_list([row for row in table if row["author"] in authors])

    validation, test = rows(names[TRAIN : TRAIN + VALIDATION]), rows(names[TRAIN + VALIDATION :])
    unseen = [f"{row['question']} {row['answer']}" for part in (validation, test) for row in part]
    return Source(
        name="invented_authors",
        train=rows(names[:TRAIN]),
        validation=validation,
        test=test,
        builtin=True,
        task="causal_lm",
        columns={"question": "question", "answer": "answer"},
        make_processor=lambda: train_tokenizer(unseen, vocab_size=500, max_length=128, decoder_only=True),
    )
