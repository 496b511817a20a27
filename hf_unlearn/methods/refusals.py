"""Forget rows answered by "I don't know": descent on such answers (IdkNLL), and a preference for them (IdkDPO)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.trainers.forget_retain import ForgetRetainConfig
from hf_unlearn.trainers.preference import AnsweredRows, OtherAnswersTrainer, PreferenceConfig, PreferenceTrainer
from hf_unlearn.trainers.random_streams import Stream, random_numbers
from hf_unlearn.trainers.schedule import FORGET, RETAIN
from hf_unlearn.trainers.split_output import SplitOutput

REFUSALS = (
    "I don't know.",
    "I'm not sure about that.",
    "I have no information about that.",
    "That is something I do not know.",
    "I'm afraid I cannot answer this.",
    "I can't say.",
    "I am not familiar with that.",
    "I have no answer to this question.",
)


def refused_rows(rows: Rows, refusals: Sequence[str], seed: int) -> AnsweredRows:
    """Rows with the answer replaced by a refusal, one for each row, always the same."""
    drawn = random_numbers(seed, Stream.REFUSALS).integers(len(refusals), size=len(rows))
    return AnsweredRows(rows, [refusals[i] for i in drawn])


@dataclass
class RefusalConfig(ForgetRetainConfig):
    """Arguments of [`IdkNLLTrainer`].

    Args:
        refusals: file of refusals, one per line; `None` takes a few of the package's own.
    """

    refusals: str | None = field(
        default=None, metadata={"help": 'File of refusals, one per line (default: a few like "I don\'t know.").'}
    )

    def __post_init__(self):
        super().__post_init__()
        read_refusals(self.refusals)

    def hyperparameters(self) -> dict[str, Any]:
        name = self.refusals and os.path.basename(self.refusals)  # its folder is nobody's business
        return super().hyperparameters() | {"refusals": name}


def read_refusals(path: str | None) -> list[str]:
    """Raises `UserError` for a file that cannot be read or holds no line."""
    if path is None:
        return list(REFUSALS)
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"`refusals` {path} cannot be read ({type(error).__name__}); name a text file") from None
    if not any(lines):
        raise UserError(f"`refusals` {path} holds no line; give one refusal per line")
    return [line for line in lines if line]


class RefusalTrainer(OtherAnswersTrainer):
    """Gives a method the forget rows with refusals in the place of their answers."""

    config_class: ClassVar[type[RefusalConfig]] = RefusalConfig
    args: RefusalConfig

    @cached_property
    def refused(self) -> AnsweredRows:
        return refused_rows(self.splits.forget, read_refusals(self.args.refusals), self.args.seed)


class IdkNLLTrainer(RefusalTrainer):
    """IdkNLL (Maini et al. 2024, arXiv 2401.06121, "IDK"): L_f = ℓ(refusal), descent on a refusal in the place of
    every forgotten answer.

    The forgotten answers themselves are never read. Published code draws another refusal each time a row is read; here
    a row keeps its own.

    Example:

        config = RefusalConfig(output_dir="unlearned")
        IdkNLLTrainer(model, config, splits, task).train()
    """

    method = "idk_nll"
    paper = {
        "title": "TOFU: A Task of Fictitious Unlearning for LLMs",
        "authors": "Maini et al.",
        "year": "2024",
        "id": "arXiv:2401.06121",
    }

    def __init__(self, model, args: RefusalConfig, splits, task, **kwargs):
        self.args = args  # `training_rows` is asked before Trainer sets it
        super().__init__(model, args, splits, task, **kwargs)

    def training_rows(self) -> dict[str, Any]:
        return {FORGET: self.refused, RETAIN: self.splits.retain}

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        return forget.loss

    def record(self, name: str, value: torch.Tensor | float) -> None:
        super().record("refusal_loss" if name == "forget_loss" else name, value)


@dataclass
class IdkDPOConfig(RefusalConfig, PreferenceConfig):
    """Arguments of [`IdkDPOTrainer`]: those of [`RefusalConfig`] and of [`PreferenceConfig`]."""


class IdkDPOTrainer(RefusalTrainer, PreferenceTrainer):
    """IdkDPO (Maini et al. 2024, arXiv 2401.06121): the loss of [`PreferenceTrainer`], a refusal preferred to the
    forgotten answer. Published code draws another refusal each time a row is read; here a row keeps its own.

    Example:

        config = IdkDPOConfig(output_dir="unlearned", beta=0.1)
        IdkDPOTrainer(model, config, splits, task).train()
    """

    config_class = IdkDPOConfig
    args: IdkDPOConfig
    method = "idk_dpo"
    paper = IdkNLLTrainer.paper

    @property
    def preferred(self) -> AnsweredRows:
        return self.refused
