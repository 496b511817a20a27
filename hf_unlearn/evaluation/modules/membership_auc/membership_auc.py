"""Area under the ROC curve of a membership score, with DeLong's standard error."""

import datasets
import evaluate
import numpy as np
from scipy.stats import rankdata

VERSION = "1.0.0"

_DESCRIPTION = """Area under the ROC curve of a membership score, with DeLong's standard error.
How well a score tells the rows a model learned from (members) from rows it never saw. Version 1.0.0.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[float]`): a score per row; the higher, the likelier the row is a member (for example minus the
        loss).
    references (`list[int]`): 1 for members (rows to be forgotten), 0 for rows that the model never saw.

Returns:
    membership_auc (`float`): P(a member scores higher than a non-member), ties half; `None` with fewer than two rows
        on a side or with NaN.
    standard_error (`float`): DeLong's, for these rows and this model.

Example:
    >>> metric = evaluate.load("membership_auc")
    >>> metric.compute(predictions=[0.9, 0.8, 0.3, 0.4, 0.2], references=[1, 1, 1, 0, 0])
    {'membership_auc': 0.8333333333333334, 'standard_error': 0.2357022603955158}
"""

_CITATION = """
@inproceedings{yeom2018privacy,
  title={Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting},
  author={Yeom, Samuel and Giacomelli, Irene and Fredrikson, Matt and Jha, Somesh},
  booktitle={IEEE Computer Security Foundations Symposium},
  year={2018}
}
@article{delong1988comparing,
  title={Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves: A Nonparametric
    Approach},
  author={DeLong, Elizabeth R. and DeLong, David M. and Clarke-Pearson, Daniel L.},
  journal={Biometrics},
  year={1988}
}
"""


class MembershipAuc(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
            license="apache-2.0",
            reference_urls=["https://arxiv.org/abs/1709.01604"],
        )

    def _compute(self, predictions, references):
        scores, is_member = np.asarray(predictions, float), np.asarray(references) == 1
        members, nonmembers = scores[is_member], scores[~is_member]
        if min(len(members), len(nonmembers)) < 2 or np.isnan(scores).any():
            return {"membership_auc": None, "standard_error": None}
        # For each row the share of the other side that it beats, from midranks (Sun and Xu 2014, fast DeLong).
        ranks = rankdata(np.concatenate([members, nonmembers]))
        beaten = (ranks[: len(members)] - rankdata(members)) / len(nonmembers)
        beaten_by = 1 - (ranks[len(members) :] - rankdata(nonmembers)) / len(members)
        variance = beaten.var(ddof=1) / len(members) + beaten_by.var(ddof=1) / len(nonmembers)
        return {"membership_auc": float(beaten.mean()), "standard_error": float(np.sqrt(variance))}
