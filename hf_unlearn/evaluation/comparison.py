"""Original, unlearned, retrained: a result is worth its distance from the twins, beside that of twin from twin."""

import numpy as np

from hf_unlearn.evaluation.attacks import auc
from hf_unlearn.evaluation.f1 import f1_by_split
from hf_unlearn.evaluation.intervals import clopper_pearson, mean_interval, mean_share_interval
from hf_unlearn.evaluation.judged_figures import judge_model
from hf_unlearn.evaluation.logged_metrics import further
from hf_unlearn.evaluation.metrics import (
    evaluation_metrics,
    mean_of,
    median_loss,
    row_statistics,
    row_statistics_floor,
    top5_loss_share,
)
from hf_unlearn.evaluation.scores import SplitScores

ModelScores = dict[str, SplitScores]
"""One model's scores by split: `forget`, `retain`, `test`, and `nonmembers`, the unseen rows of the kind that is
forgotten: the same object as `test`, or for class removal unseen rows of the removed classes. Any may be missing."""

SPLITS = ("forget", "retain", "test")
AVERAGED = ("forget_accuracy", "retain_accuracy", "test_accuracy", "membership")
LOSSES = ("forget_loss", "retain_loss", "test_loss")


def compare(original: ModelScores | None, unlearned: ModelScores | None, twins: list[ModelScores]) -> dict[str, dict]:
    """The evidence blocks `models`, `gap`, `floor`, `difference` and `judged`; what cannot be known is `None`.

    - `models`: accuracies, F1 and shares as fractions, losses in nats. `retrained` is the mean over twins (`None`
      without twins); its row statistics are those of each twin against the others, the yardstick of the other two
      columns. `intervals` hold 95 % intervals over rows; for `retrained` the lowest and the highest twin.
    - `gap`: |unlearned − mean of the twins|: accuracies, membership AUC and their `average` in percentage points, F1
      too, losses in nats. `difference` is the same with its sign: positive where the unlearned model is higher.
    - `judged`: whether the unlearned model, or the original, could be one more twin: see [`judge_model`].
    - `floor`: the gap of each twin against the mean of the other twins, averaged. `None` with fewer than two twins.

    Row statistics need two twins for a model and three for the twins themselves; below four they are rough.
    """
    models = {
        name: None if scores is None else _model_block(scores, twins)
        for name, scores in (("original", original), ("unlearned", unlearned))
    }
    models["retrained"] = _retrained_block(twins)
    points = [_points(twin) for twin in twins]
    difference = _difference(None if unlearned is None else _points(unlearned), points)
    leave_one_out = [_gap(_difference(point, points[:i] + points[i + 1 :])) for i, point in enumerate(points)]
    return {
        "models": models,
        "gap": _gap(difference),
        "floor": mean_of(leave_one_out) if len(twins) >= 2 else _gap(_difference(None, [])),
        "difference": difference,
        "judged": {"original": judge_model(original, twins), "unlearned": judge_model(unlearned, twins)},
    }


def _model_block(scores: ModelScores, twins: list[ModelScores]) -> dict[str, dict]:
    """One entry of `models`: accuracy, loss, membership, and rows measured against the twins."""
    splits = list(SPLITS)
    if "nonmembers" in scores and scores["nonmembers"] is not scores.get("test"):
        splits.append("nonmembers")
    filled = {name: scores[name] for name in splits if name in scores and len(scores[name])}
    forget_loss = filled["forget"].loss if "forget" in filled else np.empty(0)
    metrics = evaluation_metrics(scores)
    return {
        "accuracy": {name: filled[name].accuracy if name in filled else None for name in splits},
        "loss": {name: float(filled[name].loss.mean()) if name in filled else None for name in splits},
        "f1": f1_by_split(filled, tuple(splits)),
        "membership": {"loss_auc": metrics.get("membership_auc"), "loss_auc_se": metrics.get("membership_auc_se")},
        "intervals": _intervals(filled, scores.get("nonmembers", scores.get("test"))),
        "rows": {
            "median_forget_loss": median_loss(forget_loss),
            "top5_loss_share": top5_loss_share(forget_loss),
            **_row_block(scores, twins),
        },
        "further": further(scores),
    }


def _intervals(filled: ModelScores, unseen: SplitScores | None) -> dict[str, list[float]]:
    """95 % intervals `[low, high]` that hold for this one model and rows like these: Clopper-Pearson's for accuracies,
    at the effective number of rows where rows are partly right; for losses Student's; for the AUC that of [`auc`]."""
    found = {}
    for name, split in filled.items():
        right_or_wrong = np.isin(split.correct, (0, 1)).all()
        share = (
            clopper_pearson(split.correct.sum(), len(split)) if right_or_wrong else mean_share_interval(split.correct)
        )
        if share is not None:
            found[f"{name}_accuracy"] = share
        if len(split) > 1 and np.isfinite(split.loss).all():
            low, high = mean_interval(split.loss)
            found[f"{name}_loss"] = [max(0.0, low), high]
    if "forget" in filled and unseen is not None:
        area = auc(-filled["forget"].loss, -unseen.loss)["interval"]
        if area is not None:
            found["membership"] = area
    return found


def _retrained_block(twins: list[ModelScores]) -> dict | None:
    """Means over the twins, figure by figure (the standard error too: all are measured on the same rows)."""
    if not twins:
        return None
    blocks = [_model_block(twin, []) for twin in twins]
    retrained = {
        part: mean_of([block[part] for block in blocks])
        for part in ("accuracy", "loss", "f1", "membership", "further")
    }
    rows = [{key: block["rows"][key] for key in ("median_forget_loss", "top5_loss_share")} for block in blocks]
    ranges = _ranges([_points(twin) for twin in twins])
    return {"twins": len(twins), **retrained, "intervals": ranges, "rows": mean_of(rows) | _row_block(None, twins)}


def _ranges(points: list[dict[str, float | None]]) -> dict[str, list[float]]:
    """The lowest and the highest twin, figure by figure, in the units of the other columns' intervals."""
    found = {}
    for key in points[0]:
        values = [value for point in points if (value := point[key]) is not None]
        if len(values) == len(points) > 1:
            scale = 1.0 if key.endswith("_loss") else 100.0
            found[key] = [min(values) / scale, max(values) / scale]
    return found


def _row_block(scores: ModelScores | None, twins: list[ModelScores]) -> dict:
    """Row statistics of a model against the twins, or of the twins against each other where `scores` is `None`.

    Raw on forget rows; `level_corrected`, where each model's mean φ on test rows is taken off first, because a shift
    of all rows is no memory of these; and `test_rms_z`, which shows that shift.
    """
    statistics = {}
    for kind in ("raw", "level_corrected", "test"):
        twins_phi = [phi for twin in twins if (phi := _phi(twin, kind)) is not None]
        stacked = np.stack(twins_phi) if twins_phi else np.empty((0, 0))
        if scores is None:
            statistics[kind] = row_statistics_floor(stacked)
        else:
            phi = _phi(scores, kind)
            statistics[kind] = row_statistics(np.empty(0) if phi is None else phi, stacked)
    return {
        **statistics["raw"],
        "level_corrected": statistics["level_corrected"],
        "test_rms_z": statistics["test"]["rms_z"],
    }


def _phi(scores: ModelScores, kind: str) -> np.ndarray | None:
    """`(rows,)`: the log-odds that one of the three kinds of row statistics looks at."""
    forget, test = scores.get("forget"), scores.get("test")
    if kind == "raw":
        return None if forget is None else forget.log_odds
    if test is None or not len(test):
        return None
    if kind == "test":
        return test.log_odds
    return None if forget is None else forget.log_odds - test.log_odds.mean()


def _points(scores: ModelScores) -> dict[str, float | None]:
    """What gaps are taken of: accuracies and membership AUC in percent, losses in nats."""
    block = _model_block(scores, [])
    fractions = {f"{name}_accuracy": block["accuracy"][name] for name in SPLITS}
    fractions["membership"] = block["membership"]["loss_auc"]
    fractions |= {key: value for key, value in block["f1"].items() if not key.startswith("nonmembers")}
    percent = {key: None if value is None else 100 * value for key, value in fractions.items()}
    return percent | {f"{name}_loss": block["loss"][name] for name in SPLITS}


def _difference(
    points: dict[str, float | None] | None, twins: list[dict[str, float | None]]
) -> dict[str, float | None]:
    """`points` minus the mean of the twins' points, signed."""
    mean, known = mean_of(twins), points or {}

    def minus(own: float | None, theirs: float | None) -> float | None:
        return None if own is None or theirs is None else own - theirs

    return {key: minus(known.get(key), mean.get(key)) for key in (*AVERAGED, *LOSSES, *_f1_keys(mean))}


def _gap(difference: dict[str, float | None]) -> dict[str, float | None]:
    """Absolute differences, with the average over the four that are in percentage points (all four, or `None`)."""
    absolute = {key: None if value is None else abs(value) for key, value in difference.items()}
    averaged = [value for key in AVERAGED if (value := absolute[key]) is not None]
    average = float(np.mean(averaged)) if len(averaged) == len(AVERAGED) else None
    others = (*LOSSES, *_f1_keys(absolute))
    return {**{key: absolute[key] for key in AVERAGED}, "average": average, **{key: absolute[key] for key in others}}


def _f1_keys(figures: dict[str, float | None]) -> list[str]:
    return [key for key in figures if key.endswith("_f1")]
