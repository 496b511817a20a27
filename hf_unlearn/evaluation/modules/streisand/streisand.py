"""Kolmogorov-Smirnov distance between the forget rows' losses under an unlearned model and under retrained ones."""

import datasets
import evaluate
import numpy as np
from scipy.stats import ks_2samp

VERSION = "1.0.0"

_DESCRIPTION = """Kolmogorov-Smirnov distance between the forget rows' losses under an unlearned model and under
retrained ones (twins).
Was it forgotten so hard that it shows? Version 1.0.0.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[float]`): loss of each forget row under the unlearned model.
    references (`list[list[float]]`): its loss under each twin, row by row.

Returns:
    distance (`float`): mean over twins, in [0, 1]; `None` without rows or twins, or with NaN.
    signed (`float`): the same, negative where the losses are lower than the twins'.
    direction (`str`): `"over"` (higher losses: forgotten harder than never seen), `"under"`, or `None`.
    floor, floor_max (`float`): mean and largest distance of a twin to the others; `None` with fewer than two twins.

Example:
    >>> metric = evaluate.load("streisand")
    >>> metric.compute(predictions=[2.0, 3.0], references=[[0.0, 0.1], [1.0, 0.9]])
    {'distance': 1.0, 'signed': 1.0, 'direction': 'over', 'floor': 0.5, 'floor_max': 0.5}
"""

_CITATION = """
@inproceedings{golatkar2020eternal,
  title={Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep Networks},
  author={Golatkar, Aditya and Achille, Alessandro and Soatto, Stefano},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2020}
}
"""


class Streisand(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("float64"),
                    "references": datasets.Sequence(datasets.Value("float64")),
                }
            ),
            license="apache-2.0",
            reference_urls=["https://arxiv.org/abs/1911.04933"],
        )

    def _compute(self, predictions, references):
        result = dict.fromkeys(("distance", "signed", "direction", "floor", "floor_max"))
        if not len(predictions):
            return result
        loss, twins_loss = np.asarray(predictions, float), np.asarray(references, float).T  # (twins, rows)
        if not len(twins_loss) or np.isnan(loss).any() or np.isnan(twins_loss).any():
            return result
        distance = mean_ks(loss, twins_loss)
        # The share of rows below a loss is smaller for the model ("less"): its losses are higher.
        higher, lower = (mean_ks(loss, twins_loss, alternative) for alternative in ("less", "greater"))
        if higher != lower:
            result["direction"] = "over" if higher > lower else "under"
        result["distance"], result["signed"] = distance, distance * (-1 if higher < lower else 1)
        if len(twins_loss) >= 2:
            each = [mean_ks(twins_loss[i], np.delete(twins_loss, i, axis=0)) for i in range(len(twins_loss))]
            result["floor"], result["floor_max"] = float(np.mean(each)), float(np.max(each))
        return result


def mean_ks(sample, others, alternative="two-sided"):
    return float(np.mean([ks_2samp(sample, other, alternative, method="asymp").statistic for other in others]))
