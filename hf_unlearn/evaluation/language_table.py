"""The evidence block `language`: what original, unlearned model and twins know of their rows, side by side."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.evaluation import language_metrics as metrics
from hf_unlearn.evaluation.attacks import threshold_attack
from hf_unlearn.evaluation.generation import MAX_NEW_TOKENS, answers, generate, has_prompts, last_answers, sample_rows
from hf_unlearn.evaluation.language_attacks import (
    loss_score,
    min_k_plus_plus_score,
    min_k_score,
    reference_score,
    zlib_bytes,
    zlib_score,
)
from hf_unlearn.evaluation.perturbed import Choices, choice_figures, choices_of
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.evaluation.scoring import score_tokens
from hf_unlearn.evaluation.token_scores import TokenScores
from hf_unlearn.report.blocks import Language, Qualities
from hf_unlearn.tasks.base import Task

ROLES = {"forget": "forget", "retain": "retain", "unseen": "nonmembers"}
GENERATED = 300  # rows per role that answers are generated for, as in TOFU
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "reference")
NO_GRADIENTS = "The gradient-norm attack on the language model: it takes a backward pass per row."
NO_PROMPTS = "Generated answers (ROUGE): the rows are running text, without questions."
NO_CHOICES = "Truth ratio, forget quality: no wrong answers (`perturbed_answer`) to the {} rows' questions."
NO_UTILITY = "Model utility: it takes generated answers and wrong answers to the retain rows' questions."


@dataclass
class LanguageData:
    """What all models are measured on, made once.

    Args:
        splits: the roles.
        choices: by role, and `real_authors` and `world_facts` where they are given, for pretrained models.
        max_new_tokens: of a generated answer; 0 generates none.
        definition: whose figures; see [`Definition`](language_metrics.py).
        seed: draws the rows that answers are generated for.
    """

    task: Task
    splits: UnlearningSplits
    choices: dict[str, Choices | None]
    max_new_tokens: int = MAX_NEW_TOKENS
    definition: metrics.Definition = metrics.OURS
    seed: int = 0

    @classmethod
    def build(cls, task: Task, splits: UnlearningSplits, others: Sequence[Any] = (), **options: Any) -> "LanguageData":
        """With the options of each role's questions from the rows' own columns or from `others`, data sets with
        `perturbed_answer`."""
        choices = {role: choices_of(task, getattr(splits, name), list(others)) for role, name in ROLES.items()}
        return cls(task, splits, choices, **options)

    @property
    def generates(self) -> bool:
        return self.max_new_tokens > 0 and has_prompts(self.task)


@dataclass
class Measured:
    """One model's arrays by role: tokens, ROUGE-L recall `(sampled rows,)`, and what it makes of the options."""

    scores: dict[str, SplitScores]
    tokens: dict[str, TokenScores]
    rouge: dict[str, np.ndarray] = field(default_factory=dict)
    choices: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def measure(model: torch.nn.Module, data: LanguageData, names: tuple[str, ...], **options: Any) -> Measured:
    """One scoring pass over the splits `names`, and what needs more: generated answers and other answers.

    `options` are those of [`~hf_unlearn.evaluation.scoring.score`].
    """
    task, splits = data.task, data.splits
    seen: dict[int, tuple[SplitScores, TokenScores]] = {}
    found = Measured({}, {})
    for name in names:
        rows = getattr(splits, name)
        if id(rows) not in seen:
            seen[id(rows)] = score_tokens(model, task, rows, said=name == "forget", **options)
        found.scores[name], found.tokens[name] = seen[id(rows)]
    if data.generates:
        for role, name in ROLES.items():
            rows = sample_rows(getattr(splits, name), GENERATED, data.seed)
            found.rouge[role] = _rouge(model, data, rows, options)
    for role, choices in data.choices.items():
        if choices is not None:
            given = role not in ROLES
            found.choices[role] = choice_figures(model, task, choices, options_only=given, **options)
            if given and data.generates:
                found.rouge[role] = _rouge(model, data, choices.right, options)
    return found


def _rouge(model: torch.nn.Module, data: LanguageData, rows, options: Mapping[str, Any]) -> np.ndarray:
    batch = options.get("batch_size", 64)
    texts = generate(model, data.task, rows, max_new_tokens=data.max_new_tokens, batch_size=batch)
    return metrics.rouge_l_recall(texts, last_answers(data.task, rows))


def language_block(models: Mapping[str, Measured | None], data: LanguageData) -> Language:
    """JSON types only. `models`: `original` (may be `None`), `unlearned`, and any others as twins.

    Returns:
        - `definition`: whose definitions the figures follow, `ours` or `tofu`.
        - `figures[name][model]` with the models `original`, `unlearned` and `twins` (the mean): by role probability,
          ROUGE-L recall, extraction strength, exact memorization and truth ratio; `model_utility`.
        - `attacks[name][model]`: the AUC of forget against unseen rows; the reference is the first twin (for this
          one the second).
        - `priv_leak[model]`: of Min-K % against the twins' mean AUC. `forget_quality[model]`: the means of
          `distance` and `p_value` over all twins, and `each` twin's p-value; a twin's are against the other twins.
        - `not_checked`: sentences. What cannot be known is `None`.
    """
    twins = [name for name in models if name not in ("original", "unlearned")]
    known = {name: found for name, found in models.items() if found is not None}
    bytes_ = {name: zlib_bytes(answers(data.task, getattr(data.splits, name))) for name in ("forget", "nonmembers")}
    figures = {name: _figures(found, data.definition) for name, found in known.items()}
    attacks = {
        name: _attacks(found, _reference(name, twins, known), bytes_, data.definition) for name, found in known.items()
    }
    aucs = {name: found["min_k"]["value"] for name, found in attacks.items()}
    twin_auc = _mean([aucs[name] for name in twins]) if twins else None
    ratios = {
        name: found.choices["forget"]["truth_ratio"] for name, found in known.items() if "forget" in found.choices
    }
    return {
        "definition": data.definition.name,
        "figures": _by_figure(figures, twins),
        "attacks": _by_figure(attacks, twins),
        "priv_leak": {name: metrics.priv_leak(aucs.get(name), twin_auc) for name in ("original", "unlearned")},
        "forget_quality": _forget_quality(ratios, twins),
        "not_checked": _not_checked(data),
    }


def _forget_quality(ratios: Mapping[str, np.ndarray], twins: list[str]) -> dict[str, Qualities | None]:
    """Of each model against every twin; of twins every pair."""
    known = [name for name in twins if name in ratios]
    pairs = {name: [(name, twin) for twin in known] for name in ("original", "unlearned") if name in ratios}
    pairs["twins"] = list(itertools.combinations(known, 2))
    found: dict[str, Qualities | None] = {}
    for name in ("original", "unlearned", "twins"):
        tests = [metrics.forget_quality(ratios[one], ratios[other]) for one, other in pairs.get(name, [])]
        each = {part: [test[part] for test in tests] for part in ("distance", "p_value")}
        means = {part: _mean(values) for part, values in each.items()}
        found[name] = None
        if tests:
            found[name] = Qualities(distance=means["distance"], p_value=means["p_value"], each=each["p_value"])
    return found


def _figures(found: Measured, definition: metrics.Definition) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for role, name in ROLES.items():
        tokens = found.tokens[name]
        figures[f"{role}_probability"] = _row_mean(metrics.probability(tokens))
        figures[f"{role}_rouge"] = _row_mean(found.rouge.get(role))
        figures[f"{role}_extraction_strength"] = _row_mean(metrics.extraction_strength(tokens, definition))
        figures[f"{role}_exact_memorization"] = _row_mean(metrics.exact_memorization(tokens, definition))
    for role, choice in found.choices.items():
        ratio = metrics.truth_ratio_forget if role == "forget" else metrics.truth_ratio_utility
        figures[f"{role}_truth_ratio"] = ratio(choice["truth_ratio"])
        if role not in ROLES:
            figures[f"{role}_probability"] = _row_mean(choice["probability"])
            figures[f"{role}_rouge"] = _row_mean(found.rouge.get(role))
    names = metrics.UTILITY_FIGURES if "real_authors" in found.choices else metrics.RETAIN_FIGURES
    figures["model_utility"] = metrics.model_utility({name: figures.get(name) for name in names})
    return figures


def _attacks(
    found: Measured, reference: Measured | None, compressed: Mapping[str, np.ndarray], definition: metrics.Definition
) -> dict[str, Any]:
    """The AUC of each attack, as a figure with its interval."""
    sides, share = {name: found.tokens[name] for name in ("forget", "nonmembers")}, definition.min_k_share
    scores = {
        "loss": [loss_score(tokens) for tokens in sides.values()],
        "zlib": [zlib_score(tokens, compressed[name]) for name, tokens in sides.items()],
        "min_k": [min_k_score(tokens, share) for tokens in sides.values()],
        "min_k_plus_plus": [min_k_plus_plus_score(definition.tokens(tokens), share) for tokens in sides.values()],
    }
    if reference is not None:
        scores["reference"] = [reference_score(tokens, reference.tokens[name]) for name, tokens in sides.items()]
    return {name: threshold_attack(forget, unseen)["auc"] for name, (forget, unseen) in scores.items()}


def _reference(name: str, twins: list[str], known: Mapping[str, Measured]) -> Measured | None:
    others = [twin for twin in twins if twin != name]
    return known[others[0]] if others else None


def _by_figure(found: Mapping[str, Mapping[str, Any]], twins: list[str]) -> dict[str, dict[str, Any]]:
    names = dict.fromkeys(key for figures in found.values() for key in figures)
    return {
        key: {model: found.get(model, {}).get(key) for model in ("original", "unlearned")}
        | {"twins": _mean_figure([found[twin].get(key) for twin in twins])}
        for key in names
    }


def _mean_figure(values: list[Any]) -> Any:
    """Mean over twins; of figures with an interval, with the lowest and the highest twin as interval."""
    if not values or None in values:
        return None
    if not isinstance(values[0], dict):
        return _mean(values)
    each = [figure["value"] for figure in values]
    if None in each:
        return None
    ends = [min(each), max(each)] if len(each) > 1 else None
    return {"value": _mean(each), "interval": ends, "null": values[0]["null"]}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _row_mean(values: np.ndarray | None) -> float | None:
    return None if values is None or not len(values) or np.isnan(values).any() else float(values.mean())


def _not_checked(data: LanguageData) -> list[str]:
    found = [NO_GRADIENTS]
    if not data.generates:
        found.append(NO_PROMPTS if data.max_new_tokens > 0 else "Generated answers (ROUGE): --max_new_tokens is 0.")
    found += [NO_CHOICES.format(role) for role in ("forget", "retain") if data.choices.get(role) is None]
    if not data.generates or data.choices.get("retain") is None:
        found.append(NO_UTILITY)
    return found
