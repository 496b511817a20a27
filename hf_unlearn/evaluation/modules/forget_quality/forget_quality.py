"""Two-sample Kolmogorov-Smirnov test between the truth ratios of an unlearned and a retrained model on forget rows."""

import datasets
import evaluate
import numpy as np
from scipy.stats import ks_2samp

VERSION = "1.0.0"

_DESCRIPTION = """Two-sample Kolmogorov-Smirnov test between the truth ratios of an unlearned and a retrained model on
forget rows.
Do the truth ratios of the forgotten rows look like those of a model that never saw them? Version 1.0.0.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[float]`): truth ratio of each forget row under the unlearned model.
    references (`list[float]`): the same under a model retrained without these rows.

Returns:
    forget_quality (`float`): the p-value; high means that no difference was found. `None` without rows or with NaN.
    distance (`float`): the Kolmogorov-Smirnov distance in [0, 1], which unlike the p-value does not sink with more
        rows.

Example:
    >>> metric = evaluate.load("forget_quality")
    >>> metric.compute(predictions=[0.1, 0.2, 0.3], references=[0.1, 0.2, 0.9])
    {'forget_quality': 1.0, 'distance': 0.3333333333333333}
"""

_CITATION = """
@inproceedings{maini2024tofu,
  title={{TOFU}: A Task of Fictitious Unlearning for {LLMs}},
  author={Maini, Pratyush and Feng, Zhili and Schwarzschild, Avi and Lipton, Zachary C. and Kolter, J. Zico},
  booktitle={Conference on Language Modeling},
  year={2024}
}
"""


class ForgetQuality(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
            license="apache-2.0",
            reference_urls=["https://arxiv.org/abs/2401.06121"],
        )

    def _compute(self, predictions, references):
        ratio, twin_ratio = np.asarray(predictions, float), np.asarray(references, float)
        if not len(ratio) or np.isnan(ratio).any() or np.isnan(twin_ratio).any():
            return {"forget_quality": None, "distance": None}
        test = ks_2samp(ratio, twin_ratio)
        return {"forget_quality": float(test.pvalue), "distance": float(test.statistic)}
