"""The membership attacks by name: each from nothing but one model's scores by split. JSON types only.

Figures have `value`, `interval` (95 %) and `null`; what is undefined has the value `None`, and what was not scored is
`None` as a whole.
"""

from collections.abc import Mapping

import numpy as np

from hf_unlearn.evaluation.attacks import loss_attack, threshold_attack
from hf_unlearn.evaluation.classifier_attacks import logistic_attack, svc_efficacy
from hf_unlearn.evaluation.scores import SplitScores

Scores = Mapping[str, SplitScores]  # `forget`, the rows that are attacked, and `nonmembers`, unseen rows of their kind


def loss(scores: Scores, seed: int = 0) -> dict:
    """The lower the loss, the likelier a member: figures of [`threshold_attack`]."""
    return loss_attack(scores["forget"].loss, scores["nonmembers"].loss, seed)


def modified_entropy(scores: Scores, seed: int = 0) -> dict | None:
    """Song and Mittal 2021: sure and right means member."""
    forget, unseen = scores["forget"].modified_entropy, scores["nonmembers"].modified_entropy
    return None if forget is None or unseen is None else threshold_attack(-forget, -unseen, seed)


def logistic(scores: Scores, seed: int = 0) -> dict:
    """[`logistic_attack`] on the loss and on the entropy."""
    return {
        name: logistic_attack(getattr(scores["forget"], name), getattr(scores["nonmembers"], name), seed)
        for name in ("loss", "entropy")
    }


def support_vectors(scores: Scores, seed: int = 0) -> dict:
    """[`svc_efficacy`] on correctness, confidence, entropy, modified entropy and the label's probability (SalUn).

    The classifier learns from `retain` and `test`, unseen rows of the kind that is retained (default: `nonmembers`).
    """
    retain, test = scores["retain"], scores.get("test", scores["nonmembers"])
    features, kept, unseen = (_features(split) for split in (scores["forget"], retain, test))
    labels = {"retain_label": retain.label, "test_label": test.label}
    return {
        name: svc_efficacy(feature, of_kept, of_unseen, **labels, seed=seed)
        for name, feature in features.items()
        if feature is not None and (of_kept := kept[name]) is not None and (of_unseen := unseen[name]) is not None
    }


def _features(scores: SplitScores) -> dict[str, np.ndarray | None]:
    return {
        "correctness": scores.correct,
        "confidence": scores.confidence,
        "entropy": scores.entropy,
        "modified_entropy": scores.modified_entropy,
        "probability": np.exp(-scores.loss),
    }
