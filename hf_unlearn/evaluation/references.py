"""A retrained model made elsewhere is a yardstick only if it never saw the forgotten rows, and is any good."""

from collections.abc import Mapping

import numpy as np

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.comparison import ModelScores
from hf_unlearn.evaluation.scores import SplitScores

SURE = 3.0  # standard errors from which a difference is believed
ALIKE = 2.0  # standard errors within which there is none to be seen
FAR = 0.1  # accuracy that a reference may lie below the original on unseen rows
FAR_LOSS = 1.0  # nats, where there is no right or wrong row to count


def check_reference(original: ModelScores | None, reference: ModelScores, name: str) -> list[str]:
    """Warnings about one reference, `name` being what the reader knows it by.

    Raises `UserError` if it gives the forgotten rows exactly what the original gives them: it is the original.
    """
    warnings = []
    if original is not None and np.array_equal(original["forget"].log_odds, reference["forget"].log_odds):
        raise UserError(f"{name} is the original: it knows the forgotten rows; name models that never saw them")
    if knows_forgotten(reference):
        warnings.append(
            f"Attention: {name} knows the forgotten rows as well as the rows it was trained on, so it seems to have "
            "been trained on them. Distances to it say nothing of forgetting."
        )
    if original is not None and (worse := _how_much_worse(original["test"], reference["test"])):
        warnings.append(f"Attention: {name} is far worse than the original on unseen rows ({worse}): no yardstick.")
    return warnings


def check_apart(references: Mapping[str, ModelScores]) -> None:
    """Raises `UserError` for two references, by name, that are one: no distance would lie between them."""
    names = list(references)
    for k, name in enumerate(names):
        for other in names[:k]:
            if np.array_equal(references[name]["forget"].log_odds, references[other]["forget"].log_odds):
                raise UserError(f"{name} is {other} once more: name models of separate trainings")


def knows_forgotten(reference: ModelScores) -> bool:
    """Whether the forgotten rows look like its training rows, and not like unseen ones, where these two differ.

    On log-odds; a request of easy rows alone would not look like the training rows at large.
    """
    forget, retain, unseen = (reference[name].log_odds for name in ("forget", "retain", "nonmembers"))
    return (
        _distance(retain, unseen) > SURE
        and _distance(forget, unseen) > SURE
        and abs(_distance(forget, retain)) < ALIKE
    )


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """Difference of the means in standard errors (Welch's t)."""
    if min(len(first), len(second)) < 2:
        return 0.0
    error = np.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    return float((first.mean() - second.mean()) / max(error, 1e-12))


def _how_much_worse(original: SplitScores, reference: SplitScores) -> str | None:
    """In words, where it is more than chance and more than a little; the rows are the same, so they are paired."""
    lost = original.correct - reference.correct
    if lost.mean() > FAR and _is_sure(lost):
        return f"{100 * reference.correct.mean():.1f} against {100 * original.correct.mean():.1f} % right"
    more = reference.loss - original.loss
    if more.mean() > FAR_LOSS and _is_sure(more):
        return f"a loss of {reference.loss.mean():.2f} against {original.loss.mean():.2f} nats"
    return None


def _is_sure(differences: np.ndarray) -> bool:
    if len(differences) < 2:
        return False
    return bool(differences.mean() > SURE * differences.std(ddof=1) / np.sqrt(len(differences)))
