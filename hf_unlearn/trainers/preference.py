"""What methods share that replace the forgotten answers: rows with other answers, and a preference for these."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.trainers.forget_retain import ForgetRetainConfig, ForgetRetainTrainer
from hf_unlearn.trainers.schedule import FORGET
from hf_unlearn.trainers.split_output import SplitOutput

PREFERRED = "preferred"


class AnsweredRows(torch.utils.data.Dataset):
    """Rows with other answers in the place of their own.

    Args:
        rows: the rows.
        answers: one for each row, or a whole number of times as many: row i once more for every further set of them.
    """

    def __init__(self, rows: Rows, answers: Sequence[str]):
        self.rows = rows
        self.answers = list(answers)

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def indices(self) -> list[int]:
        """Places in the source, of the rows whose answers are replaced."""
        return [self.rows.indices[i % len(self.rows)] for i in range(len(self))]

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.__getitems__([i])[0]

    def __getitems__(self, batch: Sequence[int]) -> list[dict[str, Any]]:
        rows, task = self.rows, self.rows.task
        places = [rows.indices[i % len(rows)] for i in batch]
        raw = task.with_answers(dict(rows.source[places]), [self.answers[i] for i in batch])
        return task.encode(raw, places)


class OtherAnswersTrainer(ForgetRetainTrainer):
    """For tasks whose rows have answers."""

    @classmethod
    def check_task(cls, task) -> None:
        if not task.has_answers:
            raise UserError(f"`method` {cls.method} replaces answers, and these rows have none: use `method` npo")


@dataclass
class PreferenceConfig(ForgetRetainConfig):
    """Arguments of the methods with [`PreferenceTrainer`]'s loss.

    Args:
        beta: inverse temperature β.
    """

    beta: float = field(default=0.1, metadata={"help": "Inverse temperature of the preference."})

    def __post_init__(self):
        super().__post_init__()
        self.need(positive=("beta",))


class PreferenceTrainer(OtherAnswersTrainer):
    """DPO (Rafailov et al. 2023, arXiv 2305.18290) of other answers against the forgotten ones:

        L_f = −(2/β)·log σ(β[(S_l − S⁰_l) − (S_w − S⁰_w)]),

    S the summed negative log-likelihood of the row's own answer (l) and of the other (w), S⁰ the original's. It takes
    a forward more for the other answers. Published code runs the original beside the model; its sums never change, so
    they are measured once here. A method gives `preferred`.
    """

    config_class = PreferenceConfig
    args: PreferenceConfig

    @property
    def preferred(self) -> AnsweredRows:
        """The rows with the answers that are preferred."""
        raise NotImplementedError

    def reference_rows(self) -> dict[str, Any]:
        return {FORGET: self.splits.forget, PREFERRED: self.preferred}

    def rows_beside_steps(self) -> int:
        """The answers of both kinds under the original, and the preferred ones once more in the steps."""
        rows = len(self.splits.forget)
        asked = rows * (1 + self.answers_per_row) + self.rows_of_steps(FORGET)
        return super().rows_beside_steps() + asked

    @property
    def answers_per_row(self) -> int:
        """How many answers are preferred to a forgotten one, in turn."""
        return 1

    def preferred_index(self, index: torch.Tensor) -> torch.Tensor:
        """Places in `preferred` of the answers that are set against those of the rows `index`, `(size,)` both."""
        return index

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        other, beta = self.preferred_index(forget.index), self.args.beta
        predictions = self.predict_rows(self.preferred, other)
        preferred = -predictions.loss * predictions.token_count - self.reference(PREFERRED, other).log_prob
        lost = forget.log_prob - self.reference(FORGET, forget.index).log_prob
        return -2 / beta * F.logsigmoid(beta * (preferred - lost))
