"""∇τ for denoisers: ascent on the denoising loss of forgotten images that stops at that of unseen ones."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.methods.nabla_tau import NablaTauTrainer
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers.calibrating import MOST_CALIBRATION
from hf_unlearn.trainers.split_output import SplitOutput
from hf_unlearn_diffusion.draws import DRAWS
from hf_unlearn_diffusion.predictions import DenoisingPredictions, Noised
from hf_unlearn_diffusion.steps import DenoisingTrainer, OneFormConfig
from hf_unlearn_diffusion.task import ImageGeneration

UNSEEN = ("own", "other")


@dataclass
class DiffusionNablaTauConfig(OneFormConfig):
    """Arguments of [`DiffusionNablaTauTrainer`].

    Args:
        unseen: which loss of unseen images the ascent stops at: under the class that is theirs (`own`), or under one
            that is not (`other`), which is how a model that never saw a class sees its images. `None` is `other` where
            whole classes are forgotten, else `own`.
    """

    unseen: str | None = field(
        default=None,
        metadata={
            "help": "Unseen images under their own class, or another (default: other where classes are forgotten).",
            "choices": list(UNSEEN),
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.unseen not in (None, *UNSEEN):
            raise UserError(f"`unseen` is '{self.unseen}'; it is one of {', '.join(UNSEEN)}")


class DiffusionNablaTauTrainer(DenoisingTrainer):
    """∇τ (Trippa et al. 2024, arXiv 2403.14339) on the denoising loss:

        L = Σ_k p_k·ReLU(1 − mean_k[ℓ_i] / τ_k)² + L_r,

    with ℓ_i = ‖ε − ε_θ(x_t, t, c)‖² of a forgotten row, mean_k over the step's rows whose timestep lies in the k-th
    eighth of the noise schedule, p_k their share of the rows, and τ_k the mean loss there of validation images, which
    the model never saw. Losses at early timesteps are many times those at late ones, and one τ for all would hear the
    early ones alone; one mean of ℓ_i / τ_k over all timesteps would be content with late ones that are many times τ_k
    while early ones are below. τ is measured once, on the original.

    Example:

        config = DiffusionNablaTauConfig(output_dir="unlearned")
        DiffusionNablaTauTrainer(model, config, splits, task).train()
    """

    config_class = DiffusionNablaTauConfig
    args: DiffusionNablaTauConfig
    method = "diffusion_nabla_tau"
    paper = NablaTauTrainer.paper

    def __init__(self, model, args: DiffusionNablaTauConfig, splits, task, **kwargs):
        if args.unseen == "other" and not task.has_classes:
            raise UserError("`unseen` other shows images under another class, and this model has none; leave it out")
        super().__init__(model, args, splits, task, **kwargs)

    @property
    def other_class(self) -> bool:
        """Whether τ is measured under classes that are not the images' own."""
        return bool(self.splits.forgotten_classes) if self.args.unseen is None else self.args.unseen == "other"

    def plan(self) -> list[str]:
        own = " under their own class" if self.task.has_classes else ""
        under = " under a class that is not theirs" if self.other_class else own
        return [*super().plan(), f"the ascent stops at the loss of unseen images{under}, by timestep"]

    def rows_beside_steps(self) -> int:
        return super().rows_beside_steps() + len(self.unseen_rows)

    @property
    def unseen_rows(self) -> Rows:
        """Validation rows that τ is measured on: all, or a seeded sample of them."""
        return self.some_rows(self.splits.validation_tau, MOST_CALIBRATION)

    def prepare(self) -> dict[str, torch.Tensor]:
        rows = self.unseen_rows
        self.count_examples(len(rows))
        errors = self.collect(rows, self.errors_under_another if self.other_class else errors_by_draw)
        return {"tau": torch.tensor(np.mean(errors, axis=0), dtype=torch.float32)}

    def unlearning_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        return self.of_step_mean(hinges, forget, self.shares_of_tau) + retain.mean(retain.loss)

    def shares_of_tau(self, forget: SplitOutput) -> torch.Tensor:
        """ℓ_i / τ_k of each row in the column of its eighth, and 1 in the same place of a second half; elsewhere 0:
        `(size, 2·eighths)`."""
        said: Any = forget.predictions
        tau = self.method_state["tau"].to(said.logits.device)
        model: Any = unwrap(self.model)
        eighth = said.noised.timesteps * len(tau) // model.steps
        here = torch.nn.functional.one_hot(eighth, len(tau))
        return torch.cat([(said.errors / tau[eighth])[:, None] * here, here], 1)

    def errors_under_another(self, said: Predictions) -> torch.Tensor:
        """Errors at a row's draws under the next class, `(rows, draws)`."""
        assert isinstance(said, DenoisingPredictions)
        model: Any = unwrap(self.model)
        task, shown = self.task, said.noised
        assert isinstance(task, ImageGeneration)
        following = task.conditions_of((said.labels + 1) % len(task.label_names or []))
        answer = model.denoise(Noised(shown.images, shown.timesteps, following)).flatten(1)
        return said.errors_of(answer).view(said.size, DRAWS)


def hinges(means: torch.Tensor) -> torch.Tensor:
    """Σ_k p_k·ReLU(1 − mean_k / τ_k)² of the step's means of [`shares_of_tau`], `(2·eighths,)`: a scalar. An eighth
    that no row is in has no part in it."""
    shares, rows = means.chunk(2)
    return (rows * torch.relu(1 - shares / rows.clamp(min=1e-12)) ** 2).sum()


def errors_by_draw(said: Predictions) -> torch.Tensor:
    """Errors at a row's draws, `(rows, draws)`."""
    assert isinstance(said, DenoisingPredictions)
    return said.errors.view(said.size, DRAWS)
