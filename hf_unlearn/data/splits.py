"""The named roles that rows play. Validation steers; test and twins only report."""

from dataclasses import dataclass, fields

from hf_unlearn.data.rows import Rows


@dataclass
class UnlearningSplits:
    """Disjoint roles.

    Args:
        forget: training rows whose influence must go.
        retain: the other training rows.
        validation_tau: unseen rows that measure τ and calibrate targets.
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

    def __repr__(self) -> str:
        removed = f", {len(self.forgotten_classes)} classes removed" if self.forgotten_classes else ""
        sizes = ", ".join(f"{name}={size:,}" for name, size in self.sizes().items())
        return f"UnlearningSplits({sizes}{removed})"

    @property
    def nonmembers(self) -> Rows:
        """Rows that were never trained on, of the kind that is forgotten: what membership inference compares with."""
        return self.test if self.unseen_forgotten is None else self.unseen_forgotten

    def sizes(self) -> dict[str, int]:
        return {f.name: len(rows) for f in fields(self) if isinstance(rows := getattr(self, f.name), Rows)}
