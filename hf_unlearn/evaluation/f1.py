"""F1 of rows with sets of labels, from what is true and what the model says at a probability of 0.5."""

import numpy as np

from hf_unlearn.evaluation.scores import SplitScores

AVERAGES = ("micro", "macro")


def f1(scores: SplitScores) -> dict[str, float]:
    """`micro` and `macro` F1 in [0, 1] of one split; empty for tasks whose rows have no sets of labels.

    F1 = 2·TP / (2·TP + FP + FN). Micro counts over all labels together; macro is the mean over labels, in which one
    that no row has and the model never says counts 0, as in scikit-learn.
    """
    if scores.true_labels is None or scores.said_labels is None or not len(scores):
        return {}
    true, said = scores.true_labels > 0, scores.said_labels > 0  # (rows, labels)
    hits, named = (true & said).sum(0), true.sum(0) + said.sum(0)  # 2·TP + FP + FN, as TP is in both sums
    each = 2 * hits / np.maximum(named, 1)
    return {"micro": float(2 * hits.sum() / max(named.sum(), 1)), "macro": float(each.mean())}


def f1_by_split(scores: dict[str, SplitScores], splits: tuple[str, ...]) -> dict[str, float]:
    """`<split>_micro_f1` and `<split>_macro_f1` in [0, 1] of the splits that were scored."""
    found = {name: f1(scores[name]) for name in splits if name in scores}
    return {f"{name}_{average}_f1": value for name, values in found.items() for average, value in values.items()}
