"""Targets for causal language models: for every forget row, how likely its answer would be to a model that never saw
it, and for every token of it, which of them such a model would know.

A proxy that never saw the forget rows says how hard rows and tokens are, and validation rows, which neither it nor the
model has seen, translate from the proxy's scale to the model's. One pass over the tokens gives both: a row's log-odds
follow from those of its tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from hf_unlearn.trainers.row_targets import SMALLEST_SPREAD, RegressedTargets, quantile_map
from hf_unlearn.trainers.split_output import SplitOutput

MOST_MOVED = 30.0  # nats


@dataclass
class TokenLogOdds:
    """What a model says of the supervised tokens of some rows.

    Args:
        values (`np.ndarray`): `(tokens,)`, log(p / (1 − p)) of each true token, row after row.
        count (`np.ndarray`): `(rows,)`, tokens of each row.
    """

    values: np.ndarray
    count: np.ndarray

    @property
    def start(self) -> np.ndarray:
        """Where each row's tokens begin, and where the last one's end: `(rows + 1,)`."""
        return np.r_[0, np.cumsum(self.count)].astype(np.int64)

    @property
    def mean_loss(self) -> float:
        """Mean NLL of all tokens, in nats."""
        return float(np.logaddexp(0, -self.values).mean())

    @property
    def of_rows(self) -> np.ndarray:
        """φ of each row, `(rows,)`: log(p / (1 − p)) with p = exp of minus the mean token NLL."""
        nll = np.logaddexp(0, -self.values)
        mean = np.array([nll[a:b].mean() for a, b in zip(self.start[:-1], self.start[1:], strict=True)])
        mean = np.maximum(mean, np.finfo(np.float32).eps)
        return -mean - np.log(-np.expm1(-mean))


def fit_targets(
    model_seen: TokenLogOdds, proxy_seen: TokenLogOdds, proxy_asked: TokenLogOdds, places: tuple[np.ndarray, ...]
) -> dict[str, torch.Tensor]:
    """Targets of the forget rows and of their tokens, and the spreads that distances to them are measured in.

    Args:
        model_seen, proxy_seen: the model and the proxy on validation rows.
        proxy_asked: the proxy on forget rows.
        places: the proxy's embeddings of validation and of forget rows, `(rows, dim)` each.

    Returns:
        `targets` `(forget rows,)`, `spread`, `token_targets` `(tokens,)`, `token_spread`, `token_start` `(rows + 1,)`.
    """
    targets = row_targets(model_seen.of_rows, proxy_seen.of_rows, proxy_asked.of_rows, places)
    tokens, token_spread = fit_tokens(model_seen.values, proxy_seen.values, proxy_asked.values)
    tokens = agreeing(TokenLogOdds(tokens, proxy_asked.count), targets)
    found = {
        "targets": targets,
        "spread": max(model_seen.of_rows.std(), SMALLEST_SPREAD),
        "token_targets": tokens,
        "token_spread": max(token_spread, SMALLEST_SPREAD),
        "token_start": proxy_asked.start,
    }
    return {name: torch.as_tensor(value) for name, value in found.items()}


def fit_tokens(model_seen: np.ndarray, proxy_seen: np.ndarray, proxy_asked: np.ndarray) -> tuple[np.ndarray, float]:
    """Targets of the tokens of forget rows, `(tokens,)`, and the spread (standard deviation) of the model's log-odds,
    in nats, from the log-odds of single tokens as in [`fit_targets`]."""
    targets = quantile_map(proxy_asked, proxy_seen, model_seen, np.ones(len(proxy_seen)))
    return targets, model_seen.std()


def agreeing(tokens: TokenLogOdds, rows: np.ndarray) -> np.ndarray:
    """The targets of tokens, `(tokens,)`, all those of a row moved alike until they give the row its target.

    Two translations, of rows and of tokens, do not agree by themselves: where all tokens stand at their targets before
    the row does, nothing would pull it on.

    Args:
        tokens: targets of tokens.
        rows: `(rows,)`, targets of the rows.
    """
    parts = zip(np.split(tokens.values, tokens.start[1:-1]), rows, strict=True)
    return np.concatenate([own + _shift(own, row) for own, row in parts])


def _shift(tokens: np.ndarray, row: float) -> float:
    """What is to be added to the log-odds of all tokens of a row to give it the log-odds `row`."""
    from scipy.optimize import brentq

    def away(shift: float) -> float:
        return TokenLogOdds(tokens + shift, np.array([len(tokens)])).of_rows[0] - row

    reachable = away(-MOST_MOVED) < 0 < away(MOST_MOVED)
    return brentq(away, -MOST_MOVED, MOST_MOVED, xtol=1e-6) if reachable else 0.0


def at_tokens(state: Mapping[str, torch.Tensor], forget: SplitOutput) -> torch.Tensor:
    """The targets of the supervised tokens of a micro-batch, which may have no forget row: `(tokens,)`."""
    return state["token_targets"][token_places(state, forget)].to(forget.log_odds)


def token_places(state: Mapping[str, torch.Tensor], forget: SplitOutput) -> torch.Tensor:
    """Where the supervised tokens of a micro-batch stand among those of all forget rows: `(tokens,)`, on the host."""
    start = state["token_start"].numpy()  # on the host, as the rows' numbers are: no step waits for a device here
    places = [torch.arange(start[row], start[row + 1]) for row in forget.rows]
    return torch.cat([torch.arange(0), *places])


def row_targets(model: np.ndarray, seen: np.ndarray, asked: np.ndarray, places: tuple[np.ndarray, ...]) -> np.ndarray:
    """Targets `(forget rows,)` from `(validation rows,)` log-odds of the model and the proxy, and the proxy's `asked`.

    Two ways, and validation rows that are left out one by one choose the better: a line on the proxy's log-odds, which
    two numbers settle; or a ridge regression that also knows where the proxy places a row, which takes many validation
    rows to be worth it.
    """
    known, wanted = (np.c_[level, place] for level, place in zip((seen, asked), places, strict=True))
    regressed = RegressedTargets(known, wanted)
    error = np.mean((leave_one_out(model, seen) - model) ** 2)
    if len(model) > 2 and regressed.error(model[:, None]) < error:
        return regressed.fit(model[:, None])[0]
    return on_line(asked, seen, model)


def on_line(values: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`values` on the least-squares line of `target` on `source`: μ_t + r(σ_t / σ_s)(values − μ_s)."""
    slope = np.cov(source, target, bias=True)[0, 1] / max(source.var(), 1e-12)
    return target.mean() + slope * (values - source.mean())


def leave_one_out(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Each of `source` put [`on_line`] by all the others, `(rows,)`."""
    if len(source) < 3:
        return np.full(len(source), target.mean())
    others = [np.delete(np.arange(len(source)), i) for i in range(len(source))]
    return np.array([on_line(source[i : i + 1], source[o], target[o])[0] for i, o in enumerate(others)])
