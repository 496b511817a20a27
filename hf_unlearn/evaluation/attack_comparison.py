"""Membership attacks on the original, the unlearned model and the twins side by side: the evidence block `attacks`."""

from typing import Any

import numpy as np

from hf_unlearn.evaluation.attack_report import attack_report
from hf_unlearn.evaluation.attacks import loss_attack, threshold_attack
from hf_unlearn.evaluation.scores import SplitScores

Scores = dict[str, SplitScores]
TITLES = {
    "loss": "loss",
    "modified_entropy": "modified entropy",
    "logistic": "logistic regression",
    "svc_efficacy": "support vectors (share called unseen)",
}
CLASSIFIERS = "logistic regression and support vectors on losses and entropies"


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
    return {"figures": figures, "not_run": [] if classifiers else [CLASSIFIERS]}


def _figures(scores: Scores | None, classifiers: bool, seed: int) -> dict[str, dict]:
    """The figures of one model by a title that says attack and figure."""
    nonmembers = (scores or {}).get("nonmembers", (scores or {}).get("test"))
    if scores is None or nonmembers is None or "forget" not in scores:
        return {}
    forget = scores["forget"]
    if classifiers and "retain" in scores:
        found = attack_report(forget, scores["retain"], nonmembers, seed, test=scores.get("test"))
    else:
        found = {"loss": loss_attack(forget.loss, nonmembers.loss, seed)}
        if forget.modified_entropy is not None and nonmembers.modified_entropy is not None:
            found["modified_entropy"] = threshold_attack(-forget.modified_entropy, -nonmembers.modified_entropy, seed)
    result = {}
    for attack, title in TITLES.items():
        block = found.get(attack) or {}
        if "auc" in block:
            result[f"{title}: AUC"] = block["auc"]
            result[f"{title}: balanced accuracy"] = block["balanced_accuracy"]
            for rate, tpr in block["tpr"].items():
                result[f"{title}: TPR at {100 * float(rate):g} % FPR"] = tpr
        else:
            result |= {f"{title}: {name.replace('_', ' ')}": value for name, value in block.items()}
    return result


def _mean(figures: list[dict | None]) -> dict | None:
    known = [found for found in figures if found is not None and found["value"] is not None]
    if not figures or len(known) < len(figures):
        return None
    values = [found["value"] for found in known]
    nulls = [found["null"] for found in known]
    null = None if None in nulls else float(np.mean(nulls))
    return {"value": float(np.mean(values)), "interval": [min(values), max(values)], "null": null}
