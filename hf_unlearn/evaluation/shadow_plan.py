"""Which rows each shadow model of U-LiRA sees, and which of them it then unlearns. Pure draws, no models."""

from dataclasses import dataclass

import numpy as np

from hf_unlearn.errors import UserError

ROLES = ("shadow", "target")
FEWEST_ROWS = 10  # audited rows, below which no figure would have an interval


@dataclass(frozen=True)
class Division:
    """What the audited rows are to one model, `(audited,)` each, in the order of [`ShadowPlan.rows`].

    Args:
        member: whether the row is in the model's training data.
        part: for a member, which of the model's forget sets it is in; for another row, beside which forget set it is
            looked at, so that every row is looked at once and either kind alike.
    """

    member: np.ndarray
    part: np.ndarray


@dataclass(frozen=True)
class ShadowPlan:
    """A random half of the *audited* rows is in each model's data; the other training rows are in all of them.

    Models come in pairs with complementary halves, so each row is in exactly half of an even number of models. The
    audited half that a model has is dealt into `sets` forget sets of equal size, each unlearned from the same original
    on its own. (Hayes et al. 2024, section 4; drawn in complementary pairs as by Carlini et al. 2022.)

    Args:
        unit: `(training rows,)`, what is drawn as a whole: the row itself, or its group (the author, say).
        audited: `(2 · sets · size,)`, the audited units.
        sets: forget sets of each model.
        seed: of all draws.
    """

    unit: np.ndarray
    audited: np.ndarray
    sets: int
    seed: int

    @property
    def size(self) -> int:
        """Units in a forget set."""
        return len(self.audited) // (2 * self.sets)

    @property
    def rows(self) -> np.ndarray:
        """Places of the audited rows among the training rows, ascending."""
        return np.flatnonzero(np.isin(self.unit, self.audited))

    def division(self, role: str, k: int) -> Division:
        """Of model `k` (from 0) of a role, the same for ever: the number of models changes nothing about it."""
        rng = np.random.default_rng([self.seed, 1 + ROLES.index(role), k // 2])
        first, second = np.split(rng.permutation(self.audited), 2)
        members, others = (second, first) if k % 2 else (first, second)
        part_of = np.empty(int(self.unit.max()) + 1, dtype=np.int64)
        for units in (members, others):
            part_of[units] = np.arange(len(units)) // self.size
        units = self.unit[self.rows]
        return Division(np.isin(units, members), part_of[units])

    def kept(self, division: Division) -> np.ndarray:
        """Places of the model's training rows, ascending."""
        out = self.rows[~division.member]
        return np.setdiff1d(np.arange(len(self.unit)), out)


@dataclass(frozen=True)
class FixedPlan(ShadowPlan):
    """One forget set for all, as where a class is removed: models 0, 2, 4, … of a role have the audited rows and
    unlearn all of them, models 1, 3, 5, … never see them, so that a row's two kinds of models differ in nothing else.
    """

    @property
    def size(self) -> int:
        return len(self.audited)

    def division(self, role: str, k: int) -> Division:
        rows = len(self.rows)
        return Division(np.full(rows, k % 2 == 0), np.zeros(rows, dtype=np.int64))


def fixed_plan(forget: np.ndarray, rows: int, seed: int) -> FixedPlan:
    """A plan in which the same rows are unlearned from every model that has them.

    Args:
        forget: their places among the training rows.
        rows: how many training rows there are.

    Raises `UserError` where too few rows would be audited.
    """
    plan = FixedPlan(np.arange(rows), np.sort(forget), 1, seed)
    _check(plan)
    return plan


def make_plan(unit: np.ndarray, share: float, sets: int, seed: int) -> ShadowPlan:
    """A plan in which every forget set is about `share` of a model's training rows, as in the request.

    Args:
        unit: `(training rows,)` int, what is drawn as a whole; any ids.
        share: of the training rows that a request takes, in (0, 1).
        sets: forget sets per model; fewer where so many of this size cannot be disjoint.

    Raises `UserError` where too few rows would be audited.
    """
    names, unit = np.unique(unit, return_inverse=True)
    sets = max(1, min(sets, int(1 / share + 1e-9)))
    # A model has n − sets · size units, and size is `share` of them; 2 · sets · size units are audited.
    size = round(share * len(names) / (1 + share * sets))
    size = max(1, min(size, len(names) // (2 * sets)))
    audited = np.random.default_rng([seed, 0]).permutation(len(names))[: 2 * sets * size]
    plan = ShadowPlan(unit, np.sort(audited), sets, seed)
    _check(plan, 2 * sets * size)
    return plan


def _check(plan: ShadowPlan, units: int = 0) -> None:
    if len(plan.audited) < units or len(plan.rows) < FEWEST_ROWS:
        raise UserError(f"U-LiRA: only {len(plan.rows)} rows could be audited; more training rows are needed")
