"""The evidence block `sampled`: how far figures of a sample of rows may lie from those of all rows."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from hf_unlearn.evaluation.comparison import ModelScores
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.report.blocks import Sampled, SampledErrors, SampledRole

ROLES = {"retain": "retain", "test": "test", "nonmembers": "unseen_forgotten"}  # as scored, and as counted


def sampled_block(
    original: ModelScores | None, unlearned: ModelScores, twins: Sequence[ModelScores], sizes: Mapping[str, Any]
) -> Sampled | None:
    """Sizes and standard errors of the roles of which a sample was scored; `None` where all rows were.

    Args:
        original, unlearned, twins: scores of the models, all on the same rows.
        sizes: rows of each role that there are, by its name among the splits.
    """
    found: dict[str, SampledRole] = {}
    for name, role in ROLES.items():
        size, part = sizes.get(role), unlearned.get(name)
        if size is not None and part is not None and len(part) < size:
            of_twins = [twin[name] for twin in twins if name in twin]
            found[name] = _role((original or {}).get(name), part, of_twins, size)
    return cast(Sampled, found) or None


def _role(original: SplitScores | None, unlearned: SplitScores, twins: list[SplitScores], size: int) -> SampledRole:
    errors: dict[str, SampledErrors | None] = {
        "original": None if original is None else _errors(original.correct, original.loss, size),
        "unlearned": _errors(unlearned.correct, unlearned.loss, size),
        "retrained": None,
        "gap": None,
    }
    if twins:
        correct, loss = (np.mean([getattr(twin, figure) for twin in twins], axis=0) for figure in ("correct", "loss"))
        errors["retrained"] = _errors(correct, loss, size)
        errors["gap"] = _errors(unlearned.correct - correct, unlearned.loss - loss, size)
    return {"rows": len(unlearned), "of": size, "standard_errors": errors}


def _errors(correct: np.ndarray, loss: np.ndarray, size: int) -> SampledErrors:
    return {"accuracy": standard_error(correct, size), "loss": standard_error(loss, size)}


def standard_error(values: np.ndarray, size: int) -> float | None:
    """Of the mean of `values`, a sample without replacement of `size` rows: √(s²/n · (1 − n/N)), 0 where the sample is
    all of them. `None` with fewer than two values, or where one is not finite."""
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return None
    return float(np.sqrt(values.var(ddof=1) / n * max(0.0, 1 - n / size)))
