"""Conditions on columns: `column=value` as a command line has it, or a column and a value that nobody has to parse."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hf_unlearn.errors import UserError

Condition = str | tuple[str, str]


def conditions_of(where: str | Iterable[str] | Mapping[str, Any] | None) -> list[Condition]:
    """One condition a value: of `column=value` texts, or of `{column: value or values}`."""
    if where is None or isinstance(where, str):
        return [] if where is None else [where]
    if not isinstance(where, Mapping):
        return list(where)
    found: list[Condition] = []
    for column, values in where.items():
        single = isinstance(values, str) or not isinstance(values, Iterable)
        found += [(str(column), str(value)) for value in ([values] if single else values)]
    return found


def parts_of(condition: Condition, columns: list[str]) -> tuple[str, str]:
    """The column and the value of a condition.

    A text is cut behind the name of one of `columns`, which may have `=` in it; where none of them is named, at the
    first `=`. Raises `UserError` for a text that could be cut in two places.
    """
    if not isinstance(condition, str):
        return condition
    cuts = [sign.start() for sign in re.finditer("=", condition)]
    if not cuts:
        raise UserError("`where` needs column=value")
    known = [cut for cut in cuts if condition[:cut].strip() in columns]
    if len(known) > 1:
        names = " and ".join(f"'{condition[:cut].strip()}'" for cut in known)
        raise UserError(f"`where`: a condition may be on column {names}: rename one of them")
    cut = (known or cuts)[0]
    name, value = condition[:cut], condition[cut + 1 :]
    return name.strip(), value.lstrip() if name != name.rstrip() else value  # `column = value`, or as it is written
