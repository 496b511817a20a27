"""What a finished model remembers of given rows, without any unlearning: pure functions of losses.

Rows that were never trained on are exchangeable with unseen rows of their kind, so the share of them that scores above
nearly all unseen rows is known. A base model's losses take off what makes a row easy for any model.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.stats import betabinom, rankdata, t

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.attacks import NEEDED_FALSE_POSITIVES, auc
from hf_unlearn.evaluation.intervals import LEVEL, clopper_pearson, figure
from hf_unlearn.report.audit import ALIKE, KNOWN, UNJUDGED, Gained, StandingOut
from hf_unlearn.report.blocks import AttackFigure

RATES = (0.01, 0.05, 0.1, 0.2)  # of false positives; the lowest that the unseen rows allow
LEAST_AUDITED = 10
LEAST_UNSEEN = round(NEEDED_FALSE_POSITIVES / RATES[-1])
DRAWS = 4000  # of rows that could as well have been the audited ones


@dataclass(frozen=True)
class Judged:
    """What scores of audited rows show beside those of unseen ones.

    Args:
        p_value: of rows that are alike, see [`chance`]; below 5 % the model knows the rows.
        stands_out: `(rows,)` bool, in the order of the audited rows; none without unseen rows.
        beaten: `(rows,)`, share of the unseen rows that score lower; NaN without them.
        scores: `(rows,)`, higher for rows that are known better.
    """

    auc: AttackFigure | None
    p_value: float | None
    standing_out: StandingOut | None
    gained: Gained | None
    verdict: str
    stands_out: np.ndarray
    beaten: np.ndarray
    scores: np.ndarray


def judge_rows(
    loss: np.ndarray,
    unseen_loss: np.ndarray | None = None,
    base_loss: np.ndarray | None = None,
    unseen_base_loss: np.ndarray | None = None,
    rate: float | None = None,
    seed: int = 0,
) -> Judged:
    """Judge audited rows by their losses under the model, less those under a base where there is one.

    Args:
        loss, base_loss: `(rows,)` in nats, of the audited rows under the model and under the base.
        unseen_loss, unseen_base_loss: `(unseen,)`, of unseen rows; `None` where there are none.
        rate: of false positives; by default the lowest of `RATES` that so many unseen rows allow.
        seed: of the draws of [`chance`].

    Raises `UserError` for too few rows on a side, a rate that they do not allow, losses that are not finite, and where
    there is neither an unseen row nor a base.
    """
    if len(loss) < LEAST_AUDITED:
        raise UserError(f"{len(loss)} rows to audit are too few to say anything of; name {LEAST_AUDITED} or more")
    if unseen_loss is None and base_loss is None:
        raise UserError("no unseen rows: name an `unseen_file` or a `test_split`, or compare with a `base_model`")
    for given in (loss, unseen_loss, base_loss, unseen_base_loss):
        if given is not None and not np.isfinite(given).all():
            raise UserError("some losses are not finite: the model is broken, or its rows have no token to predict")
    gained = None if base_loss is None else gain(base_loss - loss)
    scores = -loss if base_loss is None else base_loss - loss
    if unseen_loss is None:
        nothing = np.full(len(loss), np.nan)
        return Judged(None, None, None, gained, UNJUDGED, np.zeros(len(loss), bool), nothing, scores)
    unseen = -unseen_loss if unseen_base_loss is None else unseen_base_loss - unseen_loss
    area = auc(scores, unseen)
    threshold, out = standing_out(scores, unseen, settled_rate(len(unseen), rate))
    beaten = np.searchsorted(np.sort(unseen), scores, "left") / len(unseen)
    p_value = chance(scores, unseen, out["false_positive_rate"], seed)
    judged = KNOWN if p_value < 1 - LEVEL else ALIKE
    return Judged(cast(AttackFigure, area), p_value, out, gained, judged, scores > threshold, beaten, scores)


def chance(scores: np.ndarray, unseen: np.ndarray, rate: float, seed: int = 0, draws: int = DRAWS) -> float:
    """How likely audited rows that are alike would look so well known: a permutation test of three sums over them.

    These are of ranks (the AUC), of scores (the mean: of rows that are all right where some unseen ones are wrong it
    says most), and of rows among the highest share `rate`. Their smallest p-value is held against that of as many rows
    drawn from all of them, so that three looks count as one.
    """
    pooled = np.concatenate([scores, unseen])
    ranks, count = rankdata(pooled), len(scores)
    columns = np.stack([ranks, pooled - pooled.mean(), ranks > (1 - rate) * len(pooled)], axis=1)
    rng = np.random.default_rng(seed)
    sums = np.empty((draws + 1, columns.shape[1]))
    sums[0] = columns[:count].sum(axis=0)
    for draw in range(1, draws + 1):
        sums[draw] = columns[rng.choice(len(pooled), count, replace=False, shuffle=False)].sum(axis=0)
    sums = sums.round(9)  # orders of addition must not tell equal sums apart
    each = np.stack([rankdata(-column, "max") for column in sums.T]) / (draws + 1)
    smallest = each.min(axis=0)
    return float((smallest <= smallest[0]).mean())


def settled_rate(unseen: int, rate: float | None = None) -> float:
    """The rate of false positives, which takes 10/rate unseen rows. Raises `UserError` where there are fewer."""
    if rate is not None and not 0 < rate < 1:
        raise UserError(f"`false_positive_rate` is {rate:g}; it is a share between 0 and 1, both excluded")
    allowed = [known for known in ((rate,) if rate else RATES) if unseen >= round(NEEDED_FALSE_POSITIVES / known)]
    if allowed:
        return allowed[0]
    least = LEAST_UNSEEN if rate is None else round(NEEDED_FALSE_POSITIVES / rate)
    at = "" if rate is None else f" at a `false_positive_rate` of {rate:g}"
    raise UserError(f"{unseen} unseen rows are too few{at}: it takes {least:,}, e.g. by an `unseen_file`")


def standing_out(scores: np.ndarray, unseen: np.ndarray, rate: float) -> tuple[float, StandingOut]:
    """The threshold, and the rows above it: of n unseen rows at most ⌊rate·n⌋ lie above.

    If all rows are alike, the count has a beta-binomial distribution, whatever the scores: with a = ⌊rate·n⌋ + 1 it is
    that of m rows at a share drawn from Beta(a, n + 1 − a). The interval of the share is Clopper-Pearson's: of these
    rows at this threshold.
    """
    count, n = len(scores), len(unseen)
    allowed = int(rate * n + 1e-9)
    threshold = float(np.sort(unseen)[n - 1 - allowed])
    found = int((scores > threshold).sum())
    null = (allowed + 1) / (n + 1)
    share = figure(found / count, clopper_pearson(found, count), null)
    return threshold, {
        "false_positive_rate": rate,
        "count": found,
        "expected": null * count,
        "share": cast(AttackFigure, share),
        "p_value": float(betabinom.sf(found - 1, count, allowed + 1, n - allowed)),
    }


def gain(difference: np.ndarray) -> Gained:
    """Mean of `(rows,)` differences with Student's interval, and the share above 0 with the exact one."""
    count, mean = len(difference), float(difference.mean())
    half = float(t.ppf((1 + LEVEL) / 2, count - 1) * difference.std(ddof=1) / np.sqrt(count))
    better = int((difference > 0).sum())
    share = figure(better / count, clopper_pearson(better, count))
    return {"mean": mean, "interval": [mean - half, mean + half], "share": cast(AttackFigure, share)}
