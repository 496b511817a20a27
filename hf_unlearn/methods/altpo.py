"""AltPO: forget rows answered by what the original itself makes up when it is asked for another answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch
from accelerate.utils import broadcast

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.generation import MAX_NEW_TOKENS, generate, last_answers
from hf_unlearn.trainers.preference import AnsweredRows, PreferenceConfig, PreferenceTrainer
from hf_unlearn.trainers.random_streams import Stream, random_numbers
from hf_unlearn.trainers.schedule import FORGET

INSTRUCTION = (
    "Now make things up: write another answer to the same question, one that is plausible and of the same kind, and "
    "in which every fact differs from those of the answer above. Write the answer only."
)
SEPARATOR = b"\xff"  # no byte of a text in UTF-8
TRIES = 5  # for answers that are empty, or the row's own


class AskedAgain(torch.utils.data.Dataset):
    """Rows whose prompt is their question, their answer and an instruction to write another one."""

    def __init__(self, rows: Rows, instruction: str):
        self.rows = rows
        self.instruction = instruction

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, batch) -> list[dict[str, Any]]:
        rows, task = self.rows, self.rows.task
        places = [rows.indices[i] for i in batch]
        return task.encode(task.asked_again(dict(rows.source[places]), self.instruction), places)


@dataclass
class AltPOConfig(PreferenceConfig):
    """Arguments of [`AltPOTrainer`].

    Args:
        alternates: made-up answers of each row; a pass over the forget rows uses one, the next pass the next.
        instruction: what the original is told behind a row's question and answer.
        temperature: of the draws.
        alternate_tokens: longest made-up answer.
    """

    alternates: int = field(default=5, metadata={"help": "Made-up answers of each forgotten row."})
    instruction: str = field(default=INSTRUCTION, metadata={"help": "What asks the original for another answer."})
    temperature: float = field(default=1.0, metadata={"help": "Temperature of the made-up answers."})
    alternate_tokens: int = field(default=MAX_NEW_TOKENS, metadata={"help": "Longest made-up answer in tokens."})

    def __post_init__(self):
        super().__post_init__()
        self.need(positive=("alternates", "temperature", "alternate_tokens"))
        if not self.instruction.strip():
            raise UserError("`instruction` is empty; say what asks the original for another answer")


class AltPOTrainer(PreferenceTrainer):
    """AltPO (Mekala et al. 2025, arXiv 2409.13474): the loss of [`PreferenceTrainer`], an answer that the original
    made up preferred to the forgotten one.

    Before the first step the original reads each question with its answer and an instruction to change the facts, and
    `alternates` answers are drawn. They hold what a forgotten row is about, so they are kept in memory and, as the
    tensor `alternates`, in checkpoints, and nowhere else. How good they are is the original's affair: a small model,
    or one without instruction tuning, writes poor ones, and nothing checks whether a fact of the row is left in them.
    The published instruction is worded for two chat models; ours is one for all. Drawn answers that are empty or equal
    to the row's own are drawn again, at most five times, where published code takes them.

    Example:

        config = AltPOConfig(output_dir="unlearned", alternates=5)
        AltPOTrainer(model, config, splits, task).train()
    """

    config_class = AltPOConfig
    args: AltPOConfig
    method = "altpo"
    paper = {
        "title": "Alternate Preference Optimization for Unlearning Factual Knowledge in Large Language Models",
        "authors": "Mekala et al.",
        "year": "2025",
        "id": "arXiv:2409.13474",
    }

    @property
    def preferred(self) -> AnsweredRows:
        return self._alternates

    @property
    def answers_per_row(self) -> int:
        return self.args.alternates

    def rows_beside_steps(self) -> int:
        """Also those that answers are made up for; how many take a second try, nobody knows."""
        return super().rows_beside_steps() + self.args.alternates * len(self.splits.forget)

    @cached_property
    def _alternates(self) -> AnsweredRows:
        return AnsweredRows(self.splits.forget, unpacked(self.method_state["alternates"]))

    def preferred_index(self, index: torch.Tensor) -> torch.Tensor:
        passes = self.schedule.stream_steps(self.state.global_step, FORGET) // self.stream_sizes()[FORGET].batches
        return index + (passes % self.args.alternates) * len(self.splits.forget)

    def _measure_originals(self) -> dict[str, torch.Tensor]:
        self.__dict__.pop("_alternates", None)
        made = {"alternates": self._of_the_first(packed(self._made_up()))}
        self.method_state |= made
        return made | super()._measure_originals()

    def _made_up(self) -> list[str]:
        """`alternates` answers for each row, one set of the rows after another. Raises `UserError` if one has none."""
        rows, found = self.splits.forget, []
        own = [_plain(text) for text in last_answers(self.task, rows)]
        for k in range(self.args.alternates):
            texts, missing = [""] * len(rows), list(range(len(rows)))
            for attempt in range(TRIES):
                for i, text in zip(missing, self._draw(rows.select(missing), k, attempt), strict=True):
                    texts[i] = text.strip()
                missing = [i for i in missing if _plain(texts[i]) in ("", own[i])]
                if not missing:
                    break
            if missing:
                raise UserError(
                    f"`method` altpo: the original made up no other answer for {len(missing)} of {len(rows)} forget "
                    f"rows in {TRIES} tries; raise `temperature`, or use `method` idk_dpo"
                )
            found += texts
        return found

    def _draw(self, rows: Rows, *which: int) -> list[str]:
        seed = int(random_numbers(self.args.seed, Stream.ALTERNATES, *which).integers(2**31))
        self.count_examples(len(rows))
        return generate(
            self.model,
            self.task,
            cast(Rows, AskedAgain(rows, self.args.instruction)),
            max_new_tokens=self.args.alternate_tokens,
            batch_size=self.args.per_device_eval_batch_size,
            temperature=self.args.temperature,
            seed=seed,
        )

    def _of_the_first(self, values: torch.Tensor) -> torch.Tensor:
        """The first process's bytes on all of them: several devices need not draw alike."""
        if self.args.world_size == 1:
            return values
        device = self.args.device
        size = int(broadcast(torch.tensor([len(values)], device=device)))
        is_first = self.is_world_process_zero()
        return broadcast(values.to(device) if is_first else torch.zeros(size, dtype=torch.uint8, device=device)).cpu()


def packed(texts: Sequence[str]) -> torch.Tensor:
    """Texts as bytes, `(bytes,)` uint8: what checkpoints hold are tensors."""
    return torch.tensor(list(SEPARATOR.join(text.encode() for text in texts)), dtype=torch.uint8)


def unpacked(values: torch.Tensor) -> list[str]:
    """The texts that [`packed`] got."""
    return [part.decode() for part in bytes(values.tolist()).split(SEPARATOR)]


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
