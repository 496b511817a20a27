"""Where targets come from: something that never saw a forget row and says how likely each class is for it."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.evaluation.embeddings import embeddings
from hf_unlearn.trainers.measuring import Measuring

STRENGTHS = (0.3, 3.0, 30.0, 300.0)  # inverse regularisation of the probe; validation rows choose
MOST_PROBE_ROWS = 20_000  # of the retain rows; more change a linear probe little
MOST_LOG_ODDS = 30.0  # nats; what a probe may say at most


@dataclass
class Asked:
    """What a source says of rows that it never saw.

    Args:
        validation: `(validation rows, classes)`, log-odds of every class.
        forget: `(forget rows, classes)`.
    """

    validation: np.ndarray
    forget: np.ndarray


class Asking(Measuring):
    """What a source may ask of the trainer that wants targets."""

    @property
    def calibration_rows(self) -> Rows:
        """Validation rows that translate from the source to the model."""
        raise NotImplementedError

    def count_classes(self) -> int:
        """Number of labels of the model's head."""
        raise NotImplementedError

    def labels_of(self, rows: Rows) -> np.ndarray:
        """Class ids, `(rows,)`."""
        raise NotImplementedError

    def class_log_odds(self, rows: Rows, model: torch.nn.Module) -> np.ndarray:
        """A model's log-odds of every class, `(rows, classes)`."""
        raise NotImplementedError

    def embed(self, rows: Rows, model: torch.nn.Module) -> np.ndarray:
        """Where a model places rows, `(rows, dim)`."""
        raise NotImplementedError

    def trained_proxy(self) -> AbstractContextManager[torch.nn.Module]:
        """A cheap model that was trained on the retain rows."""
        raise NotImplementedError


class TargetSource(ABC):
    """Says, of validation and forget rows alike, how likely each class is, without having seen any of them."""

    name: ClassVar[str]

    @abstractmethod
    def ask(self, trainer: Asking) -> Asked:
        """Do the work, counting the examples that it reads on the trainer."""


class Probe(TargetSource):
    """A linear classifier on the frozen base that the recipe starts from: one forward pass, no training.

    The base never saw a row of the data, and a linear map of its features cannot tell a forget row from an unseen
    one. Features are mean hidden states, standardised; multinomial logistic regression on the retain rows.

    Args:
        base: the recipe's start.
    """

    name = "probe"

    def __init__(self, base: torch.nn.Module):
        self.base = base

    def ask(self, trainer: Asking) -> Asked:
        splits = trainer.splits
        base = self.base.to(trainer.args.device)
        retain = splits.retain
        if len(retain) > MOST_PROBE_ROWS:
            chosen = np.random.default_rng([trainer.args.seed, 5]).permutation(len(retain))[:MOST_PROBE_ROWS]
            retain = retain.select(np.sort(chosen))
        known, seen, asked = (
            self._features(base, trainer, rows) for rows in (retain, trainer.calibration_rows, splits.forget)
        )
        mean, spread = known.mean(0), np.maximum(known.std(0), 1e-8) * known.shape[1] ** 0.5
        known, seen, asked = ((part - mean) / spread for part in (known, seen, asked))
        labels, truth = trainer.labels_of(retain), trainer.labels_of(trainer.calibration_rows)
        fitted = fit_probe(known, labels, seen, truth)
        classes = trainer.count_classes()
        return Asked(probe_log_odds(fitted, seen, classes), probe_log_odds(fitted, asked, classes))

    @staticmethod
    def _features(base: torch.nn.Module, trainer: Asking, rows: Rows) -> np.ndarray:
        trainer.count_examples(len(rows))
        return embeddings(base, trainer.task, rows, trainer.args.per_device_eval_batch_size)


def fit_probe(known: np.ndarray, labels: np.ndarray, seen: np.ndarray, truth: np.ndarray):
    """Logistic regression on `known` `(rows, dim)`; the strength with the best likelihood on `seen` is kept."""
    from sklearn.linear_model import LogisticRegression

    best, most = None, -np.inf
    counted = np.isin(truth, labels)
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=300).fit(known, labels)
        log_probs = model.predict_log_proba(seen[counted])
        likelihood = log_probs[np.arange(counted.sum()), np.searchsorted(model.classes_, truth[counted])].mean()
        if likelihood > most:
            best, most = model, likelihood
    return best


def probe_log_odds(model, features: np.ndarray, classes: int) -> np.ndarray:
    """log(p / (1 − p)) of every class, `(rows, classes)`; the lowest for a class that the probe never saw."""
    log_p = np.full((len(features), classes), -MOST_LOG_ODDS)
    log_p[:, model.classes_] = model.predict_log_proba(features)
    log_p = log_p.clip(-MOST_LOG_ODDS, -np.exp(-MOST_LOG_ODDS))
    return log_p - np.log(-np.expm1(log_p))


class Proxy(TargetSource):
    """A cheap model that is trained on the retain rows as the original was ([`make_proxy`])."""

    name = "proxy"

    def ask(self, trainer: Asking) -> Asked:
        with trainer.trained_proxy() as proxy:
            seen = trainer.class_log_odds(trainer.calibration_rows, proxy)
            return Asked(seen, trainer.class_log_odds(trainer.splits.forget, proxy))


class Oracle(TargetSource):
    """Retrained twins: a source that knows the answer. For studies of how much the targets are to blame for."""

    name = "oracle"

    def __init__(self, twins: list[torch.nn.Module]):
        self.twins = twins

    def ask(self, trainer: Asking) -> Asked:
        splits = trainer.splits
        seen, asked = (
            np.mean([trainer.class_log_odds(rows, twin) for twin in self.twins], axis=0)
            for rows in (trainer.calibration_rows, splits.forget)
        )
        return Asked(seen, asked)
