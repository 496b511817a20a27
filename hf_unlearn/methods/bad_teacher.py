"""Bad teacher: the forget rows are learned from a random network, the others from the original."""

from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.models.start import drawn_anew
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.forget_retain import divergence
from hf_unlearn.trainers.kept_logits import kept_logits, logits_by_row
from hf_unlearn.trainers.originals import Pass
from hf_unlearn.trainers.split_output import SplitOutput


@dataclass
class BadTeacherConfig(UnlearningConfig):
    """Arguments of [`BadTeacherTrainer`].

    Args:
        temperature: T of all softmaxes.
    """

    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the retain rows."})
    temperature: float = field(default=1.0, metadata={"help": "Of all softmaxes."})

    def __post_init__(self):
        super().__post_init__()
        if self.temperature <= 0:
            raise UserError(f"`temperature` is {self.temperature}; give a number above 0")


class BadTeacherTrainer(UnlearningTrainer):
    """Bad teacher (Chundawat et al. 2022, arXiv 2205.08096): L = the mean over all rows of T²·KL(teacher‖model), the
    teacher of forget rows a network of random weights, that of retain rows the original.

    Published code runs both teachers beside the model. Here the random network answers the forget rows once, and its
    logits are kept; the original is the model with its starting weights, which costs a copy of the trainable ones and
    one more forward. The published retain rows are 30 % of all; here all are read. The published mean is over rows and
    classes, K times smaller.

    Example:

        config = BadTeacherConfig(output_dir="unlearned", temperature=1.0)
        BadTeacherTrainer(model, config, splits, task).train()
    """

    config_class = BadTeacherConfig
    args: BadTeacherConfig
    method = "bad_teacher"
    asks_original = True
    paper = {
        "title": "Can Bad Teaching Induce Forgetting? Unlearning in Deep Networks using an Incompetent Teacher",
        "authors": "Chundawat et al.",
        "year": "2022",
        "id": "arXiv:2205.08096",
    }

    @classmethod
    def check_task(cls, task) -> None:
        if not task.has_labels():
            raise UserError("`method` bad_teacher keeps a teacher's logits: a vocabulary for every token; use scrub")

    def prepare(self) -> dict[str, torch.Tensor]:
        teacher = drawn_anew(self.model, self.args.seed)
        self.count_examples(len(self.splits.forget))
        return {"teacher": torch.tensor(self.collect(self.splits.forget, logits_by_row, teacher))}

    def rows_beside_steps(self) -> int:
        return super().rows_beside_steps() + len(self.splits.forget)

    def unlearning_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        said = forget.predictions
        logits = kept_logits(forget, self.method_state["teacher"])
        forget.original = Pass(Predictions(logits, said.labels, said.size, said.example, said.counts), {})
        sizes = {output.stream: self.stream_sizes()[output.stream].batch for output in (forget, retain)}
        terms = [o.mean(divergence(o, self.args.temperature)) * sizes[o.stream] for o in (forget, retain)]
        return reduce(add, terms) / sum(sizes.values())
