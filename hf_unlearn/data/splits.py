"""The named roles that rows play. Validation steers; test and twins only report."""

from dataclasses import dataclass, fields
from typing import Any

from hf_unlearn.data.draws import draw
from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.tasks.base import Task

FEW_MEASURING = 64  # rows for τ; fewer put all targets too high or too low


@dataclass
class UnlearningSplits:
    """Disjoint roles.

    Args:
        forget: training rows whose influence must go.
        retain: the other training rows.
        validation_tau: unseen rows that measure τ and calibrate targets; where they are few, those for stopping help.
        validation_stop: unseen rows for stopping and tuning.
        test: unseen rows that only report (kept classes only, when classes are removed).
        unseen_forgotten: for class removal, unseen rows of the removed classes; they only report. `None` otherwise.
        forgotten_classes: label ids of the removed classes; empty unless the request names classes.
    """

    forget: Rows
    retain: Rows
    validation_tau: Rows
    validation_stop: Rows
    test: Rows
    unseen_forgotten: Rows | None = None
    forgotten_classes: tuple[int, ...] = ()

    @classmethod
    def from_datasets(
        cls,
        task: Task,
        forget: Any,
        retain: Any,
        validation: Any,
        test: Any,
        *,
        unseen_forgotten: Any = None,
        forgotten_classes: tuple[int, ...] = (),
        seed: int = 0,
    ) -> "UnlearningSplits":
        """Splits from data sets that are divided already, each a `datasets.Dataset` whose rows `task` encodes.

            splits = UnlearningSplits.from_datasets(task, forget=gone, retain=kept, validation=unseen, test=held_out)

        Nothing is looked for here: that no row stands in two of them is the caller's word. ([`unlearn`] divides rows
        and checks them.)

        Args:
            validation: rows that steer; `seed` draws the half of them that measures τ.
            unseen_forgotten, forgotten_classes: for class removal.

        Raises `UserError` for a data set without rows, and for fewer than two validation rows.
        """
        given = {"forget": (forget, 1), "retain": (retain, 1), "validation": (validation, 2), "test": (test, 1)}
        for name, (rows, least) in given.items():
            if len(rows) < least:
                raise UserError(f"`{name}` has {len(rows)} row{'s' * (len(rows) != 1)}; it takes at least {least}")
        tau, stop = draw(len(validation), (len(validation) + 1) // 2, seed)
        steering = Rows(validation, task)
        return cls(
            forget=Rows(forget, task),
            retain=Rows(retain, task),
            validation_tau=steering.select(tau),
            validation_stop=steering.select(stop),
            test=Rows(test, task),
            unseen_forgotten=None if unseen_forgotten is None else Rows(unseen_forgotten, task),
            forgotten_classes=forgotten_classes,
        )

    def __repr__(self) -> str:
        removed = f", {len(self.forgotten_classes)} classes removed" if self.forgotten_classes else ""
        sizes = ", ".join(f"{name}={size:,}" for name, size in self.sizes().items())
        return f"UnlearningSplits({sizes}{removed})"

    @property
    def validation(self) -> Rows:
        """All validation rows, those for τ first; those for τ alone where the two parts are of different data sets."""
        first, other = self.validation_tau, self.validation_stop
        return first.at([*first.indices, *other.indices]) if first.source is other.source else first

    @property
    def measuring(self) -> Rows:
        """Validation rows that τ and targets are measured on: those for that, and of few those for stopping too."""
        rows = self.validation_tau
        return self.validation if len(rows) < FEW_MEASURING else rows

    @property
    def nonmembers(self) -> Rows:
        """Rows that were never trained on, of the kind that is forgotten: what membership inference compares with."""
        return self.test if self.unseen_forgotten is None else self.unseen_forgotten

    def sizes(self) -> dict[str, int]:
        return {f.name: len(rows) for f in fields(self) if isinstance(rows := getattr(self, f.name), Rows)}
