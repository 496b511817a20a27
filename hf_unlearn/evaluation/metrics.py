"""Figures computed from the arrays of the scoring pass. Pure functions: they know no models."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from hf_unlearn.evaluation.scores import SplitScores

REMEMBERED_Z = 2.0  # beyond two standard deviations from the twins a row counts as remembered, or as over-forgotten


@dataclass
class Auc:
    """Area under the ROC curve in [0, 1] with its standard error; both `None` where they are undefined."""

    value: float | None
    standard_error: float | None


def loss_auc(member_loss: np.ndarray, nonmember_loss: np.ndarray) -> Auc:
    """How well the loss alone tells forget rows from unseen rows: P(member's loss < non-member's loss), ties half.

    The standard error is DeLong's: it holds for these rows and this one model, and is 0 where the two sets are
    perfectly separated or all losses are equal. The ideal is the value of a retrained twin, not 0.5. Undefined with
    fewer than two rows on either side, or where a loss is NaN.

    Args:
        member_loss (`np.ndarray`): `(members,)`, any unit.
        nonmember_loss (`np.ndarray`): `(nonmembers,)`.
    """
    placed = placements(member_loss, nonmember_loss)
    if placed is None:
        return Auc(None, None)
    beaten, beaten_by = placed
    variance = beaten.var(ddof=1) / len(beaten) + beaten_by.var(ddof=1) / len(beaten_by)
    return Auc(float(beaten.mean()), float(np.sqrt(variance)))


def placements(member_loss: np.ndarray, nonmember_loss: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """For each row the share of the other side that it tells apart: `(members,)` and `(nonmembers,)`.

    The mean of either is the AUC, and their variances give its standard error (DeLong et al. 1988; from midranks, Sun
    and Xu 2014). `None` with fewer than two rows on either side, or where a loss is NaN.
    """
    members, nonmembers = -np.asarray(member_loss, float), -np.asarray(nonmember_loss, float)
    if min(len(members), len(nonmembers)) < 2 or np.isnan(members).any() or np.isnan(nonmembers).any():
        return None
    ranks = rankdata(np.concatenate([members, nonmembers]))
    beaten = (ranks[: len(members)] - rankdata(members)) / len(nonmembers)
    beaten_by = 1 - (ranks[len(members) :] - rankdata(nonmembers)) / len(members)
    return beaten, beaten_by


def row_z(phi: np.ndarray, twins_phi: np.ndarray) -> np.ndarray | None:
    """How far each row's log-odds lie from what twins give that row, in standard deviations: `(rows,)`.

    z = (φ − mean over twins) / (s · √(1 + 1/k)), where s² is the variance of a row between the k twins, pooled over
    rows. The root accounts for the error of a mean of k twins: one more twin has rms z 1 on average, whatever k is.
    `None` with fewer than two twins, without rows, where the twins agree exactly, or where a value is not finite.

    Args:
        phi (`np.ndarray`): `(rows,)`, log-odds under the model that is judged.
        twins_phi (`np.ndarray`): `(twins, rows)`.
    """
    phi, twins_phi = np.asarray(phi, float), np.asarray(twins_phi, float)
    if len(twins_phi) < 2 or len(phi) == 0 or not np.isfinite(phi).all() or not np.isfinite(twins_phi).all():
        return None
    spread = np.sqrt(twins_phi.var(axis=0, ddof=1).mean() * (1 + 1 / len(twins_phi)))
    if not spread > 0:
        return None
    return (phi - twins_phi.mean(axis=0)) / spread


def row_statistics(phi: np.ndarray, twins_phi: np.ndarray) -> dict[str, float | None]:
    """`rms_z`, `remembered` (share of rows with z > 2) and `over_forgotten` (share with z < −2) of [`row_z`].

    All `None` with fewer than two twins: their spread is the unit. Shapes as in [`row_z`].
    """
    z = row_z(phi, twins_phi)
    if z is None:
        return {"rms_z": None, "remembered": None, "over_forgotten": None}
    return {
        "rms_z": float(np.sqrt(np.mean(z**2))),
        "remembered": float(np.mean(z > REMEMBERED_Z)),
        "over_forgotten": float(np.mean(z < -REMEMBERED_Z)),
    }


def row_statistics_floor(twins_phi: np.ndarray) -> dict[str, float | None]:
    """[`row_statistics`] of each twin against the others, averaged: what a perfect result looks like.

    All `None` with fewer than three twins, because the others must be at least two.
    """
    each = [row_statistics(twins_phi[i], np.delete(twins_phi, i, axis=0)) for i in range(len(twins_phi))]
    return mean_of(each or [row_statistics(np.empty(0), np.empty((0, 0)))])


def median_loss(loss: np.ndarray) -> float | None:
    """Median in nats: unlike the mean, a few outliers cannot pay for everybody."""
    return float(np.median(loss)) if len(loss) else None


def top5_loss_share(loss: np.ndarray) -> float | None:
    """Share of the summed loss that the 5 % of rows with the highest loss carry (at least one row), in [0, 1]."""
    total = float(np.sum(loss))
    if not len(loss) or not np.isfinite(total) or total <= 0:
        return None
    highest = np.sort(loss)[-max(1, round(0.05 * len(loss))) :]
    return float(highest.sum() / total)


def evaluation_metrics(scores: dict[str, SplitScores]) -> dict[str, float]:
    """What an evaluation logs: `<split>_accuracy` in [0, 1] and `<split>_loss` in nats for each split that is given,
    and `membership_auc` with `membership_auc_se` where `forget` and `nonmembers` (or else `test`) are among them.

    Splits without rows and undefined figures are left out: trackers take numbers only.
    """
    metrics = {}
    for name, split in scores.items():
        if name != "nonmembers" and len(split):
            metrics[f"{name}_accuracy"] = split.accuracy
            metrics[f"{name}_loss"] = float(split.loss.mean())
    nonmembers = scores.get("nonmembers", scores.get("test"))
    if "forget" in scores and nonmembers is not None:
        auc = loss_auc(scores["forget"].loss, nonmembers.loss)
        if auc.value is not None and auc.standard_error is not None:
            metrics |= {"membership_auc": auc.value, "membership_auc_se": auc.standard_error}
    return metrics


def mean_of(blocks: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Mean of equally keyed dicts, key by key; a key that is `None` anywhere stays `None`."""

    def mean(values):
        return None if any(value is None for value in values) else float(np.mean(values))

    return {key: mean([block[key] for block in blocks]) for key in (blocks[0] if blocks else {})}
