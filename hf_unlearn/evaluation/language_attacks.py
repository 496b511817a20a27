"""Membership scores of a language model's rows, `(rows,)`: the higher, the likelier the row was learned from.

Put them through [`threshold_attack`](attacks.py) with the scores of unseen rows. Rows without a token are NaN.
"""

import zlib
from collections.abc import Iterable

import numpy as np

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.token_scores import TokenScores

LOWEST_SHARE = 0.2


def loss_score(tokens: TokenScores) -> np.ndarray:
    """Mean token log-probability, minus the loss (Yeom et al. 2018)."""
    return tokens.row_mean(tokens.log_prob)


def zlib_score(tokens: TokenScores, compressed_bytes: np.ndarray) -> np.ndarray:
    """Mean token log-probability over the compressed size of the text (Carlini et al. 2021), which tells how much
    there is to predict without any model. `compressed_bytes` is `(rows,)`: [`zlib_bytes`] of the supervised texts."""
    return loss_score(tokens) / np.asarray(compressed_bytes, float)


def zlib_bytes(texts: Iterable[str]) -> np.ndarray:
    """`(rows,)`: size of each text's UTF-8 under zlib, in bytes."""
    return np.array([len(zlib.compress(text.encode("utf-8"))) for text in texts], float)


def min_k_score(tokens: TokenScores, share: float = LOWEST_SHARE) -> np.ndarray:
    """Mean log-probability of the `share` of a row's tokens that are least likely (Min-K %, Shi et al. 2024)."""
    return _lowest_mean(tokens, tokens.log_prob, share)


def min_k_plus_plus_score(tokens: TokenScores, share: float = LOWEST_SHARE) -> np.ndarray:
    """Min-K % of each token's log-probability in standard deviations from what the model expects there: Min-K %++
    (Zhang et al. 2025). Tokens where the model allows but one token have no such spread and count as 0."""
    sure = tokens.sd_log_prob > 0
    spread = np.where(sure, tokens.sd_log_prob, 1.0)
    return _lowest_mean(tokens, np.where(sure, (tokens.log_prob - tokens.mean_log_prob) / spread, 0.0), share)


def reference_score(tokens: TokenScores, reference: TokenScores) -> np.ndarray:
    """Mean token log-probability, less that under a reference model which never saw the rows (Carlini et al. 2021)."""
    if len(tokens) != len(reference):
        raise UserError("reference attack: both models must have scored the same rows")
    return loss_score(tokens) - loss_score(reference)


def _lowest_mean(tokens: TokenScores, values: np.ndarray, share: float) -> np.ndarray:
    """Mean of each row's lowest ⌊share · length⌋ values, at least one."""
    if not 0 < share <= 1:
        raise UserError(f"Min-K %: share is {share}: choose one in (0, 1], for example 0.2")
    rows = tokens.of_rows(values)
    return np.array([np.sort(row)[: max(1, int(share * len(row)))].mean() if len(row) else np.nan for row in rows])
