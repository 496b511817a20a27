"""Membership inference by a threshold on one score per row: which rows did the model learn from?

The ideal of every figure is its value for retrained twins; `null` is what it is where both kinds of rows are alike.
"""

import numpy as np
from scipy.stats import rankdata

from hf_unlearn.evaluation.intervals import MIN_ROWS, clopper_pearson, figure, normal_interval
from hf_unlearn.evaluation.metrics import loss_auc

FALSE_POSITIVE_RATES = (0.01, 0.001)
NEEDED_FALSE_POSITIVES = 10  # a rate f of false positives is measured on at least 10/f non-members


def loss_attack(member_loss: np.ndarray, nonmember_loss: np.ndarray, seed: int = 0) -> dict:
    """[`threshold_attack`] of Yeom et al. (2018): the lower the loss, the likelier a member. `(rows,)` each."""
    return threshold_attack(-np.asarray(member_loss, float), -np.asarray(nonmember_loss, float), seed)


def threshold_attack(member_scores: np.ndarray, nonmember_scores: np.ndarray, seed: int = 0) -> dict:
    """All figures of one score; the higher it is, the likelier a row is a member.

    Args:
        member_scores (`np.ndarray`): `(members,)`, any unit; only their order matters.
        nonmember_scores (`np.ndarray`): `(nonmembers,)`.
        seed (`int`): of the halves that thresholds for the balanced accuracy are chosen on.

    Returns:
        `auc`, `balanced_accuracy` and `tpr` (by false positive rate, `"0.01"` and `"0.001"`), each a figure with
        `value`, `interval` and `null`. Undefined figures have the value `None`: see [`auc`], [`balanced_accuracy`],
        [`tpr_at_fpr`].
    """
    return {
        "members": len(member_scores),
        "nonmembers": len(nonmember_scores),
        "auc": auc(member_scores, nonmember_scores),
        "balanced_accuracy": balanced_accuracy(member_scores, nonmember_scores, seed),
        "tpr": {f"{fpr:g}": tpr_at_fpr(member_scores, nonmember_scores, fpr) for fpr in FALSE_POSITIVE_RATES},
    }


def auc(member_scores: np.ndarray, nonmember_scores: np.ndarray) -> dict:
    """Area under the ROC curve with DeLong's interval.

    Where the two sets are perfectly separated, or all scores are equal, DeLong's error is 0, which says nothing: there
    the interval is Clopper-Pearson's for as many trials as the smaller side has rows. Undefined with fewer than two
    rows on a side or NaN; no interval below ten rows on a side.
    """
    member_scores, nonmember_scores = np.asarray(member_scores, float), np.asarray(nonmember_scores, float)
    area = loss_auc(-member_scores, -nonmember_scores)
    smaller = min(len(member_scores), len(nonmember_scores))
    if area.value is None or area.standard_error is None or smaller < MIN_ROWS:
        return figure(area.value, None, 0.5)
    if area.standard_error == 0:
        return figure(area.value, clopper_pearson(area.value * smaller, smaller), 0.5)
    return figure(area.value, normal_interval(area.value, area.standard_error), 0.5)


def balanced_accuracy(member_scores: np.ndarray, nonmember_scores: np.ndarray, seed: int = 0) -> dict:
    """(TPR + TNR)/2 at the best threshold, which is chosen on one random half of the rows and applied to the other,
    both ways: the best threshold of the very rows that are judged finds members where there are none.

    More folds would share their rows, and an interval that ignores that covers too seldom: 83 % at ten folds.
    Undefined below ten rows on a side or with NaN.
    """
    ranks = _ranks(member_scores, nonmember_scores)
    if ranks is None or min(map(len, ranks)) < MIN_ROWS:
        return figure(null=0.5)
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(len(side)) % 2 == 0 for side in ranks]
    hits = [np.empty(len(side), bool) for side in ranks]  # members found; non-members left alone
    for flip in (False, True):
        chosen_on = [half ^ flip for half in halves]
        threshold = _best_threshold(*(side[half] for side, half in zip(ranks, chosen_on, strict=True)))
        for i, (side, half) in enumerate(zip(ranks, chosen_on, strict=True)):
            hits[i][~half] = (side[~half] >= threshold) == (i == 0)
    value = np.mean([side.mean() for side in hits])
    # Agresti and Coull's two extra rows of each kind: no side counts as known without error.
    smoothed = [((side.sum() + 1) / (len(side) + 2), len(side)) for side in hits]
    error = np.sqrt(sum(p * (1 - p) / rows for p, rows in smoothed)) / 2
    return figure(value, normal_interval(float(value), float(error)), 0.5)


def tpr_at_fpr(member_scores: np.ndarray, nonmember_scores: np.ndarray, fpr: float) -> dict:
    """Share of members that score higher than all but the share `fpr` of non-members (Carlini et al. 2022).

    Of n non-members at most ⌊fpr·n⌋ are mistaken for members, ties included. The threshold is itself measured, so the
    interval is Clopper-Pearson's at an effective number of rows: besides the T(1 − T)/m of m members, the variance
    holds r²·f(1 − f)/n, with r = a·T/f the slope of the ROC curve T = f^a through this point (1 where there is nothing
    to find). `null` is (⌊fpr·n⌋ + 1)/(n + 1), what equal scores give on average.

    Undefined with fewer than 10/fpr non-members, without members, or with NaN.
    """
    ranks = _ranks(member_scores, nonmember_scores)
    if ranks is None or len(ranks[1]) < round(NEEDED_FALSE_POSITIVES / fpr) or not len(ranks[0]):
        return figure()
    members, nonmembers = ranks
    allowed = int(fpr * len(nonmembers) + 1e-9)
    threshold = np.sort(nonmembers)[len(nonmembers) - 1 - allowed]
    found = int((members > threshold).sum())
    null = (allowed + 1) / (len(nonmembers) + 1)
    smoothed = (found + 0.5) / (len(members) + 1)
    slope = smoothed / null * np.log(smoothed) / np.log(null)
    own = smoothed * (1 - smoothed)
    variance = own / len(members) + slope**2 * null * (1 - null) / len(nonmembers)
    effective = own / variance
    value = found / len(members)
    return figure(value, clopper_pearson(value * effective, effective), null)


def _ranks(*sides: np.ndarray) -> list[np.ndarray] | None:
    """Scores as ranks over all sides, so that infinite ones are only large; `None` with NaN."""
    joined = np.concatenate([np.asarray(side, float) for side in sides])
    if np.isnan(joined).any():
        return None
    return np.split(rankdata(joined, "dense"), np.cumsum([len(side) for side in sides])[:-1])


def _best_threshold(members: np.ndarray, nonmembers: np.ndarray) -> float:
    """The score from which on rows are called members: TPR − FPR is largest there (Youden 1950).

    It lies halfway to the next lower score: other members just below the lowest one found are members too.
    """
    from sklearn.metrics import roc_curve

    label = np.repeat([1, 0], [len(members), len(nonmembers)])
    fpr, tpr, thresholds = roc_curve(label, np.concatenate([members, nonmembers]), drop_intermediate=False)
    best = int(np.argmax(tpr - fpr))
    return float(thresholds[best : best + 2].mean())
