"""1 − k/L, with k the fewest of a text's L tokens after which every further token is the model's first choice."""

import datasets
import evaluate
import numpy as np

VERSION = "1.0.0"

_DESCRIPTION = """1 − k/L, with k the fewest of a text's L tokens after which every further token is the model's first
choice.
How little of a text must be given so that the model completes the rest by itself. Version 1.0.0.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[list[int]]`): for each text the model's most likely token at every position, given the true
        tokens before it (teacher forcing).
    references (`list[list[int]]`): the true tokens, as many.

Returns:
    extraction_strength (`float`): mean over texts, in [0, 1]; `None` without texts. A text whose last token is wrong,
        so also one that is wrong throughout, counts as 0.

Example:
    >>> metric = evaluate.load("extraction_strength")
    >>> metric.compute(predictions=[[7, 2, 3, 4], [9, 9]], references=[[1, 2, 3, 4], [5, 6]])
    {'extraction_strength': 0.375}
"""

_CITATION = r"""
@inproceedings{carlini2021extracting,
  title={Extracting Training Data from Large Language Models},
  author={Carlini, Nicholas and Tram{\`e}r, Florian and Wallace, Eric and Jagielski, Matthew and Herbert-Voss, Ariel
    and Lee, Katherine and Roberts, Adam and Brown, Tom and Song, Dawn and Erlingsson, {\'U}lfar and others},
  booktitle={USENIX Security Symposium},
  year={2021}
}
"""


class ExtractionStrength(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("int64")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
            license="apache-2.0",
            reference_urls=["https://arxiv.org/abs/2012.07805"],
        )

    def _compute(self, predictions, references):
        strengths = []
        for chosen, true in zip(predictions, references, strict=True):
            if len(chosen) != len(true) or not len(true):
                raise ValueError("every text needs as many predicted as true tokens, and at least one")
            wrong = np.flatnonzero(np.asarray(chosen) != np.asarray(true))
            strengths.append(1 - (wrong[-1] + 1) / len(true) if len(wrong) else 1.0)
        return {"extraction_strength": float(np.mean(strengths)) if strengths else None}
