"""How far apart are models that unlearned a row and models that never saw it, as the ε of differential privacy?"""

import numpy as np

from hf_unlearn.evaluation.lira import Models, by_row


def row_epsilons(models: Models, delta: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    """ε of every row, as in the NeurIPS 2023 unlearning challenge (Triantafillou et al., arXiv 2406.09073).

    For each row the best of all attacks that look at its φ with one threshold or two: those call a model "unlearned"
    if φ lies within an interval, or outside of it. With FPR and FNR over the models,
    ε = max(log((1 − δ − FPR)/FNR), log((1 − δ − FNR)/FPR)).

    An error rate of 0 out of n models counts as 1/n, so that n models bound ε at about log n: a row at the bound may
    be anything above it. The attack is chosen on the models it is measured on, so that ε is well over 0 where there is
    nothing to find; `null` is ε with the two kinds of models dealt anew at random.

    Args:
        models (`Models`): shadows, for example; each row needs two of either kind.
        delta (`float`): δ.
        seed (`int`): of the dealing.

    Returns:
        `epsilon`, `null` and `bound` (what ε cannot exceed), `(rows,)` each; NaN where a row has too few models.
    """
    result = {name: np.full(models.phi.shape[1], np.nan) for name in ("epsilon", "null", "bound")}
    for row, unlearned, never, dealt in by_row(models, seed):
        result["epsilon"][row] = epsilon(unlearned, never, delta)
        result["null"][row] = epsilon(*dealt, delta)
        result["bound"][row] = np.log(max((1 - delta) * max(len(unlearned), len(never)), 1))
    return result


def epsilon(unlearned: np.ndarray, never: np.ndarray, delta: float = 0.0) -> float:
    """ε of one row from its φ under models that unlearned it and models that never saw it: see [`row_epsilons`]."""
    edges = np.unique(np.concatenate([unlearned, never]))
    # Counts of φ below each edge; the difference of two of them is what lies in between.
    below = [np.append(np.searchsorted(np.sort(side), edges), len(side)) / len(side) for side in (unlearned, never)]
    first, last = np.triu_indices(len(edges) + 1, k=1)
    inside_unlearned, inside_never = (side[last] - side[first] for side in below)
    best = 0.0
    for fnr, fpr in ((1 - inside_unlearned, inside_never), (inside_unlearned, 1 - inside_never)):
        for miss, top in ((np.maximum(fnr, 1 / len(unlearned)), fpr), (np.maximum(fpr, 1 / len(never)), fnr)):
            best = max(best, float(((1 - delta - top) / miss).max()))
    return float(np.log(max(best, 1.0)))


def over_rows(values: dict[str, np.ndarray], figure: str) -> dict[str, float | int | None]:
    """Median and 95th percentile over rows of a figure and of its null, and of how many rows it is known."""
    known = ~np.isnan(values[figure])
    result: dict[str, float | int | None] = {"rows": int(known.sum())}
    for name in (figure, "null"):
        found = values[name][known]
        result[f"{name}_median"] = float(np.median(found)) if len(found) else None
        result[f"{name}_p95"] = float(np.quantile(found, 0.95)) if len(found) else None
    return result


def summary(epsilons: dict[str, np.ndarray]) -> dict[str, float | int | None]:
    """As [`over_rows`], and the share of rows at the bound."""
    known = ~np.isnan(epsilons["epsilon"])
    at_bound = epsilons["epsilon"][known] >= epsilons["bound"][known] - 1e-9
    share = float(at_bound.mean()) if len(at_bound) else None
    return {**over_rows(epsilons, "epsilon"), "at_bound": share}
