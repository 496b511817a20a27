"""What a language model says in the places of tokens: all words there, not the true one alone.

A scoring pass leaves it of a sample of tokens. It is kept on the host in half precision: 24 MiB of a model with 49,152
words, 128 MiB with 262,144.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch

from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.tasks.row_chunks import rows_at_once, wide_type

MOST_TOKENS = 256
SEED = 0
COPIES = 4  # of its part of the logits, while a chunk is widened
LEAST = torch.finfo(torch.float16).min


@dataclass
class Said:
    """Log-probabilities of all words in the places of a sample of tokens.

    Args:
        log_probs: `(tokens, words)` float16, in nats. Of all models that read the same rows these are the same tokens,
            in one order.
        of: tokens that the sample was drawn from.
        rows: `(tokens,)` int, the row that each token is of.
    """

    log_probs: np.ndarray
    of: int
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.log_probs)


class Listener:
    """Listens to the batches of a scoring pass, and keeps what is said in the places of at most `most` tokens.

    A token's number is drawn by the place of its row and its own place in there; the lowest numbers are kept. That is
    a simple random sample of all tokens, the same one for every model, size of batches and number of processes, and
    nothing has to be known beforehand. A row that is heard twice counts once.
    """

    def __init__(self, most: int = MOST_TOKENS):
        self.most = most
        self.counts: dict[int, int] = {}
        self.kept: dict[float, tuple[int, np.ndarray]] = {}  # by a token's number its row, and what is said there

    def hear(self, rows: Sequence[int], predictions: Predictions) -> None:
        """One batch: the numbers of its rows, and what the model said of them."""
        counts = predictions.counts
        self.counts |= dict(zip(rows, counts, strict=True))
        numbers = [np.random.default_rng([SEED, row]).random(self.counts[row]) for row in rows]
        drawn, of = np.concatenate(numbers), np.repeat(rows, [len(own) for own in numbers])
        bound = max(self.kept) if len(self.kept) >= self.most else np.inf
        places = np.flatnonzero(drawn < bound)
        places = places[np.argsort(drawn[places])][: self.most]
        found = zip(of[places].tolist(), _log_probs(predictions.logits, places), strict=True)
        fresh = dict(zip(drawn[places].tolist(), found, strict=True))
        self.kept = dict(heapq.nsmallest(self.most, (self.kept | fresh).items()))

    def said(self, gather: Callable[[Any], list[Any]] = lambda own: [own]) -> Said | None:
        """What was heard; `None` without a token. Every process must call it, and gets the same.

        Args:
            gather: of something of this process, that of all of them.
        """
        lowest = sorted(set(chain.from_iterable(gather(list(self.kept)))))[: self.most]
        if not lowest:
            return None
        own = {number: words for number, words in self.kept.items() if number <= lowest[-1]}
        kept, counts = ({k: v for share in gather(each) for k, v in share.items()} for each in (own, self.counts))
        rows, words = zip(*(kept[number] for number in lowest), strict=True)
        return Said(np.stack(words), sum(counts.values()), np.array(rows))


def _log_probs(logits: torch.Tensor, places: np.ndarray) -> Iterator[np.ndarray]:
    """Of these rows of `(rows, words)` logits `(words,)` float16 each; a chunk of them is widened at a time."""
    for part in torch.from_numpy(places).split(rows_at_once(logits, COPIES)):
        chunk = logits[part.to(logits.device)]
        narrow = chunk.to(wide_type(chunk)).log_softmax(1).clamp(min=LEAST).half().cpu().numpy()
        yield from (words.copy() for words in narrow)  # a view would keep the chunk
