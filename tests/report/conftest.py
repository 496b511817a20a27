import numpy as np
import pytest

from hf_unlearn.evaluation.comparison import compare
from hf_unlearn.evaluation.distributions import distributions
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.report import build_evidence, environment


def model(seed, shift=0.0, forget_shift=0.0):
    """Scores of one model: rows have a difficulty, models of the same kind scatter around it."""
    noise, truth = np.random.default_rng(seed), np.random.default_rng(99)

    def split(mean, rows):
        phi = mean + truth.normal(0, 2, rows) + noise.normal(0, 0.5, rows)
        loss = np.log1p(np.exp(-phi))
        return SplitScores(loss=loss, log_odds=phi, correct=(phi > 0) * 1.0, confidence=loss, entropy=loss)

    scores = {"forget": split(3 + forget_shift, 120), "retain": split(6, 400), "test": split(3 + shift, 150)}
    return scores | {"nonmembers": scores["test"]}


@pytest.fixture
def make_evidence():
    """Evidence of a run with so many twins; `unlearned`: how much surer than they its model is on forget rows;
    `plots`: with the counts that plots are made from."""

    def make(twins=4, unlearned=0.0, original=4.0, shift=0.0, notes=(), plots=False):
        models = (
            model(1, forget_shift=original),
            model(2, shift=shift, forget_shift=unlearned),
            [model(10 + i) for i in range(twins)],
        )
        return build_evidence(
            method={
                "name": "nabla_tau",
                "paper": {"title": "∇τ", "authors": "Trippa et al.", "year": "2024", "id": "arXiv:2403.14339"},
                "hyperparameters": {"learning_rate": 5e-4},
            },
            task="image_classification",
            model={"parameters": 136000, "trainable_parameters": 136000, "peft": None},
            data={
                "source": "digits",
                "splits": {"forget": 120, "retain": 1080, "validation": 180, "test": 150},
                "request": {"kind": "fraction"},
                "forget_digest": "00ff",
            },
            comparison=compare(*models),
            distributions=distributions(*models) if plots else None,
            cost={
                "original_seconds": 21.04,
                "unlearn_seconds": 4.6,
                "retrain_seconds": 19.5 if twins else None,
                "unlearn_examples": 9321,
                "retrain_examples": 43200 if twins else None,
                "steps": 102,
                "peak_memory_mb": 512.3,
            },
            environment=environment(7, "cpu"),
            notes=notes,
        )

    return make
