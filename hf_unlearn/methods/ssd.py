"""SSD: weights that matter more for the forget rows than for the rest are dampened, without one training step."""

from dataclasses import dataclass, field

import torch
from torch import nn

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.saliency.lora_rows import is_fresh
from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.edit import EditTrainer


@dataclass
class SSDConfig(UnlearningConfig):
    """Arguments of [`SSDTrainer`].

    Args:
        selection: α, how much more a weight must matter for the forget rows to be dampened.
        dampening: λ; smaller dampens more.
        importance_rows: most rows of each kind that importances are measured on, one gradient each.
    """

    selection: float = field(default=10.0, metadata={"help": "How much more a weight must matter to be dampened."})
    dampening: float = field(default=1.0, metadata={"help": "Strength λ; smaller dampens more."})
    importance_rows: int = field(default=1000, metadata={"help": "Most rows of each kind to measure importances on."})

    def __post_init__(self):
        super().__post_init__()
        for name in ("selection", "dampening", "importance_rows"):
            if getattr(self, name) <= 0:
                raise UserError(f"`{name}` is {getattr(self, name)}; give a number above 0")


class SSDTrainer(EditTrainer):
    """Selective synaptic dampening (Foster et al. 2023, arXiv 2308.07707): where F_f > α·F, θ ← θ·min(1, λF/F_f).

    F is a weight's importance, the mean squared gradient over single rows: F_f over forget rows, F over all training
    rows. Published code squares the gradients of batches, which measures something else; here every row has its own.

    Example:

        config = SSDConfig(output_dir="unlearned", dampening=1.0)
        SSDTrainer(model, config, splits, task).train()
    """

    config_class = SSDConfig
    args: SSDConfig
    method = "ssd"
    paper = {
        "title": "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening",
        "authors": "Foster et al.",
        "year": "2023",
        "id": "arXiv:2308.07707",
    }

    def __init__(self, model, *arguments, **kwargs):
        if is_fresh(model):
            raise UserError("`method` ssd shrinks weights, and a fresh adapter has none yet: leave out `use_peft`")
        super().__init__(model, *arguments, **kwargs)

    def rows_beside_steps(self) -> int:
        read = (min(len(rows), self.args.importance_rows) for rows in (self.splits.forget, self.splits.retain))
        return super().rows_beside_steps() + sum(read)

    def importances(self, rows: Rows) -> list[torch.Tensor]:
        """Mean squared gradient over single rows, for each trainable weight."""
        rows = self.some_rows(rows, self.args.importance_rows)
        total = [torch.zeros_like(p) for p in self.trained().values()]
        for gradients in self.row_gradients(rows):
            for sum_, gradient in zip(total, gradients, strict=True):
                sum_.addcmul_(gradient, gradient, value=1 / len(rows))
        return total

    def edit(self, model: nn.Module) -> None:
        share = len(self.splits.forget) / (len(self.splits.forget) + len(self.splits.retain))
        forget, retain = self.importances(self.splits.forget), self.importances(self.splits.retain)
        for weight, own, rest in zip(self.trained().values(), forget, retain, strict=True):
            whole = share * own + (1 - share) * rest
            factor = (self.args.dampening * whole / own).clamp(max=1)
            weight.copy_(torch.where(own > self.args.selection * whole, weight * factor, weight))
