"""Forgetting so hard that it shows: do the forget rows' losses look like those of a model that never saw them?"""

import numpy as np
from scipy.stats import ks_2samp


def streisand(loss: np.ndarray, twins_loss: np.ndarray) -> dict[str, float | str | None]:
    """Kolmogorov-Smirnov distance between a model's forget losses and each twin's on the same rows, averaged.

    The rows are the same, so the two samples are not independent and a p-value would be wrong; the yardstick is the
    `floor`, the mean distance of a twin to the other twins.

    Args:
        loss (`np.ndarray`): `(rows,)` forget losses under the model that is judged, in any unit.
        twins_loss (`np.ndarray`): `(twins, rows)`.

    Returns:
        - `distance` in [0, 1]; `None` without twins or rows, or with NaN.
        - `signed`: the distance, negative where the losses are lower than the twins'. `direction`: `"over"` (higher
          losses: forgotten harder than never seen), `"under"` (lower losses: still remembered), `None` at 0.
        - `floor`, `floor_max`: mean and largest distance of a twin to the others; `None` with fewer than two twins.
    """
    loss, twins_loss = np.asarray(loss, float), np.asarray(twins_loss, float)
    result: dict = dict.fromkeys(("distance", "signed", "direction", "floor", "floor_max"))
    if not len(twins_loss) or not len(loss) or np.isnan(loss).any() or np.isnan(twins_loss).any():
        return result
    result["distance"] = mean_ks(loss, twins_loss)
    # The share of rows below a loss is smaller for the model ("less"): its losses are higher.
    higher, lower = (mean_ks(loss, twins_loss, alternative) for alternative in ("less", "greater"))
    if higher != lower:
        result["direction"] = "over" if higher > lower else "under"
    result["signed"] = result["distance"] * (-1 if higher < lower else 1)
    if len(twins_loss) >= 2:
        each = [mean_ks(twins_loss[i], np.delete(twins_loss, i, axis=0)) for i in range(len(twins_loss))]
        result["floor"], result["floor_max"] = float(np.mean(each)), float(np.max(each))
    return result


def mean_ks(sample: np.ndarray, others: np.ndarray, alternative: str = "two-sided") -> float:
    """Mean over `others` `(count, rows)` of the Kolmogorov-Smirnov statistic between each and `sample` `(rows,)`."""
    return float(np.mean([ks_2samp(sample, other, alternative, method="asymp").statistic for other in others]))
