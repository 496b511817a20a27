"""Membership inference by a classifier of one figure per row: a logistic regression, and SalUn's support vectors."""

from collections.abc import Iterator

import numpy as np

from hf_unlearn.evaluation.intervals import MIN_ROWS, figure, mean_share_interval, normal_interval

SPLITS = 10
SHUFFLES = 20
DRAWS = 10
HELD_OUT = 0.2
MAX_ROWS = 500


def logistic_attack(member_feature: np.ndarray, nonmember_feature: np.ndarray, seed: int = 0) -> dict:
    """Accuracy of a logistic regression on one figure, the attack of ∇τ's authors (Trippa et al. 2024).

    The larger side is cut to the size of the smaller one at random; accuracies are averaged over 10 stratified shuffle
    splits, 10 % of the rows held out in each. The splits share rows, for fitting and for testing, so their spread is
    not the error of their mean: the interval takes the spread of the whole procedure under 20 random labellings.
    Undefined below ten rows on a side or with figures that are not finite.

    Args:
        member_feature (`np.ndarray`): `(members,)`, for example losses or entropies.
        nonmember_feature (`np.ndarray`): `(nonmembers,)`.
        seed (`int`): of the rows that are left out, the splits and the labellings.
    """
    sides = [np.asarray(side, float) for side in (member_feature, nonmember_feature)]
    size = min(map(len, sides))
    if size < MIN_ROWS or not all(np.isfinite(side).all() for side in sides):
        return figure(null=0.5)
    rng = np.random.default_rng(seed)
    feature = np.concatenate([side[rng.permutation(len(side))[:size]] for side in sides])
    label = np.repeat([1, 0], size)
    value = _shuffle_split_accuracy(feature, label, seed)
    shuffled = [_shuffle_split_accuracy(feature, rng.permutation(label), seed + 1 + i) for i in range(SHUFFLES)]
    interval = normal_interval(value, float(np.std(shuffled, ddof=1)), degrees=SHUFFLES - 1)
    return figure(value, interval, 0.5)


def _shuffle_split_accuracy(feature: np.ndarray, label: np.ndarray, seed: int) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit

    accuracies = []
    for train, test in StratifiedShuffleSplit(SPLITS, random_state=seed).split(feature, label):
        attack = LogisticRegression().fit(feature[train, None], label[train])
        accuracies.append(attack.score(feature[test, None], label[test]))
    return float(np.mean(accuracies))


def svc_efficacy(
    forget_feature: np.ndarray,
    retain_feature: np.ndarray,
    test_feature: np.ndarray,
    retain_label: np.ndarray | None = None,
    test_label: np.ndarray | None = None,
    seed: int = 0,
) -> dict:
    """Share of forget rows that an RBF support vector classifier (C = 3, gamma 'auto'), trained to tell retain rows
    (members) from test rows (non-members), calls non-members: SalUn's "MIA" (Fan et al. 2024).

    Averaged over 10 draws of training rows: equally many of either side, of every class where labels are given
    (classes that only one side has are left out), at most 500 a side and 80 % of the test rows. What the classifier
    calls non-members when there is nothing to tell is not one half, so `null` is the share among the test rows that a
    draw left out: a model that never saw the forget rows comes close to it. The interval is over forget rows, for
    these draws. Undefined below ten rows of any kind, below ten rows a side to train on, or with figures that are not
    finite.

    Args:
        forget_feature, retain_feature, test_feature (`np.ndarray`): `(rows,)` each.
        retain_label, test_label (`np.ndarray`, *optional*): class ids, `(rows,)`.
        seed (`int`): of the draws.
    """
    from sklearn.svm import SVC

    forget, retain, test = (np.asarray(side, float) for side in (forget_feature, retain_feature, test_feature))
    finite = all(np.isfinite(side).all() for side in (forget, retain, test))
    if min(map(len, (forget, retain, test))) < MIN_ROWS or not finite:
        return figure()
    votes, unseen, times = np.zeros(len(forget)), np.zeros(len(test)), np.zeros(len(test))
    draws = 0
    for members, nonmembers in _balanced_draws(retain, test, retain_label, test_label, seed):
        if len(members) < MIN_ROWS:
            return figure()
        feature = np.concatenate([retain[members], test[nonmembers]])[:, None]
        attack = SVC(C=3, gamma="auto").fit(feature, np.repeat([1, 0], len(members)))
        votes += attack.predict(forget[:, None]) == 0
        left_out = np.setdiff1d(np.arange(len(test)), nonmembers)
        unseen[left_out] += attack.predict(test[left_out, None]) == 0
        times[left_out] += 1
        draws += 1
    share = votes / draws
    return figure(share.mean(), mean_share_interval(share), unseen.sum() / times.sum())


def _balanced_draws(
    retain: np.ndarray,
    test: np.ndarray,
    retain_label: np.ndarray | None,
    test_label: np.ndarray | None,
    seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ten times the places of equally many retain and test rows to train on, class by class."""
    if retain_label is None or test_label is None:
        retain_label, test_label = np.zeros(len(retain)), np.zeros(len(test))
    rng = np.random.default_rng(seed)
    rows: dict[float, tuple[np.ndarray, np.ndarray, int]] = {}
    for label in np.intersect1d(retain_label, test_label):
        kept, unseen = np.flatnonzero(retain_label == label), np.flatnonzero(test_label == label)
        rows[float(label)] = (kept, unseen, min(len(kept), int((1 - HELD_OUT) * len(unseen))))
    total = sum(size for *_, size in rows.values())
    share = min(1.0, MAX_ROWS / total) if total else 0.0
    for _ in range(DRAWS):
        drawn: tuple[list, list] = ([], [])
        for kept, unseen, size in rows.values():
            for side, own in zip(drawn, (kept, unseen), strict=True):
                side.append(rng.permutation(own)[: round(share * size)])
        members, nonmembers = (np.concatenate(side) if side else np.empty(0, int) for side in drawn)
        yield members, nonmembers
