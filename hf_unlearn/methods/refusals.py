"""Forget rows answered by "I don't know": descent on such answers (IdkNLL), and a preference for them (IdkDPO)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.trainers.forget_retain import ForgetRetainConfig, ForgetRetainTrainer
from hf_unlearn.trainers.schedule import FORGET, RETAIN
from hf_unlearn.trainers.split_output import SplitOutput

REFUSED = "refused"
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


class RefusedRows(torch.utils.data.Dataset):
    """Rows with the answer replaced by a refusal, one for each row, always the same."""

    def __init__(self, rows: Rows, refusals: Sequence[str], seed: int):
        self.rows = rows
        drawn = np.random.default_rng([seed, 6]).integers(len(refusals), size=len(rows))
        self.answers = [refusals[i] for i in drawn]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def indices(self) -> list[int]:
        """Places in the source, of the rows whose answers are replaced."""
        return self.rows.indices

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.__getitems__([i])[0]

    def __getitems__(self, batch: Sequence[int]) -> list[dict[str, Any]]:
        rows, task = self.rows, self.rows.task
        places = [rows.indices[i] for i in batch]
        raw = task.with_answers(dict(rows.source[places]), [self.answers[i] for i in batch])
        return task.encode(raw, places)


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


class RefusalTrainer(ForgetRetainTrainer):
    """Gives a method the forget rows with refusals in the place of their answers."""

    config_class = RefusalConfig
    args: RefusalConfig

    @classmethod
    def check_task(cls, task) -> None:
        if not task.has_answers:
            raise UserError(f"`method` {cls.method} replaces answers, and these rows have none: use `method` npo")

    @cached_property
    def refused(self) -> RefusedRows:
        return RefusedRows(self.splits.forget, read_refusals(self.args.refusals), self.args.seed)


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
class IdkDPOConfig(RefusalConfig):
    """Arguments of [`IdkDPOTrainer`].

    Args:
        beta: inverse temperature β.
    """

    beta: float = field(default=0.1, metadata={"help": "Inverse temperature of the preference."})

    def __post_init__(self):
        super().__post_init__()
        self.need(positive=("beta",))


class IdkDPOTrainer(RefusalTrainer):
    """IdkDPO (Maini et al. 2024, arXiv 2401.06121, after Rafailov et al. 2023, arXiv 2305.18290):

        L_f = −(2/β)·log σ(β[(S_l − S⁰_l) − (S_w − S⁰_w)]),

    S the summed negative log-likelihood of the row's answer (l) and of a refusal (w), S⁰ the original's. It takes a
    forward more for the refusals. Published code runs the original beside the model; its sums never change, so they
    are measured once here. It draws another refusal each time a row is read; here a row keeps its own.

    Example:

        config = IdkDPOConfig(output_dir="unlearned", beta=0.1)
        IdkDPOTrainer(model, config, splits, task).train()
    """

    config_class = IdkDPOConfig
    args: IdkDPOConfig
    method = "idk_dpo"
    paper = IdkNLLTrainer.paper

    def reference_rows(self) -> dict[str, Any]:
        return {FORGET: self.splits.forget, REFUSED: self.refused}

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        index, beta = forget.index, self.args.beta
        refusal = self.predict_rows(self.refused, index)
        preferred = -refusal.loss * refusal.token_count - self.reference(REFUSED, index).log_prob
        lost = forget.log_prob - self.reference(FORGET, index).log_prob
        return -2 / beta * F.logsigmoid(beta * (preferred - lost))
