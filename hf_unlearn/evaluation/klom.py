"""KLoM (Georgiev et al. 2024, arXiv 2410.23232, appendix E.1): are a row's margins those of retrained models?"""

import numpy as np

from hf_unlearn.evaluation.lira import Models, by_row
from hf_unlearn.evaluation.row_epsilon import over_rows

BINS = 20
LEAST = 1e-5  # probability that a bin without a retrained model counts as
CLIP = 100.0


def row_kloms(models: Models, seed: int = 0) -> dict[str, np.ndarray]:
    """For every row the KL divergence, in nats, of its margins over models that unlearned it from those over models
    retrained without it ([`klom`]).

    The paper's margin, the label's logit − logsumexp of the others, is φ = log(p/(1 − p)). There the forget set is one
    and the same in all models; here, where rows are drawn at random, it is drawn anew for each, so that the
    distributions are also over what else was learned and unlearned.

    With few models most bins are empty, so that the divergence is far above 0 where both are alike, and cannot exceed
    log(1/1e-5) = 11.5: `null` is the same with the two kinds of models dealt anew at random.

    Args:
        models (`Models`): `unlearned` from which a row was unlearned; `never`, retrained without it. Each row needs
            two of either kind.
        seed (`int`): of the dealing.

    Returns:
        `klom` and `null`, `(rows,)` each; NaN where a row has too few models.
    """
    result = {name: np.full(models.phi.shape[1], np.nan) for name in ("klom", "null")}
    for row, unlearned, never, dealt in by_row(models, seed):
        result["klom"][row] = klom(unlearned, never)
        result["null"][row] = klom(*dealt)
    return result


def klom(unlearned: np.ndarray, retrained: np.ndarray) -> float:
    """KL(p‖q) = Σ_b p_b·log(p_b/q_b) of one row, with p and q the shares of unlearned and of retrained models in 20
    bins of equal width from the lowest φ to the highest; φ is cut to ±100, and a q_b below 1e-5 counts as 1e-5.

    As the authors' release (`compute_binned_KL_div`), q over its sum, but for one thing: its bins leave out the
    highest value of all, here it is in the last one.
    """
    sides = [np.clip(np.asarray(side, float), -CLIP, CLIP) for side in (unlearned, retrained)]
    low, high = min(map(np.min, sides)), max(map(np.max, sides))
    if low == high:
        return 0.0
    p, q = (np.histogram(side, bins=BINS, range=(low, high))[0] / len(side) for side in sides)
    q = np.maximum(q, LEAST)
    q = q / q.sum()
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())


def summary(kloms: dict[str, np.ndarray]) -> dict[str, float | int | None]:
    """Median and 95th percentile of KLoM over rows, the same of its null, and the rows judged."""
    return over_rows(kloms, "klom")
