"""What the plots of a report show: counts and rates, from which no row can be read off or recognised.

Bins lie on a fixed grid, so that not even their edges are some row's figure.
"""

import numpy as np

from hf_unlearn.evaluation.metrics import row_z
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.evaluation.streisand import streisand

LOSSES = (-6, 2)  # powers of ten, nats
BINS = (8, 32, 128)  # to a factor of ten; more where fewer than
LEAST_BINS = 6  # would be used, because all losses lie close together
Z_GRID = np.linspace(-8, 8, 33)  # standard deviations
ROC_POINTS = 200
ROLES = ("forget", "retain", "unseen")

Scores = dict[str, SplitScores]


def distributions(original: Scores | None, unlearned: Scores | None, twins: list[Scores]) -> dict[str, dict | None]:
    """The evidence block `distributions`; a part that cannot be known is `None`. JSON types only.

    - `loss`: `edges` in nats and `counts[model][role]` for the models `original`, `unlearned` and `twins` (pooled) and
      the roles `forget`, `retain` and `unseen`. Rows beyond the grid stand in its outermost bins.
    - `roc`: of the loss attack, see [`roc`].
    - `row_z`: `edges` and `counts[model]` of the row z-scores of forget rows (two twins needed); for `twins` each
      against the others, pooled (three needed).
    - `ks`: see [`ks_distances`].
    """
    models = {"original": original, "unlearned": unlearned}
    return {
        "loss": _losses(models, twins),
        "roc": roc(models, twins),
        "row_z": _row_z(models, twins),
        "ks": ks_distances(models, twins),
    }


def roc(models: dict[str, Scores | None], twins: list[Scores]) -> dict | None:
    """ROC curves of the attack "the lower the loss, the likelier a forget row", at shared false positive rates.

    Returns:
        `fpr`: at most 200 rates, from 0 to 1; `tpr[model]`: the share of forget rows found when at most so many unseen
        rows are mistaken for them; `tpr["twins"]` is the mean over twins and `twins_range` the lowest and highest of
        them, where there are two. `members` and `nonmembers` are the numbers of rows. `None` where a loss is NaN or
        rows are missing.
    """
    named = {name: scores for name, scores in models.items() if scores is not None}
    named |= {f"twin {i}": twin for i, twin in enumerate(twins)}
    pairs = {name: (_loss(scores, "forget"), _loss(scores, "unseen")) for name, scores in named.items()}
    if not pairs or any(len(side) == 0 or np.isnan(side).any() for pair in pairs.values() for side in pair):
        return None
    members, nonmembers = map(len, next(iter(pairs.values())))
    fpr = _rates(nonmembers)
    tpr = {name: _tpr_at(fpr, *pair) for name, pair in pairs.items()}
    of_twins = np.array([tpr.pop(f"twin {i}") for i in range(len(twins))])
    result = {"members": members, "nonmembers": nonmembers, "fpr": _rounded(fpr), "twins_range": None}
    if len(twins) > 1:
        result["twins_range"] = [_rounded(of_twins.min(axis=0)), _rounded(of_twins.max(axis=0))]
    if twins:
        tpr["twins"] = of_twins.mean(axis=0)
    return result | {"tpr": {name: _rounded(values) for name, values in tpr.items()}}


def ks_distances(models: dict[str, Scores | None], twins: list[Scores]) -> dict | None:
    """[`~hf_unlearn.evaluation.streisand.streisand`] of each model's forget losses. `None` without twins."""
    if not twins:
        return None
    of_twins = np.stack([_loss(twin, "forget") for twin in twins])
    return {name: scores and streisand(_loss(scores, "forget"), of_twins) for name, scores in models.items()}


def _losses(models: dict[str, Scores | None], twins: list[Scores]) -> dict | None:
    found = {
        name: {role: _loss(scores, role) for role in ROLES} for name, scores in models.items() if scores is not None
    }
    if twins:
        found["twins"] = {role: np.concatenate([_loss(twin, role) for twin in twins]) for role in ROLES}
    grid = _loss_grid([losses for by_role in found.values() for losses in by_role.values()])
    counts = {
        name: {role: _histogram(losses, grid) for role, losses in by_role.items()} for name, by_role in found.items()
    }
    edges, trimmed = _trimmed(grid, [c for by_role in counts.values() for c in by_role.values()])
    if edges is None:
        return None
    cut = iter(trimmed)
    return {"edges": edges, "counts": {name: {role: next(cut) for role in ROLES} for name in counts}}


def _loss_grid(every: list[np.ndarray]) -> np.ndarray:
    """Edges of the bins, `(bins + 1,)` nats."""
    losses = np.concatenate([*every, np.empty(0)])
    low, high = LOSSES
    for bins in BINS:
        grid = np.logspace(low, high, (high - low) * bins + 1)
        if np.count_nonzero(_histogram(losses, grid)) >= LEAST_BINS:
            break
    return grid


def _row_z(models: dict[str, Scores | None], twins: list[Scores]) -> dict | None:
    phi = [twin["forget"].log_odds for twin in twins if "forget" in twin]
    stacked = np.stack(phi) if phi else np.empty((0, 0))
    found = {
        name: row_z(scores["forget"].log_odds, stacked)
        for name, scores in models.items()
        if scores is not None and "forget" in scores
    }
    of_twins = (row_z(stacked[i], np.delete(stacked, i, axis=0)) for i in range(len(stacked)))
    each = [z for z in of_twins if z is not None]
    if each and len(each) == len(stacked):
        found["twins"] = np.concatenate(each)
    counts = {name: _histogram(z, Z_GRID) for name, z in found.items() if z is not None}
    edges, trimmed = _trimmed(Z_GRID, list(counts.values()))
    return None if edges is None else {"edges": edges, "counts": dict(zip(counts, trimmed, strict=True))}


def _loss(scores: Scores, role: str) -> np.ndarray:
    """`(rows,)` losses of a role, empty where it is missing; `unseen` rows are of the kind that is forgotten."""
    split = scores.get("nonmembers", scores.get("test")) if role == "unseen" else scores.get(role)
    return np.empty(0) if split is None else np.asarray(split.loss, float)


def _histogram(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    known = values[~np.isnan(values)]
    return np.histogram(np.clip(known, grid[0], grid[-1]), grid)[0]


def _trimmed(grid: np.ndarray, counts: list[np.ndarray]) -> tuple[list[float] | None, list[list[int]]]:
    """The bins from the first to the last that any of `counts` uses."""
    used = np.flatnonzero(np.sum(counts, axis=0)) if counts else np.empty(0)
    if not len(used):
        return None, []
    first, last = int(used[0]), int(used[-1])
    return grid[first : last + 2].tolist(), [c[first : last + 1].tolist() for c in counts]


def _rounded(rates: np.ndarray) -> list[float]:
    return rates.round(5).tolist()


def _rates(nonmembers: int) -> np.ndarray:
    """All false positive rates that occur, or where they are too many an even and a logarithmic half of them."""
    if nonmembers < ROC_POINTS:
        return np.arange(nonmembers + 1) / nonmembers
    half = ROC_POINTS // 2
    chosen = np.concatenate([np.linspace(0, nonmembers, half), np.geomspace(1, nonmembers, half)])
    return np.unique(chosen.round()) / nonmembers


def _tpr_at(fpr: np.ndarray, member_loss: np.ndarray, nonmember_loss: np.ndarray) -> np.ndarray:
    """`(rates,)`: the highest true positive rate of a threshold whose false positive rate is at most each of `fpr`."""
    thresholds = np.unique(np.concatenate([member_loss, nonmember_loss]))
    found = np.searchsorted(np.sort(member_loss), thresholds, side="right") / len(member_loss)
    mistaken = np.searchsorted(np.sort(nonmember_loss), thresholds, side="right")  # counts: exact comparisons
    allowed = np.rint(fpr * len(nonmember_loss))
    return np.concatenate([[0.0], found])[np.searchsorted(mistaken, allowed, side="right")]
