"""Rows that must not be read: wrapped around test and twin rows, they prove that nothing steers by them."""

from collections.abc import Sequence
from dataclasses import replace

from hf_unlearn.data.rows import Rows
from hf_unlearn.data.splits import UnlearningSplits


class GuardError(AssertionError):
    """Somebody read rows that only report."""


class GuardedRows(Rows):
    """Rows with a length but no content: reading one raises [`GuardError`].

    Args:
        rows ([`Rows`]): what is guarded.
        name (`str`): role of the rows, for the message.
    """

    def __init__(self, rows: Rows, name: str):
        super().__init__(rows.source, rows.task, rows.indices, cache=False)
        self.name = name

    def __getitems__(self, batch: Sequence[int]):
        raise GuardError(f"the {self.name} rows only report; they were read")

    def select(self, which: Sequence[int]) -> "GuardedRows":
        return GuardedRows(super().select(which), self.name)


def guard(splits: UnlearningSplits, roles: Sequence[str] = ("test", "unseen_forgotten")) -> UnlearningSplits:
    """The same splits with some roles unreadable."""
    guarded = {role: GuardedRows(rows, role) for role in roles if (rows := getattr(splits, role)) is not None}
    return replace(splits, **guarded)
