"""R = exp(−mean NLL of wrong answers) / exp(−NLL of the paraphrased right answer), aggregated over rows."""

import datasets
import evaluate
import numpy as np

VERSION = "1.0.0"

_DESCRIPTION = """R = exp(−mean NLL of wrong answers) / exp(−NLL of the paraphrased right answer), aggregated over
rows.
Does a model still tell the right answer from wrong ones, whatever the wording? Version 1.0.0.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[float]`): mean token NLL in nats of each row's paraphrased right answer.
    references (`list[list[float]]`): mean token NLL of each row's wrong answers, equally many for every row.
    aggregation (`str`, default `"forget"`): `"forget"`: mean of min(R, 1/R); `"utility"`: mean of max(0, 1 − R), for
        rows that are to be kept.

Returns:
    truth_ratio (`float`): in [0, 1], `None` without rows or with NaN. On forget rows 1 means that right and wrong
        answers are alike; on other rows high means that right ones are preferred.

Example:
    >>> metric = evaluate.load("truth_ratio")
    >>> metric.compute(predictions=[1.0], references=[[1.0, 3.0]], aggregation="utility")
    {'truth_ratio': 0.6321205588285577}
"""

_CITATION = """
@inproceedings{maini2024tofu,
  title={{TOFU}: A Task of Fictitious Unlearning for {LLMs}},
  author={Maini, Pratyush and Feng, Zhili and Schwarzschild, Avi and Lipton, Zachary C. and Kolter, J. Zico},
  booktitle={Conference on Language Modeling},
  year={2024}
}
"""


class TruthRatio(evaluate.Metric):
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
            reference_urls=["https://arxiv.org/abs/2401.06121"],
        )

    def _compute(self, predictions, references, aggregation="forget"):
        if aggregation not in ("forget", "utility"):
            raise ValueError(f"aggregation is {aggregation!r}: choose 'forget' or 'utility'")
        if not len(predictions):
            return {"truth_ratio": None}
        ratio = np.exp(np.asarray(predictions, float) - np.asarray(references, float).mean(axis=1))
        if np.isnan(ratio).any():
            return {"truth_ratio": None}
        with np.errstate(divide="ignore"):
            each = np.minimum(ratio, 1 / ratio) if aggregation == "forget" else np.maximum(0, 1 - ratio)
        return {"truth_ratio": float(each.mean())}
