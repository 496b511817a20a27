"""Metrics by name: numbers from the arrays of one scoring pass, for logs during training and for the evidence."""

from collections.abc import Callable, Iterable
from numbers import Real

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.attacks import auc, balanced_accuracy, tpr_at_fpr
from hf_unlearn.evaluation.f1 import f1_by_split
from hf_unlearn.evaluation.metrics import evaluation_metrics, median_loss, top5_loss_share
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.registry import Registry

Scores = dict[str, SplitScores]
Metric = Callable[[Scores], dict[str, float | None]]


def _ending(*ends: str) -> Metric:
    """The figures of [`evaluation_metrics`] whose names end in one of `ends`."""
    return lambda scores: {k: v for k, v in evaluation_metrics(scores).items() if k.endswith(ends)}


def _attack(name: str, function: Callable[..., dict], **options) -> Metric:
    """One figure of the loss attack on forget against unseen rows."""

    def measure(scores: Scores) -> dict[str, float | None]:
        unseen = scores.get("nonmembers", scores.get("test"))
        if "forget" not in scores or unseen is None:
            return {}
        return {name: function(-scores["forget"].loss, -unseen.loss, **options)["value"]}

    return measure


def _modified_entropy(scores: Scores) -> dict[str, float | None]:
    unseen = scores.get("nonmembers", scores.get("test"))
    known = [split.modified_entropy for split in (scores.get("forget"), unseen) if split is not None]
    sides = [-entropy for entropy in known if entropy is not None]
    return {"modified_entropy_auc": auc(sides[0], sides[1])["value"]} if len(sides) == 2 else {}


def _forget_rows(scores: Scores) -> dict[str, float | None]:
    if "forget" not in scores:
        return {}
    loss = scores["forget"].loss
    return {"forget_median_loss": median_loss(loss), "forget_top5_loss_share": top5_loss_share(loss)}


def _f1(scores: Scores) -> dict[str, float | None]:
    return dict(f1_by_split(scores, tuple(name for name in scores if name != "nonmembers")))


METRICS: dict[str, Metric] = {
    "accuracy": _ending("_accuracy"),
    "loss": _ending("_loss"),
    "membership": _ending("membership_auc", "membership_auc_se"),
    "balanced_accuracy": _attack("membership_balanced_accuracy", balanced_accuracy),
    "tpr": _attack("membership_tpr_at_1_percent", tpr_at_fpr, fpr=0.01),
    "modified_entropy": _modified_entropy,
    "forget_rows": _forget_rows,
    "f1": _f1,
}
DEFAULT = ("accuracy", "loss", "membership", "f1")
_REGISTRY = Registry("metric", METRICS)


def choose(metrics: Iterable[str | Metric]) -> list[Metric]:
    """Functions of the scores by split: by name, as `module:function`, or as they are. Raises `UserError`."""
    return [_REGISTRY.get(metric) for metric in metrics]


def further(scores: Scores) -> dict[str, float | None]:
    """The figures of the metrics that installed packages bring: what stands as `further` in the evidence.

    Raises `UserError` for one that cannot be loaded or does not return numbers by name.
    """
    found: dict[str, float | None] = {}
    for name in _REGISTRY.installed():
        figures = _REGISTRY.get(name)(scores)
        if not isinstance(figures, dict) or not all(v is None or isinstance(v, Real) for v in figures.values()):
            raise UserError(f"`metric` {name} does not return numbers by name: have it return a dict")
        found |= {key: None if value is None else float(value) for key, value in figures.items()}
    return found
