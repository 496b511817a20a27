"""Where an ascent leads: from what the original says under a condition towards what it says under others."""

from functools import cached_property
from typing import Any

import numpy as np
import torch

from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.tasks.row_chunks import wide_type
from hf_unlearn.trainers.schedule import FORGET
from hf_unlearn.trainers.split_output import SplitOutput
from hf_unlearn_diffusion.draws import DRAWS
from hf_unlearn_diffusion.held import HeldTrainer
from hf_unlearn_diffusion.predictions import DenoisingPredictions, Noised, is_without
from hf_unlearn_diffusion.task import ImageGeneration

MOST_OTHERS = 16  # classes that are led to
MEASURED = 256  # forgotten rows that say how far
LEAST, MOST = 1.0, 2.0  # strides: to the others at least, and at most as far beyond them


class LeadingTrainer(HeldTrainer):
    """Leads forgotten rows to a point on a line, which what the original says of them under their own condition c and
    under others gives:

        target_k = ε_θ₀(x_t, t, c) + s_k·(ε_θ₀(x_t, t, c′) − ε_θ₀(x_t, t, c)),

    c′ being a kept class that is drawn anew for each row of each step, so that what is learned is the mean over them,
    and k the part of the schedule that t lies in. s_k is such that the error of that mean point is τ_k, in [1, 2].
    """

    @cached_property
    def others(self) -> np.ndarray:
        """Kept classes, `(n,)`: all, or some of many."""
        gone = set(self.splits.forgotten_classes)
        kept = np.array([k for k in range(len(self.task.label_names or [])) if k not in gone])
        return kept[np.linspace(0, len(kept) - 1, min(len(kept), MOST_OTHERS)).astype(int)]

    def rows_of_lead(self) -> int:
        """Forgotten rows under the original, under two conditions in every step, and once under all."""
        measured = min(len(self.splits.forget), MEASURED)
        return 2 * self.rows_of_steps(FORGET) + measured * (1 + len(self.others))

    def measure_strides(self, tau: np.ndarray) -> torch.Tensor:
        """s_k of each part of the schedule, `(parts,)`, from `tau` of the same shape and the model as it is."""
        some = self.some_rows(self.splits.forget, MEASURED)
        self.count_examples(len(some) * (1 + len(self.others)))
        moments = self.collect(some, self.moments).mean(0)
        return torch.tensor(strides(moments, tau), dtype=torch.float32)

    def moments(self, said: Predictions) -> torch.Tensor:
        """Means over pixels of r², r·d and d² at each of a row's draws, `(rows, draws, 3)`: r is the error under its
        own condition, d the way from there to the mean over [`others`]."""
        assert isinstance(said, DenoisingPredictions)
        model: Any = unwrap(self.model)
        mean, wide = torch.zeros_like(said.wanted), wide_type(said.logits)
        for other in self.others:
            answer = model.denoise(self.shown_under(said.noised, torch.full_like(said.labels, int(other))))
            mean += answer.flatten(1).to(mean) / len(self.others)
        error, way = said.logits.to(wide) - said.wanted, mean - said.logits.to(wide)
        figures = [error.square().mean(1), (error * way).mean(1), way.square().mean(1)]
        return torch.stack(figures, 1).view(said.size, DRAWS, 3)

    def led_losses(self, forget: SplitOutput, stride: torch.Tensor) -> torch.Tensor:
        """‖ε_θ(x_t, t, c) − target_k‖² of each row, `(size,)`; 0 of those that are shown without their condition."""
        said = forget.predictions
        assert isinstance(said, DenoisingPredictions)
        model: Any = unwrap(self.model)
        shown, wanted = said.noised, said.logits.detach()
        if len(forget):
            chosen = torch.randint(len(self.others), (len(forget),))
            classes = torch.as_tensor(self.others[chosen.numpy()], device=said.labels.device)
            own, other = self.original_says(shown), self.original_says(self.shown_under(shown, classes))
            part = shown.timesteps * len(stride) // model.steps
            wanted = own + stride.to(own)[part][:, None] * (other - own)
        self.count_examples(2 * len(forget) * self.args.world_size)
        losses = (said.logits.to(wide_type(said.logits)) - wanted).square().mean(1)
        return torch.where(is_without(shown.conditions, model.no_condition), 0.0, losses)

    def shown_under(self, shown: Noised, classes: torch.Tensor) -> Noised:
        """The same noisy images under other classes, `(rows,)`."""
        assert isinstance(self.task, ImageGeneration)
        return Noised(shown.images, shown.timesteps, self.task.conditions_of(classes))


def strides(moments: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """s ≥ 0 with mean[(r + s·d)²] = τ, between `LEAST` and `MOST`, `(parts,)`.

    Args:
        moments: `(parts, 3)`, means of r², r·d and d².
        tau: `(parts,)`.
    """
    error, along, way = moments.T
    root = np.sqrt(np.maximum(along**2 + way * (tau - error), 0))
    return np.clip((root - along) / np.maximum(way, 1e-12), LEAST, MOST)
