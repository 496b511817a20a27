"""Every membership attack that needs nothing but the scores of one model, in one dict."""

import numpy as np

from hf_unlearn.evaluation.attacks import loss_attack, threshold_attack
from hf_unlearn.evaluation.classifier_attacks import logistic_attack, svc_efficacy
from hf_unlearn.evaluation.scores import SplitScores


def attack_report(
    forget: SplitScores,
    retain: SplitScores,
    nonmembers: SplitScores,
    seed: int = 0,
    *,
    test: SplitScores | None = None,
) -> dict:
    """The attacks on one model; JSON types only.

    Args:
        forget: the rows that are attacked.
        retain: members, for SalUn's classifier.
        nonmembers: unseen rows of the kind that is forgotten.
        seed (`int`): of everything that is drawn. Use the same for all models that are compared.
        test: unseen rows of the kind that is retained, which SalUn's classifier is trained on. Default: `nonmembers`;
            they differ where whole classes are removed.

    Returns:
        - `loss` and `modified_entropy` (Song and Mittal 2021): figures of [`threshold_attack`];
        - `logistic`: by figure (`loss`, `entropy`), see [`logistic_attack`];
        - `svc_efficacy`: by figure (`correctness`, `confidence`, `entropy`, `modified_entropy`, `probability` of the
          label, which is SalUn's own), see [`svc_efficacy`].

        Each figure has `value`, `interval` (95 %) and `null`, and is `None` in what is undefined or was not scored.
    """
    test = nonmembers if test is None else test
    retain_features, test_features = _features(retain), _features(test)
    labels = {"retain_label": retain.label, "test_label": test.label}
    return {
        "seed": seed,
        "loss": loss_attack(forget.loss, nonmembers.loss, seed),
        "modified_entropy": _modified_entropy_attack(forget, nonmembers, seed),
        "logistic": {
            name: logistic_attack(getattr(forget, name), getattr(nonmembers, name), seed)
            for name in ("loss", "entropy")
        },
        "svc_efficacy": {
            name: svc_efficacy(feature, kept, unseen, **labels, seed=seed)
            for name, feature in _features(forget).items()
            if feature is not None
            and (kept := retain_features[name]) is not None
            and (unseen := test_features[name]) is not None
        },
    }


def _modified_entropy_attack(forget: SplitScores, nonmembers: SplitScores, seed: int) -> dict | None:
    if forget.modified_entropy is None or nonmembers.modified_entropy is None:
        return None
    return threshold_attack(-forget.modified_entropy, -nonmembers.modified_entropy, seed)


def _features(scores: SplitScores) -> dict[str, np.ndarray | None]:
    return {
        "correctness": scores.correct,
        "confidence": scores.confidence,
        "entropy": scores.entropy,
        "modified_entropy": scores.modified_entropy,
        "probability": np.exp(-scores.loss),
    }
