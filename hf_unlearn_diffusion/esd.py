"""ESD: what is said under a forgotten condition becomes what the original said without one, and then some."""

from dataclasses import dataclass, field
from typing import Any

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.tasks.forward import eval_mode, unwrap
from hf_unlearn.tasks.row_chunks import wide_type
from hf_unlearn.trainers.schedule import FORGET, RETAIN
from hf_unlearn.trainers.split_output import SplitOutput
from hf_unlearn_diffusion.predictions import DenoisingPredictions, Noised, is_without
from hf_unlearn_diffusion.steps import DenoisingTrainer, OneFormConfig


@dataclass
class ESDConfig(OneFormConfig):
    """Arguments of [`ESDTrainer`].

    Args:
        eta: η, how far the target lies beyond what the original said without a condition; published: 1. At 0 the
            target is just that.
        alpha: weight of the retain term, a mean over pixels. 0 is as published: no kept row is read.
    """

    eta: float = field(default=1.0, metadata={"help": "How far beyond the unconditional prediction the target lies."})
    alpha: float = field(default=1.0, metadata={"help": "Weight of the retain term (0: none, as published)."})

    def __post_init__(self):
        super().__post_init__()
        for name in ("eta", "alpha"):
            if getattr(self, name) < 0:
                raise UserError(f"`{name}` is {getattr(self, name)}; it is 0 or more")


class ESDTrainer(DenoisingTrainer):
    """Erased Stable Diffusion (Gandikota et al. 2023, arXiv 2303.07345, equation 7):

        L = mean_f ‖ε_θ(x_t, t, c) − [ε_θ₀(x_t, t, ∅) − η(ε_θ₀(x_t, t, c) − ε_θ₀(x_t, t, ∅))]‖² + α·L_r,

    with θ₀ the original's weights and ∅ no condition, so that guidance by c leads away from what c meant. Norms are
    means over pixels. The original is the model itself with a copy of its trained weights. Rows that are shown without
    their condition (`condition_dropout`) have a loss of 0.

    In the official code x_t is drawn by the model that is being trained, from the prompt alone; here noise is put on
    forgotten images. It trains the cross-attention for concepts that prompts name, and all other layers for those that
    need not be named; here all of the network is trained, or what `saliency` and LoRA leave. It has no retain term,
    and makes 1,000 steps of one image at 1e-5; at the rates here other classes would be lost without one.

    Example:

        config = ESDConfig(output_dir="unlearned")
        ESDTrainer(model, config, splits, task).train()
    """

    config_class = ESDConfig
    args: ESDConfig
    method = "esd"
    paper = {
        "title": "Erasing Concepts from Diffusion Models",
        "authors": "Gandikota et al.",
        "year": "2023",
        "id": "arXiv:2303.07345",
    }
    keeps_start = True
    of_classes = True

    def __init__(self, model, args: ESDConfig, splits, task, **kwargs):
        super().__init__(model, args, splits, task, **kwargs)
        inner: Any = unwrap(self.model)
        if inner.no_condition is None:
            raise UserError("`method` esd asks what the model says without a class, and this one always takes one")

    def rows_beside_steps(self) -> int:
        """Also the forgotten rows under the original, with and without their condition, once in every step."""
        return super().rows_beside_steps() + 2 * self.rows_of_steps(FORGET)

    @property
    def streams(self) -> tuple[str, ...]:
        return (FORGET, RETAIN) if self.args.alpha else (FORGET,)

    def plan(self) -> list[str]:
        return [*super().plan(), "kept rows are read" if self.args.alpha else "no kept row is read"]

    def unlearning_loss(self, forget: SplitOutput, retain: SplitOutput | None = None) -> torch.Tensor:
        loss = forget.mean(self.forget_losses(forget))
        return loss if retain is None else loss + self.args.alpha * retain.mean(retain.loss)

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        """‖ε_θ(x_t, t, c) − target‖² of each row, `(size,)`."""
        said = forget.predictions
        assert isinstance(said, DenoisingPredictions)
        model: Any = unwrap(self.model)
        shown = said.noised
        wanted = self.wanted(model, shown) if len(forget) else said.logits.detach()
        self.count_examples(2 * len(forget) * self.args.world_size)
        losses = (said.logits.to(wide_type(said.logits)) - wanted).square().mean(1)
        return torch.where(is_without(shown.conditions, model.no_condition), 0.0, losses)

    @torch.no_grad()
    def wanted(self, model: Any, shown: Noised) -> torch.Tensor:
        """The target of each row, `(rows, pixels)`."""
        none = model.no_condition.to(shown.conditions.device).expand_as(shown.conditions)
        with self.original_weights(), eval_mode(self.model):
            without = model.denoise(Noised(shown.images, shown.timesteps, none))
            guided = model.denoise(shown)
        return (without - self.args.eta * (guided - without)).flatten(1)
