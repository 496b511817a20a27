"""The evidence block `said_instead`: how far the words in the places of forgotten tokens are from a twin's.

Losses and log-odds are about the true tokens. Where these have become as unlikely as for a twin, the words in their
place may still be odd ones, farther from a twin's than the original's were. KL(twin‖model) over all words says that.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import kl_div

from hf_unlearn.evaluation.comparison import ModelScores
from hf_unlearn.evaluation.said import COPIES, Said
from hf_unlearn.report.answer_blocks import SaidInstead
from hf_unlearn.tasks.row_chunks import rows_at_once


def said_instead_block(
    original: ModelScores | None, unlearned: ModelScores, twins: Sequence[ModelScores]
) -> SaidInstead | None:
    """JSON types only; `None` without a twin, and for models that say no words."""
    said, theirs = _said(unlearned), [found for twin in twins if (found := _said(twin)) is not None]
    if said is None or not theirs or len(theirs) < len(twins):
        return None
    before = None if original is None else _said(original)
    of_tokens = {
        "original": None if before is None else divergence(theirs, before),
        "unlearned": divergence(theirs, said),
        "twins": None,
        "change": None,
    }
    if of_tokens["original"] is not None:
        of_tokens["change"] = of_tokens["unlearned"] - of_tokens["original"]
    apart = [divergence([*theirs[:k], *theirs[k + 1 :]], twin) for k, twin in enumerate(theirs) if len(theirs) > 1]
    if apart:
        of_tokens["twins"] = np.mean(apart, axis=0)
    means = {name: None if values is None else float(values.mean()) for name, values in of_tokens.items()}
    return {
        "tokens": len(said),
        "of": said.of,
        "original": means["original"],
        "unlearned": means["unlearned"],
        "twins": means["twins"],
        "each": [float(values.mean()) for values in apart],
        "standard_errors": {name: _standard_error(values, said.rows) for name, values in of_tokens.items()},
    }


def divergence(twins: Sequence[Said], model: Said) -> np.ndarray:
    """KL(twin‖model) of each token over all words, in nats, `(tokens,)`; the mean over `twins`.

    Log-probabilities that were rounded to half precision are normalised again: it is never below 0. Of vocabularies
    that are padded to different sizes it is taken over the words that both have.
    """
    return np.mean([_kl(twin.log_probs, model.log_probs) for twin in twins], axis=0)


def _kl(twin: np.ndarray, model: np.ndarray) -> np.ndarray:
    words = min(twin.shape[1], model.shape[1])
    both = [torch.from_numpy(rounded[:, :words]) for rounded in (twin, model)]
    size = rows_at_once(both[0], COPIES)
    found = []
    for parts in zip(*(rounded.split(size) for rounded in both), strict=True):
        target, said = (part.float().log_softmax(1) for part in parts)
        found.append(kl_div(said, target, reduction="none", log_target=True).sum(1).clamp(min=0))
    return torch.cat(found).double().numpy()


def _said(scores: ModelScores) -> Said | None:
    return scores["forget"].said if "forget" in scores else None


def _standard_error(values: np.ndarray | None, rows: np.ndarray) -> float | None:
    """Of the mean over tokens, whose deviations may go together within a row; `None` of fewer than two rows."""
    found, of = np.unique(rows, return_inverse=True)
    if values is None or len(found) < 2:
        return None
    by_row = np.bincount(of, weights=values - values.mean())
    return float(np.sqrt(len(found) / (len(found) - 1) * (by_row**2).sum()) / len(values))
