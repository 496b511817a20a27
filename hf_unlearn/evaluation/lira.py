"""U-LiRA (Hayes et al., arXiv 2403.01218): for each row, was it in the data and then unlearned, or never there?

Shadow models show what φ = log(p/(1 − p)) of a row is in either case; a target model's φ is held against both.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.attacks import FALSE_POSITIVE_RATES, auc, tpr_at_fpr
from hf_unlearn.evaluation.intervals import clopper_pearson, figure, normal_interval
from hf_unlearn.evaluation.metrics import loss_auc

ENOUGH_SHADOWS = 64  # with fewer, a variance per row is too noisy (Carlini et al. 2022)


@dataclass
class Models:
    """Several models' log-odds of the same rows, and what each row was to each model.

    Args:
        phi (`np.ndarray`): `(models, rows)`.
        unlearned (`np.ndarray`): `(models, rows)` bool, the row was in the model's data, then unlearned.
        never (`np.ndarray`): `(models, rows)` bool, the row was never in it. A row that is neither (retained) is left
            out for this model, and its φ is not looked at.
    """

    phi: np.ndarray
    unlearned: np.ndarray
    never: np.ndarray

    def __post_init__(self):
        self.phi = np.asarray(self.phi, float)
        self.unlearned, self.never = np.asarray(self.unlearned, bool), np.asarray(self.never, bool)
        if self.phi.ndim != 2 or not self.phi.shape == self.unlearned.shape == self.never.shape:
            raise UserError("U-LiRA: phi, unlearned and never must be (models, rows), all of one shape")
        if (self.unlearned & self.never).any():
            raise UserError("U-LiRA: a row is both unlearned and never seen in one model: it can be one of them")


def by_row(models: Models, seed: int) -> Iterator[tuple[int, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]]:
    """Each row that has two models of either kind: its place, its φ `(models,)` under those that unlearned it, then
    under those that never saw it, and all these numbers dealt anew at random, as many to either side, for chance."""
    rng = np.random.default_rng(seed)
    for row in range(models.phi.shape[1]):
        phi = models.phi[:, row]
        unlearned, never = (phi[mask[:, row] & np.isfinite(phi)] for mask in (models.unlearned, models.never))
        if min(len(unlearned), len(never)) >= 2:
            dealt = rng.permutation(np.concatenate([unlearned, never]))
            yield row, unlearned, never, (dealt[: len(unlearned)], dealt[len(unlearned) :])


def likelihood_ratio(targets: Models, shadows: Models, variance: str) -> np.ndarray:
    """log p(φ | unlearned) − log p(φ | never), both Gaussian, for every target model and row: `(targets, rows)`.

    NaN where a row is neither in the target, where φ is not finite, or where the shadows cannot tell: with fewer than
    two on either side (`variance="row"`), or none (`"pooled"`).

    Args:
        variance (`str`): `"row"`, or `"pooled"` over rows, separately for the two hypotheses.
    """
    ratio = np.zeros_like(targets.phi)
    for mask, sign in ((shadows.unlearned, 1), (shadows.never, -1)):
        mean, sd = gaussians(shadows.phi, mask, variance)
        ratio += sign * norm.logpdf(targets.phi, mean, sd)
    usable = (targets.unlearned | targets.never) & np.isfinite(targets.phi)
    return np.where(usable, ratio, np.nan)


def gaussians(phi: np.ndarray, mask: np.ndarray, variance: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each row `(rows,)` over the models that `mask` names; NaN where unknown."""
    mask = mask & np.isfinite(phi)
    counts = mask.sum(axis=0)
    mean = np.where(mask, phi, 0).sum(axis=0) / np.where(counts > 0, counts, np.nan)
    squares = np.where(mask, (phi - mean) ** 2, 0).sum(axis=0)
    freedom = np.maximum(counts - 1, 0)
    if variance == "pooled":
        squares, freedom = np.full_like(squares, squares.sum()), np.full_like(freedom, freedom.sum())
    spread = np.sqrt(squares / np.where(freedom > 0, freedom, np.nan))
    return mean, np.where(spread > 0, spread, np.nan)


def u_lira(targets: Models, shadows: Models) -> dict:
    """U-LiRA with a variance per row and with the pooled one; JSON types only.

    Returns:
        `variance` is the one to go by, `"row"` from 64 shadows on and else `"pooled"`; under both names the figures of
        [`attack_figures`]; `shadows` and `shadows_per_row` (the fewest on either side).
    """
    fewest = [int(mask.sum(axis=0).min(initial=len(mask))) for mask in (shadows.unlearned, shadows.never)]
    return {
        "variance": "row" if len(shadows.phi) >= ENOUGH_SHADOWS else "pooled",
        "shadows": len(shadows.phi),
        "shadows_per_row": min(fewest),
        **{name: attack_figures(likelihood_ratio(targets, shadows, name), targets) for name in ("row", "pooled")},
    }


def attack_figures(scores: np.ndarray, targets: Models) -> dict:
    """AUC and TPR of per-row scores over several target models, with intervals that count models, not rows.

    Rows of one model go up and down together, so rows of several models are not as many independent trials. With two
    or more targets `auc` is the mean over models and its interval Student's over them; `tpr` is measured at one
    threshold for all models, its interval Student's over what each model adds to it (its TPR, less the slope of the
    ROC curve times its excess of false positives). Models that agree exactly do not say how far others lie apart:
    there the interval counts rows, of the AUC those of one side of one model, of the TPR all. With one target the
    intervals are those of [`auc`] and [`tpr_at_fpr`]: they hold for this one model. If the same rows are unlearned in
    all targets, the shadows' errors at these rows do not average out over targets: draw the rows anew for each.

    Where no target has rows of both kinds (a class is removed from some, and others never saw it), targets 2k and
    2k + 1 together count as one.

    Args:
        scores (`np.ndarray`): `(targets, rows)`, higher means unlearned rather than never seen; NaN is left out.
        targets (`Models`): what each row was to each target.
    """
    known = ~np.isnan(scores)
    tables = [scores, targets.unlearned & known, targets.never & known]
    if not (targets.unlearned.any(axis=1) & targets.never.any(axis=1)).any():
        pairs = len(scores) // 2
        tables = [table[: 2 * pairs].reshape(pairs, 2 * scores.shape[1]) for table in tables]
    sides = [(row_scores[unlearned], row_scores[never]) for row_scores, unlearned, never in zip(*tables, strict=True)]
    sides = [pair for pair in sides if min(map(len, pair)) >= 2]
    result = {"targets": len(sides), "clustered": len(sides) >= 2}
    if not sides:
        return result | {"auc": figure(null=0.5), "tpr": {f"{fpr:g}": figure() for fpr in FALSE_POSITIVE_RATES}}
    pooled = [np.concatenate(side) for side in zip(*sides, strict=True)]
    tpr = {f"{fpr:g}": tpr_at_fpr(pooled[0], pooled[1], fpr) for fpr in FALSE_POSITIVE_RATES}
    if len(sides) == 1:
        return result | {"auc": auc(pooled[0], pooled[1]), "tpr": tpr}
    found = (loss_auc(-members, -nonmembers).value for members, nonmembers in sides)
    areas = [area for area in found if area is not None]
    mean = float(np.mean(areas))
    for fpr in FALSE_POSITIVE_RATES:
        if tpr[f"{fpr:g}"]["value"] is not None:
            clustered = _clustered_tpr_interval(sides, pooled, fpr, tpr[f"{fpr:g}"])
            tpr[f"{fpr:g}"]["interval"] = clustered or tpr[f"{fpr:g}"]["interval"]
    fewest = min(len(side) for pair in sides for side in pair)
    interval = _over_models(areas, mean) or clopper_pearson(mean * fewest, fewest)
    return result | {"auc": figure(mean, interval, 0.5), "tpr": tpr}


def _clustered_tpr_interval(sides: list, pooled: list[np.ndarray], fpr: float, found: dict) -> list[float] | None:
    allowed = int(fpr * len(pooled[1]) + 1e-9)
    threshold = np.sort(pooled[1])[len(pooled[1]) - 1 - allowed]
    value, null = found["value"], found["null"]
    slope = value / null * np.log(value) / np.log(null) if value > 0 else 0.0
    shares = [((members > threshold).mean(), (others > threshold).mean()) for members, others in sides]
    return _over_models([tpr - slope * mistaken for tpr, mistaken in shares], value)


def _over_models(values: list[float], center: float) -> list[float] | None:
    """Student's interval; `None` where the models agree exactly."""
    if np.ptp(values) == 0:
        return None
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return normal_interval(float(center), float(error), degrees=len(values) - 1)
