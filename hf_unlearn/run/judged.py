"""A model to be judged that this tool made: its evidence says which rows were forgotten, and which were held out."""

from pathlib import Path

from hf_unlearn.data.content import key_name
from hf_unlearn.errors import UserError
from hf_unlearn.report.blocks import Evidence
from hf_unlearn.report.evidence import EVIDENCE, read_evidence
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.rows import Data

OTHER_ROWS = (
    "The held-out rows are not those of the run that made the model: rows that steered it may be among the test rows."
)


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
