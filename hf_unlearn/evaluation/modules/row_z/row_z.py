"""z-scores of the forget rows' log-odds against several retrained models (twins), with pooled spread."""

import datasets
import evaluate
import numpy as np

VERSION = "1.0.0"

_DESCRIPTION = """z-scores of the forget rows' log-odds against several retrained models (twins), with pooled spread.
Row by row: does an unlearned model treat what it forgot as models do that never saw it? Version 1.0.0.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[float]`): φ = log(p/(1 − p)) of each forget row's label under the unlearned model.
    references (`list[list[float]]`): the same under each of at least two twins (four or more are better), row by row.

Returns:
    rms_z (`float`): root mean square of z = (φ − mean)/(s·√(1 + 1/k)); one more twin has 1 on average.
    remembered (`float`): share of rows with z > 2.
    over_forgotten (`float`): share of rows with z < −2.
        All `None` with fewer than two twins, without rows, or where the twins agree exactly.

Example:
    >>> metric = evaluate.load("row_z")
    >>> metric.compute(predictions=[1.0, 12.0], references=[[0.0, 2.0], [10.0, 14.0]])
    {'rms_z': 0.0, 'remembered': 0.0, 'over_forgotten': 0.0}
"""

_CITATION = """
@inproceedings{hayes2025inexact,
  title={Inexact Unlearning Needs More Careful Evaluations to Avoid a False Sense of Privacy},
  author={Hayes, Jamie and Shumailov, Ilia and Triantafillou, Eleni and Khalifa, Amr and Papernot, Nicolas},
  booktitle={IEEE Conference on Secure and Trustworthy Machine Learning},
  year={2025}
}
"""


class RowZ(evaluate.Metric):
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
            reference_urls=["https://arxiv.org/abs/2403.01218"],
        )

    def _compute(self, predictions, references):
        nothing = {"rms_z": None, "remembered": None, "over_forgotten": None}
        if not len(predictions):
            return nothing
        phi, twins_phi = np.asarray(predictions, float), np.asarray(references, float).T  # (twins, rows)
        if len(twins_phi) < 2 or not np.isfinite(phi).all() or not np.isfinite(twins_phi).all():
            return nothing
        spread = np.sqrt(twins_phi.var(axis=0, ddof=1).mean() * (1 + 1 / len(twins_phi)))
        if not spread > 0:
            return nothing
        z = (phi - twins_phi.mean(axis=0)) / spread
        return {
            "rms_z": float(np.sqrt(np.mean(z**2))),
            "remembered": float(np.mean(z > 2)),
            "over_forgotten": float(np.mean(z < -2)),
        }
