"""Concept ablation: under a forgotten condition the model says of kept images what it says under their own."""

from dataclasses import dataclass, field
from typing import Any

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.tasks.row_chunks import wide_type
from hf_unlearn.trainers.schedule import RETAIN
from hf_unlearn.trainers.split_output import SplitOutput
from hf_unlearn_diffusion.predictions import DenoisingPredictions, Noised, is_without
from hf_unlearn_diffusion.steps import DenoisingTrainer, OneFormConfig
from hf_unlearn_diffusion.task import ImageGeneration


@dataclass
class ConceptAblationConfig(OneFormConfig):
    """Arguments of [`ConceptAblationTrainer`].

    Args:
        alpha: weight of the retain term, a mean over pixels; published: 1.
    """

    alpha: float = field(default=1.0, metadata={"help": "Weight of the retain term, a mean over pixels."})

    def __post_init__(self):
        super().__post_init__()
        if self.alpha < 0:
            raise UserError(f"`alpha` is {self.alpha}; it is 0 or more")


class ConceptAblationTrainer(DenoisingTrainer):
    """Concept ablation, model-based (Kumari et al. 2023, arXiv 2303.13516, equation 5):

        L = mean_r ‖ε_θ(x_t, t, c*) − sg ε_θ(x_t, t, c)‖² + α·mean_r ‖ε − ε_θ(x_t, t, c)‖²,

    over images x of the anchor with its condition c, c* being the forgotten one, sg a number through which no gradient
    flows, and norms means over pixels. No forgotten image is read. Rows that are shown without their condition
    (`condition_dropout`) have no part in the first term.

    In the official code the anchor is a concept that is named beside the forgotten one (a cat for Grumpy Cat), whose
    images the original draws, and the cross-attention's keys and values are trained. Here the anchor is all that is
    kept, its images are the kept rows, and all of the network is trained, or what `saliency` and LoRA leave. Of
    several forgotten classes each stands for c* on its share of the rows.

    Example:

        config = ConceptAblationConfig(output_dir="unlearned")
        ConceptAblationTrainer(model, config, splits, task).train()
    """

    config_class = ConceptAblationConfig
    args: ConceptAblationConfig
    method = "concept_ablation"
    of_classes = True
    paper = {
        "title": "Ablating Concepts in Text-to-Image Diffusion Models",
        "authors": "Kumari et al.",
        "year": "2023",
        "id": "arXiv:2303.13516",
    }

    def rows_beside_steps(self) -> int:
        """Also the kept rows under a forgotten condition, once in every step."""
        return super().rows_beside_steps() + self.rows_of_steps(RETAIN)

    @property
    def streams(self) -> tuple[str, ...]:
        return (RETAIN,)

    def plan(self) -> list[str]:
        return [*super().plan(), "no forgotten row is read"]

    def unlearning_loss(self, retain: SplitOutput) -> torch.Tensor:
        return retain.mean(self.ablation_losses(retain)) + self.args.alpha * retain.mean(retain.loss)

    def ablation_losses(self, retain: SplitOutput) -> torch.Tensor:
        """‖ε_θ(x_t, t, c*) − sg ε_θ(x_t, t, c)‖² of each row, `(size,)`."""
        said = retain.predictions
        assert isinstance(said, DenoisingPredictions)
        model: Any = unwrap(self.model)
        shown = said.noised
        conditions = self.forgotten_conditions(retain.index, shown.conditions)
        answer = model.denoise(Noised(shown.images, shown.timesteps, conditions)).flatten(1)
        self.count_examples(len(retain) * self.args.world_size)
        losses = (answer.to(wide_type(answer)) - said.logits.detach()).square().mean(1)
        return torch.where(is_without(shown.conditions, model.no_condition), 0.0, losses)

    def forgotten_conditions(self, index: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """c* of the kept rows `index`, `(size,)` or `(size, tokens)`, on the device of `like`."""
        task, gone = self.task, torch.tensor(self.splits.forgotten_classes)
        assert isinstance(task, ImageGeneration)
        return task.conditions_of(gone[index.cpu() % len(gone)]).to(like.device)
