"""Which rows are scored: all that must be forgotten, and of other roles that are large a seeded sample."""

from dataclasses import replace
from typing import Any

import numpy as np

from hf_unlearn.data.rows import Rows
from hf_unlearn.data.splits import UnlearningSplits

MOST_SCORED = 10_000  # rows of a role: an accuracy is then known to half a point, a paired difference far better
SAMPLED_ROLES = ("retain", "validation_stop", "test", "unseen_forgotten")


def scored_rows(splits: UnlearningSplits, seed: int, *, every: bool = False) -> UnlearningSplits:
    """The splits as the scoring pass reads them: roles of more than `MOST_SCORED` rows are samples of so many.

    The forget rows are always scored whole. Which rows a sample has follows from the seed and the number of rows, so
    that all models of a run are scored on the same ones. Where every role is small, or with `every`, these are the
    splits themselves.
    """
    large = {role: rows for role in SAMPLED_ROLES if (rows := getattr(splits, role)) and len(rows) > MOST_SCORED}
    if every or not large:
        return splits
    samples: dict[str, Any] = {role: _sample(rows, seed) for role, rows in large.items()}
    return replace(splits, **samples)


def _sample(rows: Rows, seed: int) -> Rows:
    chosen = np.random.default_rng([seed, len(rows)]).choice(len(rows), MOST_SCORED, replace=False)
    return rows.select(np.sort(chosen))
