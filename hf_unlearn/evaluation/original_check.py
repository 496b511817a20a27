"""Whether the model that was given is one of these rows and labels, seen by what it says of its own training rows."""

import numpy as np

from hf_unlearn.evaluation.comparison import ModelScores


def check_original(original: ModelScores) -> list[str]:
    """A warning where a classifier gets fewer of the retain rows right than one that always says their commonest label
    would: its labels stand for other classes, or it was trained on other rows. Empty for other tasks."""
    retain = original["retain"]
    if retain.label is None or not len(retain) or (retain.label < 0).any():
        return []
    right, commonest = retain.correct.mean(), np.unique(retain.label, return_counts=True)[1].max() / len(retain)
    if right >= commonest:
        return []
    return [
        f"Attention: the original gets {100 * right:.0f} % of the retain rows right, and to say their commonest label "
        f"always {100 * commonest:.0f} %: check that its labels (id2label of its config.json) are the data's, "
        "and that it was trained on these rows. Otherwise no figure here says anything."
    ]
