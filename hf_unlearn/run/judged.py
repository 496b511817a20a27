"""A model to be judged: its tokenizer must be the original's; where this tool made it, its evidence says which rows
were forgotten, and which were held out."""

import copy
from pathlib import Path
from typing import Any

from hf_unlearn.data.content import key_name
from hf_unlearn.errors import UserError
from hf_unlearn.models.by_name import said_in_one_line
from hf_unlearn.report.blocks import Evidence
from hf_unlearn.report.evidence import EVIDENCE, read_evidence
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.rows import Data
from hf_unlearn.tasks.tokenizing import check_vocabulary

OTHER_ROWS = (
    "The held-out rows are not those of the run that made the model: rows that steered it may be among the test rows."
)


TRIED = 8  # rows that both tokenizers read


def stored_evidence(model: str) -> Evidence | None:
    """The evidence beside a model, where there is some. Raises `UserError` for one that cannot be read."""
    return read_evidence(model) if (Path(model) / EVIDENCE).is_file() else None


def reuse_division(arguments: Arguments, stored: Evidence | None) -> None:
    """Divide the rows as the run that made the model did: else rows that steered it could become test rows.

    Raises `UserError` where the arguments name another seed for that, or for the draw of the forgotten rows.
    """
    if stored is None:
        return
    division, made = stored["data"].get("division") or {}, stored["seeds"]["run"]
    seed, asked = division.get("seed"), arguments.data.split_seed
    if asked is None:
        arguments.data.split_seed = seed
    elif seed is not None and asked != seed:
        raise UserError(f"--split_seed is {asked}, and the model was made with {seed}; leave it out to divide alike")
    drawn = (stored["data"]["request"] or {}).get("kind") == "fraction" and arguments.request.forget_fraction
    if drawn and made is not None and made != arguments.trainer.seed:
        raise UserError(
            f"--seed is {arguments.trainer.seed}, and the forgotten rows were drawn with {made}; say --seed {made}"
        )


def check_rows(data: Data, stored: Evidence | None) -> list[str]:
    """Compare this run's rows with the model's, where both digests have one key. Returns notes.

    Raises `UserError` where other rows were forgotten.
    """
    if stored is None or data.digest is None:
        return []
    division = stored["data"].get("division") or {}
    if division.get("key") != key_name():
        return []
    if stored["data"]["forget_digest"] not in (None, data.digest):
        raise UserError(
            "the request names other rows than the model unlearned (its evidence.json says so): give the request, the "
            "data and the --seed of the run that made it"
        )
    return [] if division.get("digest") == data.division()["digest"] else [OTHER_ROWS]


def check_tokenizer(arguments: Arguments, data: Data, model: str) -> None:
    """Raises `UserError` where a tokenizer lies beside `model` that reads rows otherwise than the original's, by which
    they are encoded. `--processor_name_or_path` names one for all models."""
    if arguments.model.processor_name_or_path is not None or not hasattr(data.task.processor, "get_vocab"):
        return
    try:
        with said_in_one_line(model):
            other = type(data.task).load_processor(model, trust_remote_code=arguments.model.trust_remote_code)
        check_vocabulary(other)
    except UserError:  # it has none of its own
        return
    rows, task = data.splits.test, copy.copy(data.task)
    task.processor = other
    places = rows.indices[:TRIED]
    if _ids(data.task, rows.source, places) != _ids(task, rows.source, places):
        raise UserError(
            f"the tokenizer beside {model} reads rows otherwise than the original's, by which they are encoded: put "
            "the original's beside it, or name the one for both with --processor_name_or_path"
        )


def _ids(task: Any, source: Any, places: list[int]) -> list[list[int]]:
    return [row["input_ids"].tolist() for row in task.encode(source[places], places)]
