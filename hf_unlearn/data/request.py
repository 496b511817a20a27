"""The forget request: which training rows must go. Its values stay in memory; `public()` is what may leave it."""

import difflib
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_unlearn.data.columns import arrow_column, column_codes, holds_text, require_column
from hf_unlearn.data.conditions import conditions_of, parts_of
from hf_unlearn.data.draws import draw
from hf_unlearn.data.ids import note_alike, read_ids, unknown_ids
from hf_unlearn.data.labelled import carries, emptied_labels, has_sets
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError

T = TypeVar("T")
BY_LABEL = (
    "Rows with a named label are forgotten whole, with their other labels; no kept row has it. It stays in the head."
)
OF_THE_LABELS = (
    "`where` names values of the label column '{}', whole classes of which no row would be kept: name those with "
    "`classes`, alone, and other rows in a run of their own"
)
NOT_COMPARED = (
    pa.types.is_nested,
    pa.types.is_binary,
    pa.types.is_time,
    pa.types.is_duration,
    pa.types.is_float16,
)
EXACT = 2.0**53  # from here on floating-point numbers leave out whole numbers


@dataclass(repr=False)
class ForgetRequest:
    """Names the rows to forget in exactly one way.

    Args:
        classes: names or ids of whole classes; where rows have sets of labels, of labels: every row that has one of
            them is forgotten.
        fraction: share of the training rows, drawn with `seed`; with `group_column` a share of that column's values.
        group_column: with `fraction` only.
        ids_file: file of ids, looked up in `id_column`: one per line, a `.json` list, or a `.csv` or `.tsv` with that
            column.
        id_column: with `ids_file` only.
        where: `column=value`, one or several, or values by column, `{column: [value, …]}`; a row that meets any of
            them is forgotten. Numbers compare as numbers.
        rows: places of the rows in the training split as it was loaded (a forget data set of one's own).
        seed: decides which rows a fraction consists of.

    Raises `UserError` unless exactly one way is used.
    """

    classes: list[str] | None = None
    fraction: float | None = None
    group_column: str | None = None
    ids_file: str | None = None
    id_column: str | None = None
    where: str | list[str] | Mapping[str, Any] | None = None
    rows: np.ndarray | None = None
    seed: int = 0
    notes: list[str] = field(default_factory=list, init=False)  # what the last `select` has to say, without values
    columns: list[str] = field(default_factory=list, init=False)  # those of the rows of the last `select`

    def __post_init__(self):
        self.classes = [self.classes] if isinstance(self.classes, str) else self.classes
        self.conditions = conditions_of(self.where)
        ways: dict[str, Any] = {"classes": self.classes, "fraction": self.fraction, "ids": self.ids_file}
        ways |= {"where": self.conditions, "dataset": self.rows}
        used = [name for name, value in ways.items() if value is not None and not (name != "dataset" and value == [])]
        options = "`classes`, `fraction`, `ids_file`, `where`, `rows`"
        if len(used) != 1:
            problem = "nothing to forget" if not used else f"{len(used)} forget requests"
            raise UserError(f"{problem}: give exactly one of {options}")
        self.kind: str = used[0]
        if self.kind == "fraction" and not 0 < _given(self.fraction) < 1:
            raise UserError("`fraction` must lie between 0 and 1, both excluded, e.g. 0.1")

    def __repr__(self) -> str:
        known = {key: value for key, value in self.public().items() if key != "kind" and value is not None}
        return f"ForgetRequest({', '.join([self.kind, *(f'{key}={value!r}' for key, value in known.items())])})"

    def public(self, *, publish: bool = False, label_column: str | None = None) -> dict[str, Any]:
        """What may leave the machine: kind, column and counts; class names only with `publish`."""
        if self.kind == "classes":
            shown = {"classes": [str(name) for name in _given(self.classes)]} if publish else {}
            return {"kind": "classes", "column": label_column, "count": len(_given(self.classes))} | shown
        if self.kind == "fraction":
            return {"kind": "fraction", "column": self.group_column, "fraction": self.fraction}
        if self.kind == "where":
            whole = [each for each in self.conditions if not isinstance(each, str) or "=" in each]
            columns = dict.fromkeys(parts_of(each, self.columns)[0] for each in whole)
            return {"kind": "where", "column": ", ".join(columns), "count": len(self.conditions)}
        return {"kind": self.kind, "column": self.id_column}

    def select(
        self,
        source: Source,
        label_column: str | None = None,
        label_names: list[str] | None = None,
        *,
        some_are_kept: bool = True,
    ) -> np.ndarray:
        """Places in `source.train` of the rows to forget, sorted.

        Rows that [`complete_source`] held out are not training rows any more: they need no forgetting, and ids found
        among them count as known.

        Args:
            source ([`Source`]): complete, its labels encoded.
            label_column (`str`, *optional*): for tasks with classes.
            label_names (`list[str]`, *optional*): class names in the order of the ids.
            some_are_kept (`bool`): whether rows are forgotten, so that others, of every other class, must be left.

        Raises `UserError` for whatever the request names that is not there, and for one that takes all rows, none, or
        all of a class that is kept. No message quotes the request's values.
        """
        self.notes, self.columns = [], source.train.column_names
        if self.kind == "where" and some_are_kept and label_column in self._columns_named(source):
            raise UserError(OF_THE_LABELS.format(label_column))
        chosen = getattr(self, f"_select_{self.kind}")(source, label_column, label_names)
        rows = len(source.train)
        if len(chosen) == 0 and self.notes:
            raise UserError(
                "all rows of the forget request were held out for validation or test, so the original does not see "
                "them: there is nothing to forget"
            )
        if len(chosen) == 0:
            raise UserError("the forget request takes no training row: there is nothing to forget")
        if len(chosen) == rows and some_are_kept:
            raise UserError(f"the forget request takes all {rows} training rows: some must be kept")
        if label_column is not None and self.kind != "classes" and some_are_kept:
            check_kept_classes(source.train, label_column, chosen)
        return chosen

    def held_out(
        self, source: Source, label_column: str | None = None, label_names: list[str] | None = None
    ) -> list[Any]:
        """Validation and test rows that the request names too, a data set of each; [`select`]'s arguments.

        Of a class these are all its rows there. Of other requests they are rows that [`complete_source`] took out of
        the training rows: ids and places say nothing of other files. A fraction is of training rows alone.
        """
        found = []
        for split in ("validation", "test"):
            was_training_row = source.held_out is not None and split in source.places
            if self.kind == "classes" or was_training_row:
                named = self.names(source, split, label_column, label_names)
                found.append(getattr(source, split).select(np.flatnonzero(named)))
        return found

    def also_named(self, source: Source) -> list[str]:
        """A note for each of validation and test that holds rows of the request: no model learned them, but who
        deletes a person wants to know. Of ids and conditions alone."""
        columns = {self.id_column} if self.kind == "ids" else self._columns_named(source)
        notes = []
        for split in ("validation", "test") if self.kind in ("ids", "where") else ():
            rows = getattr(source, split)
            taken_out = source.held_out is not None and split in source.places  # of the training rows: said already
            if rows is not None and not taken_out and columns <= set(rows.column_names):
                count = int(self.names(source, split, None, None).sum())
                if count:
                    notes.append(f"{count} {split} rows meet the request too: no model learned them, they stay")
        return notes

    def _columns_named(self, source: Source) -> set[str]:
        """The columns of the conditions of `where`."""
        return {parts_of(condition, source.train.column_names)[0] for condition in self.conditions}

    def names(self, source: Source, split: str, label_column: str | None, label_names: list[str] | None) -> np.ndarray:
        """`(rows,)` bool: which rows of a split the request names."""
        rows = getattr(source, split)
        if self.kind == "classes" and label_column is not None and label_names is not None:
            return carries(rows, label_column, class_ids(_given(self.classes), label_names))
        if self.kind == "ids":
            wanted, column = read_ids(_given(self.ids_file), self.id_column), arrow_column(rows, self.id_column or "")
            return np.asarray(pc.is_in(column, value_set=_comparable(column, wanted, "`id_column`").drop_null()))
        if self.kind == "where":
            parts = [parts_of(condition, source.train.column_names) for condition in self.conditions]
            return np.any([_meets(rows, *part) for part in parts], axis=0)
        if self.kind == "dataset":
            return np.isin(source.places[split], _given(self.rows))
        return np.zeros(len(rows), dtype=bool)

    def _select_classes(self, source: Source, label_column: str | None, label_names: list[str] | None) -> np.ndarray:
        if label_column is None or label_names is None:
            raise UserError("`classes` needs a task with classes; use `where` column=value here")
        ids = class_ids(_given(self.classes), label_names)
        if source.held_out is not None:
            self._note_held_out(int(carries(source.held_out, label_column, ids).sum()))
        chosen = np.flatnonzero(carries(source.train, label_column, ids))
        if has_sets(source.train, label_column) and len(chosen) < len(source.train):
            check_kept_classes(source.train, label_column, chosen, tuple(ids))  # the rows have other labels too
            if len(chosen):
                self.notes.append(BY_LABEL)
        return chosen

    def _select_fraction(self, source: Source, *_) -> np.ndarray:
        share = _given(self.fraction)
        if self.group_column is None:
            return draw(len(source.train), round(share * len(source.train)), self.seed)[0]
        groups = column_codes(source.train, self.group_column, "`group_column`")
        named = np.flatnonzero(groups >= 0)
        if without := len(groups) - len(named):
            self.notes.append(f"training rows without {self.group_column}: {without}; they are no group, and kept")
        return named[draw(len(named), round(share * len(named)), self.seed, groups=groups[named])[0]]

    def _select_ids(self, source: Source, *_) -> np.ndarray:
        name = self.id_column or ""
        require_column(source.train, name, "`id_column`")
        given = read_ids(_given(self.ids_file), name)
        wanted = list(dict.fromkeys(given))
        column = arrow_column(source.train, name)
        values = _comparable(column, wanted, "`id_column`")
        known = pc.is_in(values, value_set=pc.unique(column))
        chosen = np.flatnonzero(pc.is_in(column, value_set=values.drop_null()))
        if source.held_out is not None:
            held = arrow_column(source.held_out, name)
            self._note_held_out(int(pc.sum(pc.is_in(held, value_set=values.drop_null())).as_py() or 0))
            known = pc.or_(known, pc.is_in(values, value_set=pc.unique(held)))
        missing = np.flatnonzero(~np.asarray(pc.and_(known, values.is_valid())))
        if len(missing):
            raise UserError(unknown_ids([wanted[place] for place in missing], given, column, name))
        if without := column.null_count + int(
            pc.sum(pc.equal(column, "")).as_py() or 0 if holds_text(column.type) else 0
        ):
            self.notes.append(f"training rows without {name}: {without}; they are kept, whosever they are")
        self.notes += note_alike(column, wanted)
        return chosen

    def _select_where(self, source: Source, *_) -> np.ndarray:
        chosen = np.zeros(len(source.train), dtype=bool)
        empty, conditions, wanted = 0, self.conditions, dict[str, list[str]]()
        for condition in conditions:
            name, value = parts_of(condition, source.train.column_names)
            met = _meets(source.train, name, value)
            held = 0 if source.held_out is None else int(_meets(source.held_out, name, value).sum())
            if held:
                self._note_held_out(held)
            empty += not met.any() and not held
            chosen |= met
            wanted.setdefault(name, []).append(value)
        if empty:
            raise UserError(
                f"{empty} of {len(conditions)} `where` conditions match no training row: values are compared as they "
                "are written, so that 007 is not 7"
            )
        for name, values in wanted.items():
            self.notes += note_alike(arrow_column(source.train, name), values)
        return np.flatnonzero(chosen)

    def _select_dataset(self, source: Source, *_) -> np.ndarray:
        rows = np.unique(_given(self.rows))
        if "train" not in source.places:
            if len(rows) and not 0 <= rows[0] <= rows[-1] < len(source.train):
                raise UserError(f"`rows` names places beyond the {len(source.train)} training rows, counted from 0")
            return rows
        chosen = np.flatnonzero(np.isin(source.places["train"], rows))
        self._note_held_out(len(rows) - len(chosen))
        return chosen

    def _note_held_out(self, count: int) -> None:
        if count:
            self.notes.append(
                f"{count} rows of the request were held out before training, so no model has to forget them"
            )


def _given(value: T | None) -> T:
    """A field that is there, as the request's kind says."""
    assert value is not None
    return value


def class_ids(classes: list[str], label_names: list[str]) -> list[int]:
    """Ids of classes given by name (any case) or by id. Raises `UserError` naming the nearest classes that exist."""
    exact = {name: i for i, name in enumerate(label_names)}
    folded = {name.casefold(): i for i, name in enumerate(label_names)}
    alike = Counter(name.casefold() for name in label_names)
    ids, near, unknown = [], [], 0
    for given in map(str, classes):
        if given not in exact and alike[given.casefold()] > 1:
            raise UserError("one of `classes` is the name of several but for its case; write it as the rows do")
        found = exact.get(given, folded.get(given.casefold()))
        is_id = given.isdecimal() and int(given) < len(label_names) and not _are_numbers(label_names)
        if found is None and is_id:
            found = int(given)
        if found is None:
            unknown += 1
            near += difflib.get_close_matches(given.casefold(), list(folded), n=2)
        else:
            ids.append(found)
    if unknown:
        shown = ", ".join(label_names[:20]) + (f" … ({len(label_names)} in all)" if len(label_names) > 20 else "")
        nearest = ", ".join(label_names[folded[name]] for name in dict.fromkeys(near))
        hint = f"; nearest: {nearest}" if nearest else ""
        raise UserError(f"{unknown} of {len(classes)} `classes` are unknown{hint}; the classes are: {shown}")
    return sorted(set(ids))


def check_kept_classes(train, label_column: str, forget: np.ndarray, removed: tuple[int, ...] = ()) -> None:
    """Raises `UserError` if a class that is not `removed` would have no row left."""
    emptied = len(np.setdiff1d(emptied_labels(train, label_column, forget), removed))
    if emptied:
        one, more = ("label", "labels") if has_sets(train, label_column) else ("class", "classes")
        raise UserError(
            f"the forget request leaves {emptied} retained {more if emptied > 1 else one} without a row: "
            f"keep some, or remove whole {more} with `classes`"
        )


def _meets(rows, name: str, value: str) -> np.ndarray:
    """`(rows,)` bool: which rows have the value in the column `name`."""
    require_column(rows, name, "`where`")
    column, feature = arrow_column(rows, name), rows.features[name]
    if hasattr(feature, "names"):
        value = _label_id(feature.names, value)
    wanted = _comparable(column, [value], "`where`")
    return np.asarray(pc.is_in(column, value_set=wanted.drop_null()))


def _label_id(names: list[str], value: str) -> str:
    """The id of the label that a value names. Where names are numbers, as 1 to 5 stars are, a number is a name."""
    if value not in names and _are_numbers(names):
        value = str(_number(value, pa.int64()))
        return str(names.index(value)) if value in names else ""
    return str(names.index(value)) if value in names else value


def _are_numbers(names: list[str]) -> bool:
    return all(re.fullmatch(r"-?\d+", name) for name in names)


def _comparable(column: pa.ChunkedArray, given: list[str], what: str) -> pa.Array:
    """Strings as values of the column's type; null where one cannot be such a value."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType) or any(are(kind) for are in NOT_COMPARED):
        raise UserError(f"{what}: the column holds {kind}, which cannot be compared")
    if pa.types.is_boolean(kind):
        return pa.array([{"true": True, "1": True, "false": False, "0": False}.get(v.lower()) for v in given], kind)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = [_number(value, kind) for value in given]
        if pa.types.is_floating(kind) and any(abs(n or 0) >= EXACT for n in numbers):
            raise UserError(f"{what}: the column holds {kind}, in which ids this large run together; store text")
        return pa.array(numbers, kind)
    try:
        return pa.array(given).cast(kind)
    except pa.ArrowInvalid:
        raise UserError(f"{what}: the column holds {kind}, and a given value is none") from None


def _number(value: str, kind: pa.DataType) -> int | float | None:
    """The number that a text writes out; `None` for other texts, `007` among them, which is another id than 7."""
    whole = re.fullmatch(r"-?(0|[1-9]\d*)", value)
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        return None
    if not whole and re.match(r"[+-]?0\d", value):
        return None
    if pa.types.is_floating(kind):
        return float(number)
    if not math.isfinite(number) or number != int(number) or not -(2**63) <= number < 2**63:
        return None
    return int(number)
