"""RULI (Naderloui et al. 2025, arXiv 2506.13009): likelihood ratios by kernel densities, in two games, and on the rows
that models memorize most.

Both games ask of a row in one model: unlearned, or never there? They differ in the model of a row that never was:

- *privacy* (the paper's Game 2): one from which other rows were unlearned, as U-LiRA has it. Does an outsider who has
  the unlearned model alone find out whose rows it forgot?
- *efficacy*: one from which nothing was unlearned, exact retraining. Is it told from the unlearned model?

What is in `Models.phi` for rows that never were makes a game one or the other.
"""

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

from hf_unlearn.evaluation.lira import Models, attack_figures, gaussians

MEMORIZED = 0.25  # share of the audited rows that counts as the most memorized


def game(targets: Models, shadows: Models, memorized: np.ndarray) -> dict:
    """One game on all rows, and on those that `memorized` `(rows,)` bool names; JSON types only.

    Returns:
        `all` and `memorized`, each the figures of [`attack_figures`].
    """
    scores = kernel_ratio(targets, shadows)
    return {
        "all": attack_figures(scores, targets),
        "memorized": attack_figures(np.where(memorized, scores, np.nan), targets),
    }


def kernel_ratio(targets: Models, shadows: Models) -> np.ndarray:
    """log p_u(φ) − log p_n(φ) for every target model and row, `(targets, rows)`: p_u and p_n are Gaussian kernel
    densities of the row's φ under the shadows that unlearned it, and under those that never saw it.

    The release's score p_u/(p_u + p_n) is the logistic function of it, so that every ROC curve is the same. Its
    bandwidth is Scott's rule, n^(−1/5) times the standard deviation, for language models, and one logit for
    classifiers; here Scott's for all, because it knows the unit of φ. A row's own shadows alone count: nothing is
    pooled over rows, and no form is assumed.

    NaN where a row is neither in the target, where φ is not finite, and where fewer than two shadows stand on either
    side, or agree exactly.
    """
    ratio = np.zeros_like(targets.phi)
    for mask, sign in ((shadows.unlearned, 1), (shadows.never, -1)):
        mask = mask & np.isfinite(shadows.phi)
        counts = mask.sum(axis=0)
        _, spread = gaussians(shadows.phi, mask, "row")
        width = np.where(counts > 1, counts, np.nan) ** (-1 / 5) * spread
        # (targets, shadows, rows)
        kernels = norm.logpdf(targets.phi[:, None], np.where(mask, shadows.phi, 0), np.nan_to_num(width, nan=1.0))
        density = logsumexp(np.where(mask, kernels, -np.inf), axis=1) - np.log(np.maximum(counts, 1))
        ratio += sign * np.where(np.isnan(width), np.nan, density)
    usable = (targets.unlearned | targets.never) & np.isfinite(targets.phi)
    return np.where(usable, ratio, np.nan)


def most_memorized(originals: Models, share: float = MEMORIZED) -> np.ndarray:
    """Which rows the shadows memorize most, `(rows,)` bool: `share` of those that it is known of, rounded up.

    By the privacy score (μ_in − μ_out)/(σ_in + σ_out) of a row's φ under models that have it and models that do not
    (Carlini et al. 2022, arXiv 2206.10469), as the release ranks rows by LiRA on models of their own. The targets have
    no part in it.

    Args:
        originals (`Models`): shadows before any unlearning; `unlearned` are the models that have a row.
    """
    inside, inside_sd = gaussians(originals.phi, originals.unlearned, "row")
    outside, outside_sd = gaussians(originals.phi, originals.never, "row")
    score = (inside - outside) / (inside_sd + outside_sd)
    known = np.flatnonzero(~np.isnan(score))
    chosen = known[np.argsort(-score[known], kind="stable")[: int(np.ceil(share * len(known)))]]
    return np.isin(np.arange(len(score)), chosen)
