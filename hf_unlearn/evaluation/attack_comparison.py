"""Membership attacks on the original, the unlearned model and the twins side by side: the evidence block `attacks`."""

from typing import Any

import numpy as np

from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.registry import Registry

Scores = dict[str, SplitScores]
# Functions of a model's scores by split, which have `forget` and `nonmembers`, and of a seed: figures by name, or what
# `threshold_attack` returns. One that trains a classifier has `retain` too, and takes seconds.
ATTACKS = {
    "loss": "hf_unlearn.evaluation.named_attacks:loss",
    "modified_entropy": "hf_unlearn.evaluation.named_attacks:modified_entropy",
    "logistic": "hf_unlearn.evaluation.named_attacks:logistic",
    "svc_efficacy": "hf_unlearn.evaluation.named_attacks:support_vectors",
}
CLASSIFIERS = ("logistic", "svc_efficacy")
TITLES = {"logistic": "logistic regression", "svc_efficacy": "support vectors (share called unseen)"}
NOT_RUN = "logistic regression and support vectors on losses and entropies"
_REGISTRY = Registry("attack", ATTACKS)


def compare_attacks(
    original: Scores | None,
    unlearned: Scores | None,
    twins: list[Scores],
    *,
    classifiers: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """`figures[attack][model]`, each with `value`, `interval` and `null`, and `not_run`, what was left out.

    Models are `original`, `unlearned` and `twins`: there the mean, and as `interval` the lowest and the highest twin.
    The yardstick of a figure is the twins' own. A model or figure that cannot be known is `None`.

    Args:
        classifiers: also the attacks that train a classifier, which take seconds for each model.
        seed: of everything that is drawn; the same for all models.
    """
    each = {"original": _figures(original, classifiers, seed), "unlearned": _figures(unlearned, classifiers, seed)}
    of_twins = [_figures(twin, classifiers, seed) for twin in twins]
    names = list(dict.fromkeys(name for found in (*each.values(), *of_twins) for name in found))
    figures = {
        name: {model: found.get(name) for model, found in each.items()}
        | {"twins": _mean([found.get(name) for found in of_twins])}
        for name in names
    }
    return {"figures": figures, "not_run": [] if classifiers else [NOT_RUN]}


def _figures(scores: Scores | None, classifiers: bool, seed: int) -> dict[str, dict]:
    """The figures of one model by a title that says attack and figure."""
    if scores is None or "forget" not in scores or not {"nonmembers", "test"} & set(scores):
        return {}
    known = {"nonmembers": scores.get("nonmembers", scores.get("test")), **scores}
    result: dict[str, dict] = {}
    for name in _REGISTRY.names():
        if name in CLASSIFIERS and not (classifiers and "retain" in scores):
            continue
        block, title = _REGISTRY.get(name)(known, seed), TITLES.get(name, name.replace("_", " "))
        if block and "auc" in block:
            result[f"{title}: AUC"] = block["auc"]
            result[f"{title}: balanced accuracy"] = block["balanced_accuracy"]
            for rate, tpr in block["tpr"].items():
                result[f"{title}: TPR at {100 * float(rate):g} % FPR"] = tpr
        elif block:
            result |= {f"{title}: {figure.replace('_', ' ')}": value for figure, value in block.items()}
    return result


def _range(values: list[float]) -> list[float] | None:
    """The lowest and the highest of several twins."""
    return [min(values), max(values)] if len(values) > 1 else None


def _mean(figures: list[dict | None]) -> dict | None:
    known = [found for found in figures if found is not None and found["value"] is not None]
    if not figures or len(known) < len(figures):
        return None
    values = [found["value"] for found in known]
    nulls = [found["null"] for found in known]
    null = None if None in nulls else float(np.mean(nulls))
    return {"value": float(np.mean(values)), "interval": _range(values), "null": null}
