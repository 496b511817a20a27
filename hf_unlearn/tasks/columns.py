"""Which column plays which role, from usual names, from feature types, or from the user."""

from collections.abc import Iterable
from typing import Any

from hf_unlearn.errors import UserError

LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "category", "intent", "label_text")


def check_overrides(
    overrides: dict[str, str], roles: Iterable[str], column_names: list[str], task: str = "this task"
) -> dict[str, str]:
    """The user's choices without empty ones. Raises `UserError` for a role or a column that does not exist."""
    chosen = {role: column for role, column in (overrides or {}).items() if column}
    roles = list(roles)
    for role, column in chosen.items():
        if role not in roles:
            raise UserError(f"{task} has no {role!r} column: its columns are {', '.join(roles)}")
        if column not in column_names:
            raise UserError(f"no column {column!r} in the data: it has {', '.join(column_names)} ({_where(role)})")
    return chosen


def find(candidates: Iterable[str], column_names: list[str]) -> str | None:
    """The first candidate that is a column, whatever its case."""
    by_name = {name.lower(): name for name in reversed(column_names)}
    return next((by_name[name] for name in candidates if name in by_name), None)


def only_feature(kind: str, features: Any, skip: Iterable[str] = ()) -> str | None:
    """The one column whose feature is of a kind (`Image`, `ClassLabel`, or `string`), if there is exactly one."""
    skip = set(skip)
    found = [
        name
        for name, feature in dict(features or {}).items()
        if name not in skip
        and (type(feature).__name__ == kind or str(getattr(feature, "dtype", "")) in (kind, f"large_{kind}"))
    ]
    return found[0] if len(found) == 1 else None


def missing(role: str | tuple[str, ...], column_names: list[str]) -> UserError:
    """No column of a usual name has this role, or one of these."""
    roles = (role,) if isinstance(role, str) else role
    if "input_ids" in column_names:
        return UserError("the rows are tokenized already: give them as they were before, with their texts")
    return UserError(
        f"no column found for {' or '.join(map(repr, roles))}: name one of the data's columns, "
        f"{', '.join(column_names)} ({_where(*roles)})"
    )


def _where(*roles: str) -> str:
    """How a role is named, on the command line and in Python."""
    arguments = " or ".join(f"`{role}_column`" for role in roles)
    return f"{arguments}; in Python columns={{'{roles[0]}': …}}"
