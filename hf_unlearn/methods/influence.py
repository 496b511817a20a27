"""Influence unlearning: one Newton-like step that takes the forget rows out of the training loss."""

from dataclasses import dataclass, field

import torch
from torch import nn

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.edit import EditTrainer


@dataclass
class InfluenceConfig(UnlearningConfig):
    """Arguments of [`InfluenceTrainer`].

    Args:
        alpha: length of the step.
        fisher_rows: N, retain rows that the inverse Fisher matrix is estimated on, one gradient each.
    """

    alpha: float = field(default=0.2, metadata={"help": "Length of the step."})
    fisher_rows: int = field(default=1000, metadata={"help": "Retain rows for the inverse Fisher matrix."})

    def __post_init__(self):
        super().__post_init__()
        for name in ("alpha", "fisher_rows"):
            if getattr(self, name) <= 0:
                raise UserError(f"`{name}` is {getattr(self, name)}; give a number above 0")


class InfluenceTrainer(EditTrainer):
    """Influence unlearning (Izzo et al. 2021, arXiv 2002.10077), as SalUn's release has it, by WoodFisher:

        v = n_f/(n_f + n_r)·(ḡ_f − ḡ_r),   θ ← θ + α·k,

    ḡ the mean gradients, k begun at v and o at the first retain row's gradient; then for each further row's g
    k ← k − (k·g)/(N + o·g)·o and o ← o − (o·g)/(N + o·g)·o. It keeps three vectors as large as the trainable weights,
    and goes once through all training rows.

    Example:

        config = InfluenceConfig(output_dir="unlearned", alpha=1.0)
        InfluenceTrainer(model, config, splits, task).train()
    """

    config_class = InfluenceConfig
    args: InfluenceConfig
    method = "influence"
    paper = {
        "title": "Approximate Data Deletion from Machine Learning Models",
        "authors": "Izzo et al.",
        "year": "2021",
        "id": "arXiv:2002.10077",
    }

    def rows_beside_steps(self) -> int:
        retain = len(self.splits.retain)
        read = len(self.splits.forget) + retain + min(retain, self.args.fisher_rows)
        return super().rows_beside_steps() + read

    def mean_gradient(self, rows: Rows) -> torch.Tensor:
        """`(weights,)`, over all rows."""
        total = torch.cat([torch.zeros_like(p).flatten() for p in self.trained().values()])
        for gradients in self.row_gradients(rows):
            total += torch.cat([g.flatten() for g in gradients]) / len(rows)
        return total

    def edit(self, model: nn.Module) -> None:
        forget, retain = self.splits.forget, self.splits.retain
        share = len(forget) / (len(forget) + len(retain))
        direction = share * (self.mean_gradient(forget) - self.mean_gradient(retain))
        flat = self.inverse_fisher(direction)
        weights = list(self.trained().values())
        for weight, step in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
            weight.add_(self.args.alpha * step.view_as(weight))

    def inverse_fisher(self, k: torch.Tensor) -> torch.Tensor:
        """WoodFisher's estimate of the inverse Fisher matrix times `k` `(weights,)`."""
        n, o = self.args.fisher_rows, None
        for gradients in self.row_gradients(self.some_rows(self.splits.retain, n)):
            g = torch.cat([g.flatten() for g in gradients])
            if o is None:
                o = g
                continue
            overlap = o @ g
            k = k - (k @ g) / (n + overlap) * o
            o = o - overlap / (n + overlap) * o
        return k
