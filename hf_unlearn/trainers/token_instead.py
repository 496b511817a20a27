"""What would be said in the place of a forgotten answer's tokens, by a model that never saw it."""

from collections.abc import Mapping

import numpy as np
import torch

from hf_unlearn.data.rows import AnyRows
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers.forget_retain import mean_by_places
from hf_unlearn.trainers.split_output import SplitOutput
from hf_unlearn.trainers.token_targets import at_tokens, token_places

KEPT = 64  # likeliest words of each place
FEWEST = 8
BYTES = 8  # of a word: its id, and how likely it is
ROOM = 2**28  # bytes that the words of all places may take before fewer are kept of each
UNTIL = 1 / 3  # of the run: after, nothing keeps the rows from their targets
WEIGHT = 1.0  # beside the loss of the retain rows
PLAN = (
    f"what a source says instead of forgotten tokens is kept, and in checkpoints too: {KEPT} words and {BYTES * KEPT} "
    f"bytes a token, fewer (at least {FEWEST}) where that is above {ROOM // 2**20} MB"
)
WORDS, LOG_PROBS = "instead_words", "instead_log_probs"  # among the tensors of a checkpoint


def words_kept(rows: AnyRows) -> int:
    """How many of the likeliest words are kept of each place: fewer where the rows have many supervised tokens."""
    tokens = 0
    for start in range(0, len(rows), 256):  # never all of them in memory
        read = rows.__getitems__(list(range(start, min(start + 256, len(rows)))))
        tokens += sum(int((torch.as_tensor(row["labels"]) >= 0).sum()) for row in read)
    return min(KEPT, max(FEWEST, ROOM // (BYTES * max(1, tokens))))


def likeliest_others(predictions: Predictions, words: int = KEPT) -> torch.Tensor:
    """The likeliest words in the place of each token but the true one, [`packed`]: how likely, given that it is not
    the true one."""
    words = min(words, predictions.logits.shape[1] - 1)
    return predictions.by_rows(lambda *of: packed(*_others(*of).topk(words, dim=1)))


def packed(log_probs: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """`(tokens, words)` log-probabilities, in nats, and token ids in one tensor: `(tokens, 2, words)` int32, the first
    the bits of float32."""
    return torch.stack([log_probs.float().view(torch.int32), words.int()], dim=1)


def _others(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return log_probs.scatter(1, labels[:, None], float("-inf")).log_softmax(1)


def kept(others: np.ndarray) -> dict[str, torch.Tensor]:
    """What is [`packed`] of the forget rows, as a method keeps it; the probabilities of a place add up to one."""
    bits, words = torch.from_numpy(others).unbind(1)
    return {WORDS: words.contiguous(), LOG_PROBS: bits.contiguous().view(torch.float32).log_softmax(1)}


def instead(state: Mapping[str, torch.Tensor], forget: SplitOutput, at: float) -> torch.Tensor | float:
    """mean_i[mean_j(−(1 − σ(t_ij))·Σ_v q_ij(v)·log p_ij(v | v ≠ y_ij))] over the step's forget rows, a scalar: y the
    true tokens, t the targets of their log-odds, q what [`kept`] says; nothing once the run is further than `UNTIL`,
    `at` being the share of its steps that is done.

    The chain rule of a divergence from a model that never saw the rows: whether the true token is said, which is left
    to the targets and does not change with this term, and what is said instead, as often as another token is.
    """
    if at >= UNTIL or WORDS not in state:
        return 0.0
    places = token_places(state, forget)
    words, wanted = (state[name][places].to(forget.labels.device) for name in (WORDS, LOG_PROBS))
    often = torch.sigmoid(-at_tokens(state, forget))  # (tokens,)

    def of_places(log_probs: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        said = _others(log_probs, forget.labels[place]).gather(1, words[place].long())
        return -often[place].to(said) * (wanted[place].exp().to(said) * said).sum(1)

    return WEIGHT * forget.mean(mean_by_places(forget, of_places))
