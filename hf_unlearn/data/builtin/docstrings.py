"""Sentences of the Python standard library's docstrings, labelled by their package: real text on every machine.

Only the sources of eight pure-Python packages are read (parsed, never imported). Distinct sentences, of which at most
400 per package are used; results differ a little between versions of Python:

            asyncio  email  http  importlib  logging  unittest  urllib  xml
    3.10        722    730   314        411      444       313     196  392
    3.11        731    728   314        436      449       320     198  392
    3.12        748    726   319        426      453       321     198  389
    3.13        776    732   321        447      455       332     197  389
"""

import ast
import re
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np

from hf_unlearn.data.builtin.vocabulary import train_tokenizer
from hf_unlearn.data.draws import draw
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError

PACKAGES = ("asyncio", "email", "http", "importlib", "logging", "unittest", "urllib", "xml")
MOST = 400  # sentences per package: email and asyncio hold three times as many as urllib
SHORTEST, LONGEST = 4, 40  # words
BATCH = 64


def load(seed: int = 0) -> Source:
    """On Python 3.11 1728 training rows (whole batches of 64), 438 validation and 658 test rows, stratified."""
    import datasets

    found = {package: package_sentences(package) for package in PACKAGES}
    times = Counter(sentence for sentences in found.values() for sentence in sentences)
    texts, labels = [], []
    for label, sentences in enumerate(found.values()):
        own = [sentence for sentence in sentences if times[sentence] == 1]
        for place in draw(len(own), min(MOST, len(own)), seed)[0]:
            texts.append(own[place])
            labels.append(label)
    strata = np.array(labels)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(PACKAGES))}
    )

    def rows(places: np.ndarray):
        columns = {"text": [texts[i] for i in places], "label": strata[places].tolist()}
        return datasets.Dataset.from_dict(columns, features=features)

    train, unseen = draw(len(texts), int(0.625 * len(texts)) // BATCH * BATCH, seed, strata=strata)
    validation, test = (
        unseen[part] for part in draw(len(unseen), int(0.4 * len(unseen)), seed, strata=strata[unseen])
    )
    unseen_texts = [texts[i] for i in unseen]
    return Source(
        name="docstrings",
        train=rows(train),
        validation=rows(validation),
        test=rows(test),
        builtin=True,
        task="text_classification",
        columns={"text": "text", "label": "label"},
        make_processor=lambda: train_tokenizer(unseen_texts, vocab_size=2000, max_length=64, decoder_only=False),
    )


def package_sentences(package: str) -> list[str]:
    """Distinct sentences of the docstrings of a standard library package, sorted; `UserError` if it is missing."""
    folder = Path(sysconfig.get_paths()["stdlib"]) / package
    files = [
        file for file in sorted(folder.rglob("*.py")) if not {"test", "tests"} & set(file.relative_to(folder).parts)
    ]
    if not files:
        raise UserError(f"dataset_name: docstrings needs the sources of Python's package '{package}', not found here")
    sentences = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                sentences.update(_sentences(ast.get_docstring(node) or ""))
    return sorted(sentences)


def _sentences(docstring: str):
    """Whole sentences of prose: a capital first, a full stop last, no code sessions."""
    for paragraph in re.split(r"\n\s*\n", docstring):
        if ">>>" in paragraph:
            continue
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
            if sentence[:1].isupper() and sentence[-1] in ".!?" and SHORTEST <= len(sentence.split()) <= LONGEST:
                yield sentence
