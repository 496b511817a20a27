"""True positive rate of a membership score at a low false positive rate."""

import datasets
import evaluate
import numpy as np

VERSION = "1.0.0"

_DESCRIPTION = """True positive rate of a membership score at a low false positive rate.
Share of members that an attack finds while it mistakes hardly any non-member for one. Version 1.0.0.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[float]`): a score per row; the higher, the likelier the row is a member.
    references (`list[int]`): 1 for members, 0 for rows that the model never saw.
    fpr (`float`, default 0.01): the share of non-members that may be mistaken for members, ties included.

Returns:
    tpr_at_fpr (`float`): share of members above the threshold; `None` with fewer than 10/fpr non-members (the rate
        could not be measured), without members, or with NaN.

Example:
    >>> metric = evaluate.load("tpr_at_fpr")
    >>> metric.compute(predictions=[5.0, 3.0] + [4.0] + [1.0] * 99, references=[1, 1] + [0] * 100, fpr=0.1)
    {'tpr_at_fpr': 1.0}
"""

_CITATION = r"""
@inproceedings{carlini2022membership,
  title={Membership Inference Attacks From First Principles},
  author={Carlini, Nicholas and Chien, Steve and Nasr, Milad and Song, Shuang and Terzis, Andreas and Tram{\`e}r,
    Florian},
  booktitle={IEEE Symposium on Security and Privacy},
  year={2022}
}
"""


class TprAtFpr(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
            license="apache-2.0",
            reference_urls=["https://arxiv.org/abs/2112.03570"],
        )

    def _compute(self, predictions, references, fpr=0.01):
        scores, is_member = np.asarray(predictions, float), np.asarray(references) == 1
        members, nonmembers = scores[is_member], scores[~is_member]
        if len(nonmembers) < round(10 / fpr) or not len(members) or np.isnan(scores).any():
            return {"tpr_at_fpr": None}
        allowed = int(fpr * len(nonmembers) + 1e-9)
        threshold = np.sort(nonmembers)[len(nonmembers) - 1 - allowed]
        return {"tpr_at_fpr": float((members > threshold).mean())}
