"""Which numbers an argument may be. One table for the command line, the config classes and the recipe."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from hf_unlearn.errors import UserError


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`.

    Args:
        words: what to give instead, for the message.
        low, high: ends of the range.
        open_low, open_high: whether an end itself is left out.
    """

    words: str
    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, number: float) -> bool:
        above = number > self.low if self.open_low else number >= self.low
        below = number < self.high if self.open_high else number <= self.high
        return math.isfinite(number) and above and below


ABOVE_0 = Range("give a number above 0", open_low=True)
EPOCHS = Range("give a number above 0, at most a million", high=1e6, open_low=True)
NOT_BELOW_0 = Range("give 0 or more")
SEED = Range("give a whole number from 0 to 4294967295", high=2**32 - 1)
DECAY = Range("it must lie in [0, 1)", high=1.0, open_high=True)
SHARE = Range("it is a share in (0, 1]", high=1.0, open_low=True)
INNER_SHARE = Range("it must lie between 0 and 1, both excluded, e.g. 0.1", high=1.0, open_low=True, open_high=True)

_BY_RANGE = {
    ABOVE_0: """
        learning_rate adam_epsilon dataloader_prefetch_factor per_device_train_batch_size per_device_forget_batch_size
        per_device_eval_batch_size gradient_accumulation_steps logging_steps save_steps eval_steps save_total_limit
        ddp_timeout torch_empty_cache_steps retain_per_class noise_rows noise_steps
        noise_learning_rate impair_steps repair_steps impair_learning_rate repair_learning_rate max_length
        max_train_rows lora_r lora_alpha original_learning_rate original_batch_size
        original_gradient_accumulation_steps original_lora_r original_lora_alpha""",
    EPOCHS: "num_train_epochs retrain_epochs proxy_epochs original_num_train_epochs",
    NOT_BELOW_0: """
        weight_decay warmup_steps max_grad_norm eval_delay dataloader_num_workers noise_penalty
        neftune_noise_alpha generate retrain original_warmup_steps original_weight_decay""",
    SEED: "seed data_seed split_seed original_seed",
    DECAY: "adam_beta1 adam_beta2 lora_dropout original_lora_dropout",
    SHARE: "saliency soft_threshold",
    INNER_SHARE: "forget_fraction",
}
RANGES: dict[str, Range] = {name: limits for limits, names in _BY_RANGE.items() for name in names.split()}


def check_ranges(values: Mapping[str, Any]) -> None:
    """Raises `UserError` for the first of `values` that its argument cannot be; `None` passes."""
    for name, value in values.items():
        limits = RANGES.get(name)
        if limits is None or value is None or isinstance(value, bool):
            continue
        if not isinstance(value, Real) or float(value) not in limits:
            raise UserError(f"`{name}` is {value}; {limits.words}")
