"""Seeded draws of rows: the one place that decides which rows a share consists of."""

import numpy as np

from hf_unlearn.errors import UserError


def draw(
    size: int,
    count: int,
    seed: int,
    *,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` of `size` places; returns (drawn, left), both sorted.

    Args:
        strata (`np.ndarray`, *optional*): `(size,)` codes; each value is drawn in proportion, to within one row.
        groups (`np.ndarray`, *optional*): `(size,)` codes; whole groups are drawn, their share being `count / size` of
            the groups (at least one drawn and one left). Strata are then ignored.

    Raises `UserError` where a share of groups is asked for and there is a single group.
    """
    rng = np.random.default_rng(seed)
    if groups is not None:
        distinct, owner = np.unique(groups, return_inverse=True)
        if len(distinct) < 2:
            raise UserError(
                "the groups are too few: held-out, forgotten and kept rows need groups of their own; name another "
                "group column or none"
            )
        wanted = min(max(round(count / size * len(distinct)), 1), len(distinct) - 1)
        taken = np.zeros(len(distinct), dtype=bool)
        taken[rng.choice(len(distinct), wanted, replace=False)] = True
        chosen = taken[owner]
        return np.flatnonzero(chosen), np.flatnonzero(~chosen)
    shuffled = rng.permutation(size)
    if strata is not None:  # equal steps through rows sorted by stratum hit each in proportion
        order = np.lexsort((shuffled, strata))
        start = rng.random()
        drawn = order[((np.arange(count) + start) * size / max(count, 1)).astype(int)]
    else:
        drawn = shuffled[:count]
    chosen = np.zeros(size, dtype=bool)
    chosen[drawn] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)
