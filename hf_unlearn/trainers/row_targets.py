"""A target for every forget row: the log-odds that a model which never saw the row would give its label.

A source that has not seen the forget rows, a probe or a proxy, says how hard each row is on a scale of its own.
Validation rows were seen by neither it nor the model, so they translate: the q-quantile of the source's log-odds on
validation becomes the q-quantile of the model's. A quantile map, unlike a regression, keeps the hard tail: as many
rows end up misclassified as would be if they were new.

Classifiers are compared on all (row, class) pairs, those with the right class and those with a wrong one at equal
weight. So the one map also serves rows that were trained with a wrong label. Removed classes have one of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from hf_unlearn.tasks.predictions import Predictions

LEVEL_WEIGHT = 5.0  # the proxy's log-odds are worth more than one direction of its embeddings
SMALLEST_SPREAD = 0.5  # nats; validation rows on which a model is sure alike do not make the loss explode


def class_log_odds(predictions: Predictions) -> torch.Tensor:
    """log(p / (1 − p)) of every class, `(size, classes)`; for causal LMs of the answer alone, `(size, 1)`."""
    if predictions.example is not None:
        return predictions.log_odds[:, None]
    logits = predictions.logits.double()
    total = logits.logsumexp(1, keepdim=True)
    log_p = logits - total
    # log(1 − p) from p, except for the largest class, where the others' log-sum-exp keeps what 1 − p would lose.
    top = logits.argmax(1, keepdim=True)
    others = logits.scatter(1, top, float("-inf")).logsumexp(1, keepdim=True) - total
    log_rest = torch.log1p(-log_p.exp().clamp(max=1 - 1e-16)).scatter(1, top, others)
    return log_p - log_rest


class RowTargets:
    """Translates a proxy's log-odds into targets for the forget rows.

    Args:
        proxy_validation (`np.ndarray`): `(rows, classes)`, the proxy's log-odds on validation rows.
        proxy_forget (`np.ndarray`): `(forget rows,)`, the proxy's log-odds of the forget rows' labels.
        right (`np.ndarray`): `(rows, classes)`, 1 for a row's own class, 0 for a wrong one, −1 for a pair to leave out
            (classes that no retained row has).
        removed (`RemovedClasses`, *optional*): forget rows whose class no retained row has.
        steadies: draw targets of rows whose label is rather right than wrong towards the median of validation rows,
            by √r with r the correlation of source and model on them. A source that says little of single rows is then
            believed less, half way to a regression, which leaves no hard rows. (The mean lies below what is usual.)
    """

    def __init__(
        self,
        proxy_validation: np.ndarray,
        proxy_forget: np.ndarray,
        right: np.ndarray,
        removed: "RemovedClasses | None" = None,
        steadies: bool = False,
    ):
        self.removed, self.steadies = removed, steadies
        self.proxy_validation = np.asarray(proxy_validation, dtype=np.float64)
        self.proxy_forget = np.asarray(proxy_forget, dtype=np.float64)
        self.right = np.asarray(right)

    @classmethod
    def from_answers(
        cls,
        seen: np.ndarray,
        asked: np.ndarray,
        labels: np.ndarray,
        own: np.ndarray,
        kept: np.ndarray,
        steadies: bool = False,
        unmet: "Unmet | None" = None,
    ) -> "RowTargets":
        """From what a source says, whichever labels rows have.

        Args:
            seen, asked: `(rows, classes)` and `(forget rows, classes)`, its log-odds of validation and forget rows.
            labels, own, kept: labels of validation, forget and retain rows, each `(rows,)`.
            steadies: as for the class.
            unmet: what a model trained on the retain rows alone says of the forget rows.
        """
        known = np.unique(kept)
        right = np.where(np.isin(np.arange(seen.shape[1]), known), 0, -1)[None].repeat(len(labels), 0)
        right[np.arange(len(labels)), labels] = np.where(np.isin(labels, known), 1, -1)
        removed, gone = None, np.where(np.isin(own, known), -1, own)
        if (gone >= 0).any():
            removed = RemovedClasses(gone, seen[:, known].max(1), asked[:, known].max(1), unmet)
        return cls(seen, asked[np.arange(len(own)), own], right, removed, steadies)

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """All of it, by the names that checkpoints keep."""
        values = {"proxy_validation": self.proxy_validation, "proxy_forget": self.proxy_forget, "right": self.right}
        values["steadies"] = np.array(self.steadies)
        if (removed := self.removed) is not None:
            values |= {"removed": removed.label}
            values |= {"sure_validation": removed.sure_validation, "sure_forget": removed.sure_forget}
            if removed.unmet is not None:
                values |= {"unmet": removed.unmet.log_odds, "unmet_ends": np.array(removed.unmet.ends)}
        return {name: torch.tensor(value) for name, value in values.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> "RowTargets":
        """What [`to_tensors`] gave, found among others."""
        removed = None
        if "removed" in tensors:
            unmet = Unmet(tensors["unmet"].numpy(), bool(tensors["unmet_ends"])) if "unmet" in tensors else None
            label, *sure = (tensors[name].numpy() for name in ("removed", "sure_validation", "sure_forget"))
            removed = RemovedClasses(label, sure[0], sure[1], unmet)
        seen, asked, right = (tensors[name].numpy() for name in ("proxy_validation", "proxy_forget", "right"))
        return cls(seen, asked, right, removed, bool(tensors["steadies"]))

    def fit(self, validation: np.ndarray) -> tuple[np.ndarray, float]:
        """Targets `(forget rows,)` for a model with log-odds `validation` `(rows, classes)`, and the spread (standard
        deviation) of that model's log-odds on validation rows' own classes, in nats."""
        own, wrong = self.right == 1, self.right == 0
        share, chance = self.mixture()
        weight = np.concatenate(
            [np.full(own.sum(), share / own.sum()), np.full(wrong.sum(), (1 - share) / max(1, wrong.sum()))]
        )
        proxy = np.concatenate([self.proxy_validation[own], self.proxy_validation[wrong]])
        model = np.concatenate([validation[own], validation[wrong]])
        targets = quantile_map(self.proxy_forget, proxy, model, weight)
        if self.steadies:
            kept = max(0.0, correlation(self.proxy_validation[own], validation[own])) ** 0.5
            targets += (chance > 0.5) * (1 - kept) * (np.median(validation[own]) - targets)
        if self.removed is not None:
            targets = self.removed.fit(targets, validation)
        return targets, max(float(validation[own].std()), SMALLEST_SPREAD)

    def mixture(self) -> tuple[float, np.ndarray]:
        """Share of the forget rows whose label is right in the proxy's eyes, by maximum likelihood, and each one's
        chance of that, `(forget rows,)`."""
        own, wrong = self.proxy_validation[self.right == 1], self.proxy_validation[self.right == 0]
        kept = np.ones(len(self.proxy_forget), dtype=bool) if self.removed is None else self.removed.label < 0
        if not len(wrong) or not kept.any():
            return 1.0, np.ones(len(kept))
        chance = np.ones(len(kept))
        share, chance[kept] = mixture(self.proxy_forget[kept], own, wrong)
        return share, chance


@dataclass
class Unmet:
    """How likely a model that was trained on the retain rows alone finds the forget rows' own labels.

    Args:
        log_odds (`np.ndarray`): `(forget rows,)`, in nats.
        ends: whether it was trained to the end, as a twin is; a proxy stops long before.
    """

    log_odds: np.ndarray
    ends: bool = False


class RemovedClasses:
    """Targets of rows whose class goes: how likely a model that never met the class finds it for such a row.

    It is as unlikely as the model at hand finds that class on rows of others, and the likelier, the less sure one is
    of any other class: a line through validation rows, against the source's log-odds of their likeliest class.

    After a short training that is too likely: rows of others then still get a part of what the class's own rows
    taught. A class that is never met is pushed down from the first step on, faster than any other, and on all rows
    alike. So no row's target lies above what a proxy says of it, which never met the class either, and would have come
    further down with more steps. What was trained to the end is the answer.

    Args:
        label (`np.ndarray`): `(forget rows,)`, the class of a row that no retained row has, else −1.
        sure_validation (`np.ndarray`): `(rows,)`, the source's highest log-odds among the retained classes.
        sure_forget (`np.ndarray`): `(forget rows,)`.
        unmet: of a source that was trained; nothing bounds the line without.
    """

    def __init__(
        self, label: np.ndarray, sure_validation: np.ndarray, sure_forget: np.ndarray, unmet: Unmet | None = None
    ):
        self.label, self.sure_validation, self.sure_forget, self.unmet = label, sure_validation, sure_forget, unmet

    def fit(self, targets: np.ndarray, validation: np.ndarray) -> np.ndarray:
        """`targets` `(forget rows,)` with those of removed classes set; `validation` as for [`RowTargets.fit`]."""
        targets = targets.copy()
        for label in np.unique(self.label[self.label >= 0]):
            rows, column = self.label == label, validation[:, label]
            slope, level = np.polyfit(self.sure_validation, column, 1)
            targets[rows] = (level + slope * self.sure_forget[rows]).clip(column.min(), column.max())
            if self.unmet is not None:
                said = self.unmet.log_odds[rows]
                targets[rows] = said if self.unmet.ends else np.minimum(targets[rows], said)
        return targets


def mixture(values: np.ndarray, first: np.ndarray, second: np.ndarray, bins: int = 20) -> tuple[float, np.ndarray]:
    """Share of `values` drawn from the distribution of `first` rather than of `second`, and each one's own chance:
    expectation maximization over histograms whose bins hold equally many of both samples."""
    weight = np.concatenate([np.full(len(first), 1 / len(first)), np.full(len(second), 1 / len(second))])
    both = np.concatenate([first, second])
    order = np.argsort(both)
    edges = np.interp(np.linspace(0, 1, bins + 1)[1:-1], _levels(weight[order]), both[order])
    f, g = (
        (np.bincount(np.searchsorted(edges, x), minlength=bins) + 0.5) / (len(x) + 0.5 * bins) for x in (first, second)
    )
    at = np.searchsorted(edges, values)
    share = 0.5
    for _ in range(200):
        chance = share * f[at] / (share * f[at] + (1 - share) * g[at])
        share = float(chance.mean())
    return share, chance


class RegressedTargets:
    """Targets where a row has no class that it could be mistaken for: causal LMs.

    A ridge regression on validation rows predicts the model's log-odds from the proxy's and from where the proxy
    places the row (which kind of question it is, say). It never sees a forget row, so it cannot remember one.

    Args:
        proxy_validation (`np.ndarray`): `(rows, 1 + dim)`, the proxy's log-odds of validation rows, then their
            embeddings.
        proxy_forget (`np.ndarray`): `(forget rows, 1 + dim)`.
    """

    def __init__(self, proxy_validation: np.ndarray, proxy_forget: np.ndarray):
        self.proxy_validation, self.proxy_forget = proxy_validation, proxy_forget
        mean, spread = proxy_validation.mean(0), np.maximum(proxy_validation.std(0), 1e-8)
        weight = np.r_[LEVEL_WEIGHT, np.ones(proxy_validation.shape[1] - 1)]
        self.known = (proxy_validation - mean) / spread * weight
        self.asked = (proxy_forget - mean) / spread * weight

    def fit(self, validation: np.ndarray) -> tuple[np.ndarray, float]:
        """As [`RowTargets.fit`], for log-odds `validation` `(rows, 1)`."""
        log_odds = validation[:, 0]
        ridge = self._ridge(log_odds)
        targets = ridge.predict(self.asked).clip(log_odds.min(), log_odds.max())
        return targets, max(float(log_odds.std()), SMALLEST_SPREAD)

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """All of it, by the names that checkpoints keep."""
        values = {"proxy_validation": self.proxy_validation, "proxy_forget": self.proxy_forget}
        return {name: torch.tensor(value) for name, value in values.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> "RegressedTargets":
        """What [`to_tensors`] gave, found among others."""
        return cls(*(tensors[name].numpy() for name in ("proxy_validation", "proxy_forget")))

    def error(self, validation: np.ndarray) -> float:
        """Mean squared error on validation rows that are left out one by one."""
        return -float(self._ridge(validation[:, 0]).best_score_)

    def _ridge(self, log_odds: np.ndarray):
        from sklearn.linear_model import RidgeCV

        return RidgeCV(alphas=np.logspace(-1, 4, 11)).fit(self.known, log_odds)


def quantile_map(values: np.ndarray, source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Each value's weighted quantile in `source`, looked up in `target`. `source`, `target`, `weight`: `(pairs,)`."""
    by_source, by_target = np.argsort(source, kind="stable"), np.argsort(target, kind="stable")
    levels = np.interp(values, source[by_source], _levels(weight[by_source]))
    return np.interp(levels, _levels(weight[by_target]), target[by_target])


def _levels(weight: np.ndarray) -> np.ndarray:
    return (np.cumsum(weight) - weight / 2) / weight.sum()


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's r; 0 where one of the two does not vary."""
    if min(first.std(), second.std()) < 1e-12:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
