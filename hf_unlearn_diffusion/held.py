"""Kept rows that are held to what the original says of them, and what runs that hold them take by default."""

from typing import Any

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.tasks.forward import eval_mode, unwrap
from hf_unlearn.tasks.row_chunks import wide_type
from hf_unlearn.trainers.schedule import RETAIN
from hf_unlearn.trainers.split_output import SplitOutput
from hf_unlearn_diffusion.predictions import DenoisingPredictions, Noised
from hf_unlearn_diffusion.steps import DenoisingTrainer

ALPHA = 3.07  # 1e-3 as published for SalUn, on a retain loss that is summed over the 3,072 values of an image
PASSES = 6  # over the retain rows, where nothing else is said
RETAIN_FOR_FORGET = 4  # retain rows of a step for each forget row, where nothing else is said
AVERAGE = 0.9  # of the mean of the weights, about the last ten steps


class HeldTrainer(DenoisingTrainer):
    """Asks what the original says, of kept rows and others; that takes `keeps_start`."""

    def rows_of_held(self) -> int:
        """The kept rows under the original, once in every step."""
        return self.rows_of_steps(RETAIN) if self.keeps_start else 0

    def held_losses(self, retain: SplitOutput) -> torch.Tensor:
        """‖ε_θ(x_t, t, c) − ε_θ₀(x_t, t, c)‖² of each row, `(size,)`."""
        said = retain.predictions
        assert isinstance(said, DenoisingPredictions)
        wanted = self.original_says(said.noised) if len(retain) else said.logits.detach()
        self.count_examples(len(retain) * self.args.world_size)
        return (said.logits.to(wide_type(said.logits)) - wanted).square().mean(1)

    @torch.no_grad()
    def original_says(self, shown: Noised) -> torch.Tensor:
        """ε_θ₀ of each row, `(rows, pixels)`, without dropout."""
        model: Any = unwrap(self.model)
        with self.original_weights(), eval_mode(self.model):
            return model.denoise(shown).flatten(1)


def check_average(args: Any) -> None:
    """Raises `UserError` for a `weight_average` that is none, or beside `load_best_model_at_end`."""
    if not 0 <= args.weight_average < 1:
        raise UserError(f"`weight_average` is {args.weight_average}; it is 0 or more, and less than 1")
    if args.weight_average and args.load_best_model_at_end:
        raise UserError(
            "`load_best_model_at_end` takes the weights of one checkpoint, and `weight_average` a mean: leave the "
            "one out, or set the other to 0"
        )
