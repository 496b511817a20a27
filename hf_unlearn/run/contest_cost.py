"""What a contest would take: shares of a retraining by contestant, and the time of all that is left."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hf_unlearn.progress import duration
from hf_unlearn.report.contest import NOTHING, TUNED, TWIN
from hf_unlearn.run.contest_plan import ContestPlan
from hf_unlearn.run.loading import get_recipe
from hf_unlearn.run.plan import rows_scored
from hf_unlearn.run.rows import Data
from hf_unlearn.run.tried_step import rows_to_read, seconds_per_row
from hf_unlearn.trainers.base import UnlearningTrainer


@dataclass
class ContestCost:
    """What every contestant reads, and how long a row takes.

    Args:
        rows: of each contestant under one seed; every row counts once per pass.
        most: the same where the run is prolonged as far as it can be.
        seconds: of a row, in a step and in scoring, by one step that was tried; `None` until then.
    """

    rows: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    seconds: tuple[float, float] | None = None

    def add(self, name: str, trainer: UnlearningTrainer) -> None:
        """A contestant's trainer; a step of the first one is tried."""
        self.rows[name], self.most[name] = rows_to_read(trainer)
        if self.seconds is None:
            self.seconds = seconds_per_row(trainer)

    def shares(self, plan: ContestPlan, data: Data) -> str:
        """Of the examples of one retraining, by contestant, the least first."""
        retraining = get_recipe(plan.base).num_train_epochs * len(data.splits.retain)
        order = sorted(self.rows, key=self.rows.__getitem__)
        return "of one retraining's examples: " + ", ".join(
            f"{name} {100 * self.rows[name] / retraining:.0f} %" for name in order
        )

    def time(self, plan: ContestPlan, data: Data, left: Sequence[str], tune: int) -> str:
        """Of the steps that are `left`, as [`ContestCourse`] names them; a search takes `tune` runs."""
        assert self.seconds is not None
        step, forward = self.seconds
        made = plan.base.model.model_name_or_path is None
        rows = {"originals": len(data.splits.forget) + len(data.splits.retain), "twins": len(data.splits.retain)}
        count = {"originals": left.count("original"), "twins": left.count("twin")}
        epochs = get_recipe(plan.base).num_train_epochs
        parts = {name: count[name] * epochs * rows[name] * step for name in rows}
        parts["originals"] *= made
        ran = [name for name in left if name not in ("original", "twin", NOTHING, TWIN)]
        parts["entries"], most = (
            step * sum(read[name.removesuffix(TUNED)] * (tune if name.endswith(TUNED) else 1) for name in ran)
            for read in (self.rows, self.most)
        )
        scored = sum(rows for rows, _ in rows_scored(plan.base, data).values())
        parts["scoring"] = (len(ran) + sum(count.values())) * scored * forward
        named = ", ".join(f"{name} {duration(spent)}" for name, spent in parts.items() if spent)
        total, more = sum(parts.values()), most - parts["entries"]
        ceiling = f"; at most {duration(total + more)}" if more else ""
        return f"about {duration(total)}: {named}{ceiling} (by one step that was tried; less where the cache has some)"
