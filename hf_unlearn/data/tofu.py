"""TOFU by name (Maini et al. 2024, arXiv 2401.06121): its official files, from the Hub or from a folder.

200 invented authors with 20 questions each stand one after another in `full`; `forget01`, `forget05` and `forget10`
are parts of it. `full` is all there is: a model that was trained on it has seen every author, and nothing in the files
shows what an unseen one looks like. An original that the recipe trains therefore never sees some authors: whole ones,
drawn among those that are in no forget split and whose rows have no wrong answers (`retain_perturbed`), so that one
original serves every request and the metrics keep their rows. For a model that was given, another file has to hold
them.
"""

from pathlib import Path
from typing import Any

import numpy as np

from hf_unlearn.data.content import row_digests
from hf_unlearn.data.sources import Source, load_source
from hf_unlearn.errors import UserError

NAME, HUB = "tofu", "locuslab/TOFU"
FORGET_SPLITS = ("forget01", "forget05", "forget10")
COLUMNS = {"question": "question", "answer": "answer"}
QUESTIONS = 20  # of an author, one after another
VALIDATION, TEST = 0.05, 0.1  # shares of the authors that an original never sees


def load_tofu(
    place: str,
    forget_split: str | None,
    *,
    trains_original: bool,
    seed: int,
    validation_split: str | None = None,
    test_split: str | None = None,
) -> tuple[Source, np.ndarray | None]:
    """The rows of `full` with their author's number, unseen authors, and the places in `full` of the rows to forget.

    Args:
        place: `tofu` or `locuslab/TOFU` for the Hub, or a folder that holds the official files (`full.json`, …).
        forget_split: one of `forget01`, `forget05`, `forget10`; `None` where the request is another.
        trains_original: whether this run trains the original; only then may authors be taken out of `full`.
        seed: draws these authors.
        validation_split, test_split: files (or configurations on the Hub) of authors that are not in `full`. Without
            the first, half of the authors of the second are validation.

    Raises `UserError` for files that are missing or do not belong together, and where there are no unseen authors.
    """
    full = _with_authors(_table(place, "full"))
    places = None if forget_split is None else _places(full, _table(place, forget_split), forget_split)
    kept: dict[str, np.ndarray] = {}
    notes = [] if forget_split is None else [f"the request is TOFU's {forget_split}, found in full by content"]
    if test_split is not None:
        test = _with_authors(_table(place, test_split))
        validation = _with_authors(_table(place, validation_split)) if validation_split else None
        if validation is None:
            first, rest = _draw(np.unique(test["author"]), 0.5, seed)
            validation, test = _of_authors(test, first)[0], _of_authors(test, rest)[0]
        rows = {"train": full, "validation": validation, "test": test}
    elif trains_original:
        rows, kept, note = _hold_out(place, full, seed)
        notes.append(note)
    else:
        raise UserError(
            "TOFU's files hold no author that this model has not seen: name a file of other authors with "
            "`test_split`, or have the recipe train the original (`original_model`), which then leaves some out"
        )
    folder = _folder(place)
    name = HUB if folder is None else folder.resolve().name
    source = Source(name, **rows, task="causal_lm", columns=COLUMNS, group_column="author", places=kept, notes=notes)
    return source, places


def load_choices(place: str, forget_split: str) -> tuple[list[Any], dict[str, Any]]:
    """Right answers in other words beside wrong ones: for rows of the forget split and of `retain_perturbed`, and the
    questions about `real_authors` and `world_facts`, which a model knows from its pretraining."""
    rows = [_table(place, f"{forget_split}_perturbed"), _table(place, "retain_perturbed")]
    return rows, {role: _table(place, f"{role}_perturbed") for role in ("real_authors", "world_facts")}


def _folder(place: str) -> Path | None:
    """The folder of the files; `None` for the Hub."""
    return None if place in (NAME, HUB) else Path(place).expanduser()


def _table(place: str, name: str):
    """One of the official tables. Raises `UserError` where it is missing, or lacks a question or an answer column."""
    folder = _folder(place)
    if folder is not None and not (folder / f"{name}.json").is_file():
        raise UserError(f"`forget_split`: no file {name}.json in {folder.name}: name a folder of TOFU's files")
    source = load_source(HUB, config_name=name) if folder is None else load_source(f"{folder}/{name}.json")
    rows = source.train
    if lacks := [column for column in COLUMNS.values() if column not in rows.column_names]:
        raise UserError(f"TOFU's {name} has no column '{lacks[0]}'")
    return rows


def _with_authors(rows):
    return rows.add_column("author", (np.arange(len(rows)) // QUESTIONS).tolist())


def _digests(rows) -> list[bytes]:
    return row_digests(rows, list(COLUMNS.values()))


def _places(full, rows, name: str) -> np.ndarray:
    """Where the rows of a part stand in `full`."""
    place = {digest: i for i, digest in enumerate(_digests(full))}
    digests = _digests(rows)
    found = [place[digest] for digest in digests if digest in place]
    if missing := len(digests) - len(found):
        raise UserError(f"{missing} of {len(digests)} rows of TOFU's {name} are not in full: the files differ in kind")
    return np.unique(found)


def _hold_out(place: str, full, seed: int) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
    """The splits, the places in `full` of their rows, and a note."""
    authors = np.array(full["author"])
    needed = [authors[_places(full, _table(place, name), name)] for name in (FORGET_SPLITS[-1], "retain_perturbed")]
    free = np.setdiff1d(authors, np.concatenate(needed))
    total = authors[-1] + 1
    wanted = max(round(VALIDATION * total), 2), max(round(TEST * total), 1)
    if len(free) <= sum(wanted):
        raise UserError(f"TOFU's full has {len(free)} authors that may be left out, and {sum(wanted) + 1} are needed")
    drawn = np.random.default_rng(seed).choice(free, sum(wanted), replace=False)
    rows: dict[str, Any] = {}
    places: dict[str, np.ndarray] = {}
    parts = {"validation": drawn[: wanted[0]], "test": drawn[wanted[0] :], "train": np.setdiff1d(authors, drawn)}
    for role, chosen in parts.items():
        rows[role], places[role] = _of_authors(full, chosen)
    note = (
        f"TOFU has no unseen authors: {wanted[0]} are held out for validation and {wanted[1]} for test before "
        f"training (seed {seed}); none is in {FORGET_SPLITS[-1]} or retain_perturbed"
    )
    return rows, places, note


def _draw(authors: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A share of the authors, and the others. Raises `UserError` where either would be nobody."""
    order = np.random.default_rng(seed).permutation(authors)
    first = round(share * len(order))
    if not 0 < first < len(order):
        raise UserError("`test_split` holds a single author, and validation needs some too: name `validation_split`")
    return order[:first], order[first:]


def _of_authors(rows, authors: np.ndarray) -> tuple[Any, np.ndarray]:
    """The rows of some authors, and their places."""
    places = np.flatnonzero(np.isin(rows["author"], authors))
    return rows.select(places), places
