"""The figures that are judged, each as a mean over rows with the variance that rows give it between retrainings."""

import math

import numpy as np

from hf_unlearn.evaluation.judgement import Measured, judge
from hf_unlearn.evaluation.metrics import placements
from hf_unlearn.evaluation.scores import SplitScores

Scores = dict[str, SplitScores]
MARGINS = {  # points; of row figures standard deviations between twins, and the logarithm of a ratio
    "forget_accuracy": 3.0,
    "membership": 3.0,
    "row_shift": 0.5,
    "row_spread": math.log(1.3),
    "retain_accuracy": 1.0,
    "test_accuracy": 2.0,
}
INFINITE = (
    "Some log-odds of {} rows are infinite or no numbers, so the figures of single rows against the twins that they "
    "enter are left out: shift and scatter of the forget rows, and rms z."
)


def judge_model(scores: Scores | None, twins: list[Scores]) -> dict[str, dict | None] | None:
    """[`judge`] of each figure; `None` without a model or with fewer than two twins, a figure where it is unknown.

    - `forget_accuracy`, `retain_accuracy`, `test_accuracy`, `membership` in points; the two in the middle are a fault
      only where they are lower.
    - `row_shift`: mean log-odds of forget rows less that of test rows, in standard deviations of a row between twins:
      above 0 the rows are remembered, below over-forgotten.
    - `row_spread`: how much wider the rows scatter about the twins' means than one more twin's, as the logarithm of a
      ratio of rms z; a fault only where it is wider. Takes three twins.
    """
    if scores is None or len(twins) < 2:
        return None
    found = {f"{split}_accuracy": _accuracy(split, scores, twins) for split in ("forget", "retain", "test")}
    found |= {"membership": _membership(scores, twins)} | _rows(scores, twins)
    return {key: None if (measured := found[key]) is None else judge(measured) for key in MARGINS}


def not_finite(scores: Scores | None, twins: list[Scores]) -> list[str]:
    """A note where row figures against twins are left out because log-odds, the model's or a twin's, are infinite."""
    if scores is None or len(twins) < 2:
        return []
    splits = [split for split in ("forget", "test") for model in (scores, *twins) if not _is_finite(model.get(split))]
    return [INFINITE.format(" and ".join(dict.fromkeys(splits)))] if splits else []


def _is_finite(split: SplitScores | None) -> bool:
    return split is None or bool(np.isfinite(split.log_odds).all())


def _accuracy(split: str, scores: Scores, twins: list[Scores]) -> Measured | None:
    every = _arrays(split, "correct", scores, twins)
    if every is None:
        return None
    ours, theirs = every
    # Rows that no twin has differently may still flip in another: half of one among all that were seen.
    least = 0.5 / theirs.size
    spread = max(theirs.var(axis=0, ddof=1).mean(), least * (1 - least)) / theirs.shape[1]
    key = f"{split}_accuracy"
    worse = "both" if split == "forget" else "lower"
    return Measured(100 * ours.mean(), 100 * theirs.mean(axis=1), 1e4 * spread, MARGINS[key], worse)


def _membership(scores: Scores, twins: list[Scores]) -> Measured | None:
    sides = [side for model in (scores, *twins) if (side := _placed(model)) is not None]
    if len(sides) <= len(twins):
        return None
    ours, *theirs = sides
    values = np.array([100 * members.mean() for members, _ in theirs])
    spread = 0.0
    for place in (0, 1):
        rows = 100 * np.stack([side[place] for side in theirs])
        spread += rows.var(axis=0, ddof=1).mean() / rows.shape[1]
    step = 100 / theirs[0][0].size / theirs[0][1].size  # of an AUC
    shared = theirs[0][0].size
    return Measured(100 * ours[0].mean(), values, max(spread, step**2), MARGINS["membership"], shared=shared)


def _rows(scores: Scores, twins: list[Scores]) -> dict[str, Measured | None]:
    """Log-odds of forget rows, the mean on test rows taken off: a shift of all rows is no memory of these."""
    absent: dict[str, Measured | None] = {"row_shift": None, "row_spread": None}
    forget, test = (_arrays(split, "log_odds", scores, twins) for split in ("forget", "test"))
    if forget is None or test is None or not all(np.isfinite(a).all() for a in (*forget, *test)):
        return absent
    ours, theirs = forget[0] - test[0].mean(), forget[1] - test[1].mean(axis=1, keepdims=True)
    twins_count, rows = theirs.shape
    pooled = theirs.var(axis=0, ddof=1).mean()
    if not pooled > 0:
        return absent
    variance = 1 / rows + test[1].var(axis=0, ddof=1).mean() / test[1].shape[1] / pooled
    scale = np.sqrt(pooled)
    shift = Measured(ours.mean() / scale, theirs.mean(axis=1) / scale, variance, MARGINS["row_shift"], shared=rows)
    return {"row_shift": shift, "row_spread": _spread(ours, theirs) if twins_count > 2 else None}


def _spread(ours: np.ndarray, theirs: np.ndarray) -> Measured:
    """log rms z. Squared distances have, for one more twin and for each twin from all, the same expectation s_i²."""
    twins, rows = theirs.shape
    mean = theirs.mean(axis=0)
    each = (theirs - mean) ** 2 * twins / (twins - 1)
    own = (ours - mean) ** 2 / (1 + 1 / twins)
    pooled = each.mean()
    # Deviations from a common mean vary less between twins than a single one's: by 1 − 1/(k − 1)² where normal.
    widened = 1 / (1 - 1 / (twins - 1) ** 2)
    variance = widened * each.var(axis=0, ddof=1).mean() / rows / pooled**2 / 4
    values = np.sqrt(widened) * np.log(each.mean(axis=1) / pooled) / 2
    return Measured(
        np.log(own.mean() / pooled) / 2 + values.mean(),
        values,
        variance,
        MARGINS["row_spread"],
        "higher",
        replicates=twins - 1,
    )


def _arrays(split: str, name: str, scores: Scores, twins: list[Scores]) -> tuple[np.ndarray, np.ndarray] | None:
    """`(rows,)` of the model and `(twins, rows)`."""
    models = [scores, *twins]
    if any(split not in model or not len(model[split]) for model in models):
        return None
    ours, *theirs = (np.asarray(getattr(model[split], name), float) for model in models)
    return ours, np.stack(theirs)


def _placed(scores: Scores) -> tuple[np.ndarray, np.ndarray] | None:
    nonmembers = scores.get("nonmembers", scores.get("test"))
    if "forget" not in scores or nonmembers is None:
        return None
    return placements(scores["forget"].loss, nonmembers.loss)
