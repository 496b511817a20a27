"""Where targets come from: something that never saw a forget row and says how likely its label is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from operator import attrgetter

import numpy as np
import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.embeddings import embeddings
from hf_unlearn.evaluation.scoring import Measure, collect
from hf_unlearn.trainers.measuring import Measuring
from hf_unlearn.trainers.random_streams import Stream, random_numbers
from hf_unlearn.trainers.row_targets import SMALLEST_SPREAD, class_log_odds, correlation
from hf_unlearn.trainers.token_instead import likeliest_others, words_kept
from hf_unlearn.trainers.token_targets import TokenLogOdds

STRENGTHS = (0.3, 3.0, 30.0, 300.0)  # inverse regularisation of the probe; validation rows choose
MOST_PROBE_ROWS = 4096  # of the retain rows; more change a linear probe little
MOST_LOG_ODDS = 30.0  # nats; what a probe may say at most
EQUAL_WEIGHTS_ARE_WORTH = 100  # validation rows, when it is asked how far each of several sources is believed


@dataclass
class Said:
    """What a model, or another source, says of rows.

    Args:
        log_odds: `(rows, classes)`, log(p / (1 − p)) of every class; of a causal LM `(rows, 1)`, of the answer alone.
        tokens: of a causal LM, the same for the true tokens.
        places: `(rows, dim)`, where a causal LM places the rows, if that was asked for.
        others: of a causal LM, the words that it would say in the place of the true tokens, if that was asked for
            ([`~hf_unlearn.trainers.token_instead.likeliest_others`]).
    """

    log_odds: np.ndarray
    tokens: TokenLogOdds | None = None
    places: np.ndarray | None = None
    others: np.ndarray | None = None

    @property
    def by_token(self) -> TokenLogOdds:
        """`tokens`, of a causal LM, which always has them."""
        assert self.tokens is not None
        return self.tokens


@dataclass
class Asked:
    """What a source says of rows that it never saw.

    Args:
        validation: of the rows that translate from the source to the model.
        forget: of the forget rows.
        steadies: whether a classifier's rows are believed as far as the source goes with the model
            ([`~hf_unlearn.trainers.row_targets.RowTargets`]).
        trained: of the forget rows, as a model says it that was trained on the retain rows; `None` without such a one.
        ends: whether that model was trained to the end, as a twin is.
    """

    validation: Said
    forget: Said
    steadies: bool = field(default=False, kw_only=True)
    trained: Said | None = field(default=None, kw_only=True)
    ends: bool = field(default=False, kw_only=True)

    def divided(self, spread: float) -> "Asked":
        """The log-odds in units of `spread`, but not those of `trained`; tokens and places are dropped."""
        seen, asked = (Said(said.log_odds / max(spread, SMALLEST_SPREAD)) for said in (self.validation, self.forget))
        return replace(self, validation=seen, forget=asked)


class Asking(Measuring):
    """What a source may ask of the trainer that wants targets, and what it is asked for."""

    asks_others = False  # whether it wants to know what is said in the place of forget rows' tokens

    @property
    def calibration_rows(self) -> Rows:
        """Validation rows that translate from the source to the model."""
        raise NotImplementedError

    @property
    def proxy_epochs(self) -> float:
        """Passes over the retain rows that train a proxy."""
        raise NotImplementedError

    def ask(self) -> Asked:
        """What the trainer's source says."""
        raise NotImplementedError

    def calibrate(self) -> Said:
        """What the current model says of the calibration rows."""
        raise NotImplementedError

    def count_classes(self) -> int:
        """Number of labels of the model's head."""
        return self.accelerator.unwrap_model(self.model).config.num_labels

    @staticmethod
    def labels_of(rows: Rows) -> np.ndarray:
        """Class ids, `(rows,)`."""
        return rows.numbers("labels")

    @cached_property
    def kept_classes(self) -> np.ndarray:
        """Ids of the classes that retain rows have, ascending."""
        return np.unique(self.labels_of(self.splits.retain))

    def own_log_odds(self, said: Said, rows: Rows) -> np.ndarray:
        """Those of the rows' own labels, `(rows,)`; of a causal LM those of the answers."""
        if not self.task.chooses_class():
            return said.log_odds[:, 0]
        return said.log_odds[np.arange(len(rows)), self.labels_of(rows)]

    def agreement(self, asked: Asked) -> float:
        """Correlation of a source's log-odds on validation rows with those of the model as it is now."""
        return correlation(
            *(self.own_log_odds(said, self.calibration_rows) for said in (asked.validation, self.calibrate()))
        )

    def look(self, rows: Rows, model: torch.nn.Module, *, places: bool = False, others: int = 0) -> Said:
        """What a model says of rows, in row order on every process: one pass, counted as examples. `others`: so many
        of the words that it would say in the place of each true token."""
        self.count_examples(len(rows))
        by_token: dict[str, Measure] = {}
        if not self.task.chooses_class():
            by_token = {"tokens": attrgetter("label_log_odds")}
            if others:
                by_token["others"] = partial(likeliest_others, words=others)
        options = self._scoring_options()
        found = collect(model, self.task, rows, {"log_odds": class_log_odds}, by_token, places=places, **options)
        if not by_token:
            return Said(found["log_odds"])
        tokens = TokenLogOdds(found["tokens"], found["token_count"].astype(np.int64))
        return Said(found["log_odds"], tokens, found.get("place"), found.get("others"))

    def ask_model(self, model: torch.nn.Module) -> Asked:
        """What a model that never saw the rows says of them, and where it places those of a language model."""
        places = not self.task.chooses_class()
        seen = self.look(self.calibration_rows, model, places=places)
        others = words_kept(self.splits.forget) if self.asks_others else 0
        asked = self.look(self.splits.forget, model, places=places, others=others)
        return Asked(seen, asked, trained=asked)


class TargetSource(ABC):
    """Says, of validation and forget rows alike, how likely each class is (of a language model, how likely the answer
    and its tokens), without having seen any of them. `name` is for notes."""

    name: str

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
        if not trainer.task.chooses_class():
            raise UserError(f"a probe tells classes apart, and rows of {trainer.task.name} have none: take a proxy")
        if len(trainer.kept_classes) < 2:
            raise UserError("a probe tells classes apart, and rows of a single one are kept: take a proxy")
        base = self.base.to(trainer.args.device)
        retain = splits.retain
        if len(retain) > MOST_PROBE_ROWS:
            chosen = random_numbers(trainer.args.seed, Stream.PROBE_ROWS).permutation(len(retain))[:MOST_PROBE_ROWS]
            retain = retain.select(np.sort(chosen))
        known, seen, asked = (
            self._features(base, trainer, rows) for rows in (retain, trainer.calibration_rows, splits.forget)
        )
        mean, spread = known.mean(0), np.maximum(known.std(0), 1e-8) * known.shape[1] ** 0.5
        known, seen, asked = ((part - mean) / spread for part in (known, seen, asked))
        labels, truth = trainer.labels_of(retain), trainer.labels_of(trainer.calibration_rows)
        fitted = fit_probe(known, labels, seen, truth)
        classes = trainer.count_classes()
        return Asked(*(Said(probe_log_odds(fitted, features, classes)) for features in (seen, asked)))

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


class Blend(TargetSource):
    """What several sources say together, and believed as far as it goes with the model (`Asked.steadies`).

    Each is taken in units of its own spread, with a weight of 0 or more: those with which their sum comes closest to
    the model on validation rows, in the least squares (no source has seen these, and nor has the model). Few rows, on
    most of which the model is as sure as it can be, say little of that, so the weights are drawn to equal ones, as if
    100 rows had asked for these (ridge regression). A probe knows all retain rows and only what the base makes of
    them; a proxy learned as the original did, and not for long.

    Args:
        sources: in the order in which they are asked; each is let go once it has answered.
    """

    def __init__(self, *sources: TargetSource):
        self.sources = list(sources)
        self.name = " and a ".join(source.name for source in sources)

    def ask(self, trainer: Asking) -> Asked:
        rows, names = trainer.calibration_rows, []
        told: list[Asked] = []
        while self.sources:
            source = self.sources.pop(0)
            asked = source.ask(trainer)
            told.append(asked.divided(trainer.own_log_odds(asked.validation, rows).std()))
            names.append(source.name)
        weights = self._weights(trainer, told)
        self.name = " and a ".join(name for name, weight in zip(names, weights, strict=True) if weight > 0)
        if self.name != " and a ".join(names):
            left = " and a ".join(name for name, weight in zip(names, weights, strict=True) if weight == 0)
            trainer.notes.append(f"A {left} was asked for targets too; validation rows give it no weight.")
        seen, said = (
            Said(sum(w * part.log_odds for w, part in zip(weights, parts, strict=True)))
            for parts in ([asked.validation for asked in told], [asked.forget for asked in told])
        )
        trained = next((asked.trained for asked in told if asked.trained is not None), None)
        return Asked(seen, said, steadies=True, trained=trained)

    @staticmethod
    def _weights(trainer: Asking, told: list[Asked]) -> np.ndarray:
        """One for each source, `(sources,)`, by the calibration rows of kept classes."""
        rows = trainer.calibration_rows
        kept = np.isin(trainer.labels_of(rows), trainer.kept_classes)
        each = np.stack([trainer.own_log_odds(asked.validation, rows)[kept] for asked in told], axis=1)
        model = trainer.own_log_odds(trainer.calibrate(), rows)[kept]
        return blend_weights(each, model)


def blend_weights(each: np.ndarray, model: np.ndarray) -> np.ndarray:
    """How far sources are believed, `(sources,)`: min ‖y − Xw‖² + k‖w − w₀‖² over w ≥ 0, with X `(rows, sources)` and
    y `(rows,)` centred, k = 100 and w₀ the best equal weights; 1 each where no source goes with the model."""
    from scipy.optimize import nnls

    x, y = each - each.mean(0), model - model.mean()
    together = x.sum(1)
    equal = np.full(x.shape[1], max(0.0, together @ y / max(together @ together, 1e-12)))
    root = EQUAL_WEIGHTS_ARE_WORTH**0.5
    weights, _ = nnls(np.concatenate([x, root * np.eye(x.shape[1])]), np.concatenate([y, root * equal]))
    return weights if weights.any() else np.ones(x.shape[1])


class Oracle(TargetSource):
    """Retrained twins: a source that knows the answer. For studies of how much the targets are to blame for."""

    name = "mean of retrained twins"

    def __init__(self, twins: list[torch.nn.Module]):
        self.twins = twins

    def ask(self, trainer: Asking) -> Asked:
        each = [trainer.ask_model(twin) for twin in self.twins]
        seen, asked = (_mean([getattr(one, name) for one in each]) for name in ("validation", "forget"))
        return Asked(seen, asked, trained=asked, ends=True)


def _mean(said: list[Said]) -> Said:
    """The mean log-odds of several models of the same rows; places and other tokens are the first one's: no two agree
    on them."""
    log_odds = np.mean([each.log_odds for each in said], axis=0)
    tokens = [each.tokens for each in said if each.tokens is not None]
    if not tokens:
        return Said(log_odds)
    mean = TokenLogOdds(np.mean([each.values for each in tokens], axis=0), tokens[0].count)
    return Said(log_odds, mean, said[0].places, said[0].others)
