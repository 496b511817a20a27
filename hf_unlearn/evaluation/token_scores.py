"""Per-token arrays of a causal LM on one split: what the language metrics and attacks are computed from."""

from dataclasses import dataclass

import numpy as np


@dataclass
class TokenScores:
    """The supervised tokens of n examples one after the other, `(tokens,)` float64, and how many each example has.

    Args:
        log_prob: log-probability of the true token, in nats.
        is_argmax: 1 where the true token is the most likely one given the true tokens before it, else 0.
        mean_log_prob: E[log p(z)] over z drawn from the model's own distribution there (minus its entropy).
        sd_log_prob: standard deviation of log p(z) over the same.
        count: `(n,)` int, supervised tokens of each example, in the order of the split's rows.
    """

    log_prob: np.ndarray
    is_argmax: np.ndarray
    mean_log_prob: np.ndarray
    sd_log_prob: np.ndarray
    count: np.ndarray

    def __len__(self) -> int:
        return len(self.count)

    def of_rows(self, values: np.ndarray) -> list[np.ndarray]:
        """`(tokens,)` values, example by example."""
        return np.split(values, np.cumsum(self.count)[:-1]) if len(self) else []

    def row_mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of `(tokens,)` values over each example's tokens, `(n,)`; NaN for an example without any."""
        return np.array([row.mean() if len(row) else np.nan for row in self.of_rows(values)])

    def without_last(self) -> "TokenScores":
        """Without the last token of each example, which ends an answer; an example of one token keeps it."""
        kept = np.ones(len(self.log_prob), bool)
        kept[np.cumsum(self.count)[self.count > 1] - 1] = False
        probability, right = self.log_prob[kept], self.is_argmax[kept]
        mean, spread = self.mean_log_prob[kept], self.sd_log_prob[kept]
        return TokenScores(probability, right, mean, spread, self.count - (self.count > 1))
