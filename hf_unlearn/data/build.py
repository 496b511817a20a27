"""From rows and a request to the roles.

The order matters, and is: load → encode labels → [`complete_source`] → `ForgetRequest.select` → [`build_splits`],
which [`hf_unlearn.data.prepare`] does.
Validation and test rows are taken out of the training rows before the request is resolved, so that they depend on the
seed alone: one original serves every request, and no row that was held out is ever "forgotten".
"""

from dataclasses import dataclass, field, replace

import numpy as np

from hf_unlearn.data.columns import column_codes
from hf_unlearn.data.draws import draw
from hf_unlearn.data.duplicates import exact_duplicates
from hf_unlearn.data.labelled import carries, emptied_labels, strata
from hf_unlearn.data.reading import read_every_row
from hf_unlearn.data.request import check_kept_classes
from hf_unlearn.data.rows import Rows
from hf_unlearn.data.sources import Source
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.errors import UserError

TRAINING_ROLES = ("forget", "retain")
ROLES = ("forget", "retain", "validation_tau", "validation_stop", "test", "unseen_forgotten")
LABEL_ROLES = ("label", "id")  # roles that are no part of what the model sees of a row
NONE_UNSEEN = "The test rows have none of a removed class: whether its rows are told from unseen ones is not measured."


@dataclass
class SplitReport:
    """What there is to say about the splits, without any row's content.

    Args:
        notes: one line each.
        counts: rows by role, and `train`, `exact_duplicates`, `moved_duplicates`.
    """

    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def complete_source(
    source: Source,
    *,
    trains_original: bool,
    seed: int,
    label_column: str | None = None,
    group_column: str | None = None,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> tuple[Source, list[str]]:
    """Fill in validation and test where the data has none, and say so.

    Only a run that trains the original itself may take them from the training rows; for a model that was given, half
    of the test rows become validation. Draws are stratified by label, or divide whole groups.

    Args:
        source ([`Source`]): labels encoded.
        trains_original (`bool`): whether the original is trained by this run, after this call.
        seed (`int`): decides which rows are drawn.
        label_column (`str`, *optional*): draws keep the proportions of the classes.
        group_column (`str`, *optional*): rows that share a value stay together; goes before `label_column`.
        validation_fraction, test_fraction (`float`): shares of the training rows.

    Returns the source and the notes. Raises `UserError` where neither is possible.
    """
    notes: list[str] = []
    if source.test is None:
        if not trains_original:
            raise UserError(
                "the data has no test rows: give rows that the model never saw with `test_file` or `test` (it was "
                "trained elsewhere, so none can be held out here)"
            )
        source = _carve(source, "test", test_fraction, seed + 1, label_column, group_column, notes)
    if source.validation is None and trains_original:
        source = _carve(source, "validation", validation_fraction, seed + 2, label_column, group_column, notes)
    elif source.validation is None:
        rows = len(source.test)
        chosen, left = _draw_rows(source.test, (rows + 1) // 2, seed + 3, label_column, group_column, "test")
        places = source.places | {"validation": chosen, "test": left}
        parts = {"validation": source.test.select(chosen), "test": source.test.select(left)}
        source = replace(source, places=places, **parts)
        notes.append(f"no validation rows: {len(chosen)} of {rows} test rows serve as validation (seed {seed})")
    return source, notes


def first_rows(source: Source, most: int, seed: int, label_column: str | None = None) -> tuple[Source, list[str]]:
    """A trial: the source with `most` training rows, drawn in proportion to the classes, and a note of it. The others
    count as held out. For an original that is trained after this call."""
    total = len(source.train)
    if most >= total:
        return source, []
    chosen, left = _draw_rows(source.train, most, seed, label_column, None)
    places = source.places | {"train": source.places.get("train", np.arange(total))[chosen]}
    parts = {"train": source.train.select(chosen), "held_out": source.train.select(left)}
    note = f"a trial: {most:,} of {total:,} training rows (seed {seed}); the others are not seen"
    return replace(source, places=places, **parts), [note]


def _carve(
    source: Source, role: str, share: float, seed: int, label: str | None, group: str | None, notes: list[str]
) -> Source:
    """Take a share of the training rows out of training, for `role`."""
    import datasets

    rows = len(source.train)
    chosen, left = _draw_rows(source.train, round(share * rows), seed, label, group)
    if not len(chosen) or not len(left):
        raise UserError(f"{rows} training rows are too few to take {role} rows from: name a {role} split")
    before = source.places.get("train", np.arange(rows))
    held_out = source.train.select(chosen)
    notes.append(f"no {role} rows: {len(chosen)} of {rows} training rows were held out before training")
    return replace(
        source,
        train=source.train.select(left),
        held_out=held_out if source.held_out is None else datasets.concatenate_datasets([source.held_out, held_out]),
        places=source.places | {"train": before[left], role: before[chosen]},
        **{role: held_out},
    )


def build_splits(
    source: Source,
    task,
    forget_positions: np.ndarray,
    *,
    request_kind: str,
    seed: int,
    label_column: str | None = None,
    group_column: str | None = None,
    forget_duplicates: bool = False,
    cache_rows: bool = True,
) -> tuple[UnlearningSplits, SplitReport]:
    """Check every row and give each its role.

    Args:
        source ([`Source`]): as [`complete_source`] returns it.
        task ([`Task`]): encodes the rows.
        forget_positions (`np.ndarray`): places in `source.train`, as `ForgetRequest.select` returns them.
        request_kind (`str`): `"classes"` removes classes from what is kept and measured; other kinds do not.
        seed (`int`): decides how validation is halved.
        label_column, group_column (`str`, *optional*): as for [`complete_source`].
        forget_duplicates (`bool`): retained rows with the same content as a forgotten row are forgotten too.
        cache_rows (`bool`): keep encoded rows, see [`Rows`].

    Raises `RowError`, with the place in the file, for the first row that cannot be used, and `UserError` where a role
    is left without rows.
    """
    report = SplitReport()
    rows = {split: Rows(data, task, cache=cache_rows) for split, data in source.splits().items()}
    partly = {split: read_every_row(source, split, rows[split], cache_rows) for split in rows}
    forget = np.unique(np.asarray(forget_positions, dtype=np.int64))
    forgotten_classes: tuple[int, ...] = ()
    if request_kind == "classes" and label_column is not None:
        forgotten_classes = tuple(int(label) for label in emptied_labels(source.train, label_column, forget))
    forget = _with_duplicates(source.train, task, forget, forget_duplicates, report)
    if label_column is not None:
        check_kept_classes(source.train, label_column, forget, forgotten_classes)
    retain = np.setdiff1d(np.arange(len(source.train)), forget)

    validation, _ = _kept_and_removed(source.validation, label_column, forgotten_classes)
    test, unseen_forgotten = _kept_and_removed(source.test, label_column, forgotten_classes)
    rest = source.validation.select(validation)
    tau, stop = _draw_rows(rest, (len(rest) + 1) // 2, seed, label_column, group_column, "validation")
    splits = UnlearningSplits(
        forget=rows["train"].select(forget),
        retain=rows["train"].select(retain),
        validation_tau=rows["validation"].select(validation[tau]),
        validation_stop=rows["validation"].select(validation[stop]),
        test=rows["test"].select(test),
        unseen_forgotten=rows["test"].select(unseen_forgotten) if forgotten_classes else None,
        forgotten_classes=forgotten_classes,
    )
    report.notes += _check_counts(splits)
    check_disjoint(splits)
    report.counts |= {"train": len(source.train), **splits.sizes()}
    report.notes += _partly_read(splits, partly)
    return splits, report


def _check_counts(splits: UnlearningSplits) -> list[str]:
    """Raises `UserError` for a role without rows; returns a note where only unseen rows of a removed class are
    missing."""
    missing = [role for role, count in splits.sizes().items() if count == 0]
    for role in missing:
        if role != "unseen_forgotten":
            raise UserError(f"no rows are left for '{role.replace('_', ' ')}': more {_split_of(role)} rows are needed")
    return [NONE_UNSEEN] if missing else []


def _partly_read(splits: UnlearningSplits, found: dict[str, dict[str, set[int]]]) -> list[str]:
    """A note for each kind of rows that the model sees a part of, with their number by role."""
    notes, task = [], splits.forget.task
    for kind, words in task.partly_read.items():
        counts = []
        for role, split in (("forget", "train"), ("retain", "train"), ("test", "test")):
            rows, known = getattr(splits, role), found[split][kind]
            count = sum(place in known for place in rows.indices) if known else 0
            if count:
                counts.append(f"{count} of {len(rows)} {role} rows")
        if counts:
            notes.append(f"{', '.join(counts)} {words.format(max_length=task.max_length)}")
    return notes


def check_disjoint(splits: UnlearningSplits) -> None:
    """Raises `AssertionError` if a row plays two roles."""
    parts = {role: part for role in ROLES if (part := getattr(splits, role)) is not None}
    for source in {id(part.source): part.source for part in parts.values()}.values():
        owner = np.full(len(source), -1, dtype=np.int8)
        for number, (role, part) in enumerate(parts.items()):
            if part.source is not source:
                continue
            places = np.asarray(part.indices, dtype=np.int64)
            others = owner[places]
            if (taken := others[(others >= 0) & (others != number)]).size:
                raise AssertionError(f"a row is both in {list(parts)[taken[0]]} and in {role}")
            owner[places] = number


def training_rows(splits: UnlearningSplits) -> Rows:
    """Everything the original was trained on, forget and retain rows in the order of the file."""
    indices = sorted(splits.forget.indices + splits.retain.indices)
    return splits.retain.at(indices)


def move_to_forget(splits: UnlearningSplits, places: np.ndarray) -> UnlearningSplits:
    """The same splits with some retained rows (`places` in `splits.retain`) forgotten too."""
    taken = np.zeros(len(splits.retain), dtype=bool)
    taken[np.asarray(places, dtype=np.int64)] = True
    if taken.all():
        raise UserError("every retained row nearly repeats a forgotten one: nothing would be kept")
    moved = [splits.retain.indices[i] for i in np.flatnonzero(taken)]
    everything = training_rows(splits)
    place = {index: i for i, index in enumerate(everything.indices)}
    forget = everything.select([place[index] for index in sorted(splits.forget.indices + moved)])
    return replace(splits, forget=forget, retain=splits.retain.select(np.flatnonzero(~taken)))


def _kept_and_removed(rows, label_column: str | None, classes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Places of the rows of classes that are kept, and of those that are removed."""
    if not classes or label_column is None:
        return np.arange(len(rows)), np.zeros(0, dtype=np.int64)
    removed = carries(rows, label_column, classes)
    return np.flatnonzero(~removed), np.flatnonzero(removed)


def _split_of(role: str) -> str:
    return "training" if role in TRAINING_ROLES else "validation" if role.startswith("validation") else "test"


def _draw_rows(
    rows, count: int, seed: int, label_column: str | None, group_column: str | None, split: str = "training"
) -> tuple[np.ndarray, np.ndarray]:
    """`count` places of `rows`, and the others: by group where there are groups, else stratified by label."""
    if group_column is not None:
        groups = column_codes(rows, group_column, f"`group_column` of the {split} rows")
        if len(rows) and not np.diff(groups).any():
            raise UserError(
                f"`group_column`: the {split} rows are of a single '{group_column}', and they are divided by it: give "
                f"{split} rows of several, or name another column or none"
            )
        return draw(len(rows), count, seed, groups=groups)
    codes = None if label_column is None else strata(rows, label_column)
    return draw(len(rows), count, seed, strata=codes)


def _with_duplicates(train, task, forget: np.ndarray, move: bool, report: SplitReport) -> np.ndarray:
    """Count the retained rows that repeat a forgotten one, and forget them too if `move`."""
    columns = [column for role, column in sorted(task.columns.items()) if role not in LABEL_ROLES]
    copies = exact_duplicates(train, columns, forget)
    report.counts |= {"exact_duplicates": len(copies), "moved_duplicates": len(copies) if move else 0}
    if len(copies) == 0:
        return forget
    rows = "1 retained row repeats" if len(copies) == 1 else f"{len(copies)} retained rows repeat"
    if not move:
        report.notes.append(
            f"{rows} a forgotten row, so it cannot be forgotten: pass --forget_duplicates to move them"
        )
        return forget
    report.notes.append(f"{rows} a forgotten row: forgotten too (--forget_duplicates)")
    return np.union1d(forget, copies)
