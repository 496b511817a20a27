"""What the text tasks share about tokenizers."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch

from hf_unlearn.errors import RowError, UserError
from hf_unlearn.tasks.forward import position_limit

# Tokenizers that know no limit say 1e30.
NO_LIMIT = 10**6


def load_tokenizer(name_or_path: str, **hub_kwargs):
    """Raises `UserError` where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name_or_path, **hub_kwargs)
    except (OSError, ValueError) as error:
        raise UserError(f"no tokenizer at {name_or_path}: save the model's own beside it") from error


def check_vocabulary(tokenizer) -> None:
    """Raises `UserError` for a tokenizer that knows no word: transformers invents one where a folder has none."""
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise UserError(
            f"the tokenizer knows no word, only {len(tokenizer)} special tokens: there was none where it was loaded "
            "from; save the model's own beside it, or name it with `processor_name_or_path`"
        )


def pad_token_id(tokenizer) -> int:
    """The padding id; the end-of-text id, or 0, for tokenizers without one (masked either way)."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    return 0


def fit_max_length(tokenizer, max_length: int | None, model: torch.nn.Module) -> int | None:
    """`max_length`, or the longest input that both tokenizer and model take.

    Raises `UserError` for a `max_length` beyond the model's positions.
    """
    limit = position_limit(model)
    if max_length is not None:
        if limit is not None and max_length > limit:
            raise UserError(f"`max_length` {max_length} is longer than the {limit} positions of the model: lower it")
        return max_length
    known = [n for n in (limit, tokenizer.model_max_length) if n is not None and n < NO_LIMIT]
    return min(known, default=None)


def text_of(value: Any, position: int, what: str) -> str:
    """`value` if it is a text that is not blank; a number as it is written. Raises `RowError`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return str(value)
    if isinstance(value, bool):
        raise RowError(position, f'its {what} is a truth value and no text: give "true" in quotes, in a json file')
    if not isinstance(value, str) or not value.strip():
        raise RowError(position, f"it has no {what}")
    return value


def row_tensors(encoded: Mapping[str, list[list[int]]]) -> dict[str, list[torch.Tensor]]:
    """What a tokenizer gave for several texts, as a tensor `(tokens,)` per text and key: one of all texts, cut."""
    return {
        key: list(torch.tensor([*chain.from_iterable(values)], dtype=torch.int64).split([*map(len, values)]))
        for key, values in encoded.items()
    }
