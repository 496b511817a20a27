"""What a language model still knows of its rows: TOFU's metrics (Maini et al. 2024), and two of exact recall.

Functions of rows give `(rows,)` arrays; functions of splits give a number, or `None` where it is undefined.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import hmean, ks_2samp

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.token_scores import TokenScores
from hf_unlearn.report.blocks import Quality


@dataclass(frozen=True)
class Definition:
    """Whose definition the language figures follow, where the field's differ from each other.

    Args:
        name: as it stands beside the figures.
        drops_end: exact memorization, extraction strength and Min-K %++ leave out the last token of an answer.
        min_k_share: share of the least likely tokens that Min-K % and Min-K %++ look at.
        least_strength: a row whose last token is wrong has an extraction strength of 1/L, not 0.
    """

    name: str
    drops_end: bool
    min_k_share: float
    least_strength: bool

    def tokens(self, tokens: TokenScores) -> TokenScores:
        """The tokens that exact recall is judged on."""
        return tokens.without_last() if self.drops_end else tokens


OURS = Definition("ours", drops_end=False, min_k_share=0.2, least_strength=False)
DEFINITIONS = {"ours": OURS, "tofu": Definition("tofu", drops_end=True, min_k_share=0.4, least_strength=True)}
RETAIN_FIGURES = ("retain_probability", "retain_rouge", "retain_truth_ratio")
UTILITY_FIGURES = tuple(
    f"{split}_{figure}"
    for split in ("retain", "real_authors", "world_facts")
    for figure in ("probability", "rouge", "truth_ratio")
)


def probability(tokens: TokenScores) -> np.ndarray:
    """p(answer | question)^(1/tokens): exp of the mean token log-probability. NaN without a token."""
    return np.exp(tokens.row_mean(tokens.log_prob))


def normalised_probability(answer: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The answer's share of the probability of all options, for questions with a choice (TOFU).

    Args:
        answer (`np.ndarray`): `(rows,)`, [`probability`] of the right answer.
        wrong (`np.ndarray`): `(rows, options)`, of the wrong ones.
    """
    answer = np.asarray(answer, float)
    return answer / (answer + np.asarray(wrong, float).sum(axis=1))


def exact_memorization(tokens: TokenScores, definition: Definition = OURS) -> np.ndarray:
    """Share of a row's tokens that the model would choose itself, given the true ones before. NaN without a token."""
    tokens = definition.tokens(tokens)
    return tokens.row_mean(tokens.is_argmax)


def extraction_strength(tokens: TokenScores, definition: Definition = OURS) -> np.ndarray:
    """1 − k/L, with k the fewest of the L tokens after which the model would choose every further one (Carlini et al.
    2021). A row whose last token is wrong, so also one that is wrong throughout, scores 0 (TOFU: 1/L). NaN without a
    token."""
    tokens, strengths = definition.tokens(tokens), []
    for hits in tokens.of_rows(tokens.is_argmax):
        wrong = np.flatnonzero(hits == 0)
        prefix = wrong[-1] + 1 if len(wrong) else 0
        if definition.least_strength:
            prefix = min(prefix, len(hits) - 1)
        strengths.append(1 - prefix / len(hits) if len(hits) else np.nan)
    return np.array(strengths)


def rouge_l_recall(generated: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """ROUGE-L recall of generated texts against the true answers, stemmed, `(rows,)` in [0, 1]."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(answers, generated, strict=True)
    return np.array([scorer.score(answer, text)["rougeL"].recall for answer, text in pairs], float)


def truth_ratio(paraphrase_nll: np.ndarray, wrong_nll: np.ndarray) -> np.ndarray:
    """R = exp(−mean NLL of wrong answers) / exp(−NLL of the paraphrased right one), `(rows,)` (TOFU).

    Args:
        paraphrase_nll (`np.ndarray`): `(rows,)`, mean token NLL in nats.
        wrong_nll (`np.ndarray`): `(rows, answers)`, of several wrong answers.
    """
    return np.exp(np.asarray(paraphrase_nll, float) - np.asarray(wrong_nll, float).mean(axis=1))


def truth_ratio_forget(ratio: np.ndarray) -> float | None:
    """Mean of min(R, 1/R): 1 where a model no longer tells right from wrong answers. For forget rows."""
    ratio = np.asarray(ratio, float)
    if not _known(ratio):
        return None
    with np.errstate(divide="ignore"):
        return float(np.minimum(ratio, 1 / ratio).mean())


def truth_ratio_utility(ratio: np.ndarray) -> float | None:
    """Mean of max(0, 1 − R): near 1 where a model prefers right answers by far. For rows that are to be kept."""
    ratio = np.asarray(ratio, float)
    return float(np.maximum(0, 1 - ratio).mean()) if _known(ratio) else None


def forget_quality(ratio: np.ndarray, twin_ratio: np.ndarray) -> Quality:
    """Two-sample Kolmogorov-Smirnov test between the forget rows' truth ratios of a model and of a retrained twin:
    `distance` in [0, 1] and `p_value`, which is TOFU's forget quality (high: no difference was found)."""
    ratio, twin_ratio = np.asarray(ratio, float), np.asarray(twin_ratio, float)
    if not _known(ratio) or not _known(twin_ratio):
        return {"distance": None, "p_value": None}
    test = ks_2samp(ratio, twin_ratio)
    return {"distance": float(test.statistic), "p_value": float(test.pvalue)}


def model_utility(figures: Mapping[str, float | None]) -> float | None:
    """Harmonic mean of utility figures in [0, 1]: 0 as soon as one is.

    Args:
        figures: the three of `RETAIN_FIGURES`, or all nine of `UTILITY_FIGURES`. A model that was trained from scratch
            knows no real authors and world facts: it has three.

    Raises:
        UserError: other figures than these.
    """
    if set(figures) not in (set(RETAIN_FIGURES), set(UTILITY_FIGURES)):
        raise UserError(f"model utility takes the figures {', '.join(RETAIN_FIGURES)}, or all nine of UTILITY_FIGURES")
    values = [value for value in figures.values() if value is not None and not np.isnan(value)]
    if len(values) < len(figures):
        return None
    return float(hmean(values)) if min(values) > 0 else 0.0


def priv_leak(auc: float | None, twin_auc: float | None) -> float | None:
    """100·((1 − AUC) − (1 − AUC_twin))/(1 − AUC_twin) (MUSE, Shi et al. 2024): 0 is ideal; below 0 the forget rows are
    told from unseen ones better than on a twin (under-forgotten), above 0 worse (over-forgotten).

    `auc` is that of an attack (usually Min-K %) on forget against unseen rows. `None` where the twin's is 1.
    """
    if auc is None or twin_auc is None or twin_auc >= 1:
        return None
    return float(100 * (twin_auc - auc) / (1 - twin_auc))


def _known(values: np.ndarray) -> bool:
    return len(values) > 0 and not np.isnan(values).any()
