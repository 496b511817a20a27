"""∇τ for denoisers: the denoising loss of forgotten images rises to that of unseen ones, and no further."""

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
from hf_unlearn.trainers.config import filled_later
from hf_unlearn.trainers.split_output import SplitOutput
from hf_unlearn_diffusion.draws import DRAWS
from hf_unlearn_diffusion.held import ALPHA, AVERAGE, PASSES, RETAIN_FOR_FORGET, check_average
from hf_unlearn_diffusion.lead import LeadingTrainer
from hf_unlearn_diffusion.predictions import DenoisingPredictions
from hf_unlearn_diffusion.steps import OneFormConfig
from hf_unlearn_diffusion.task import UNLED
from hf_unlearn_diffusion.weight_average import WeightAverage

UNSEEN = ("own", "other")
LEADS = OTHERS, NONE = ("others", "none")


@dataclass
class DiffusionNablaTauConfig(OneFormConfig):
    """Arguments of [`DiffusionNablaTauTrainer`].

    Args:
        unseen: which loss of unseen images the ascent stops at: under the class that is theirs (`own`), or under one
            that is not (`other`), which is how a model that never saw a class sees its images. `None` is `other` where
            whole classes are forgotten, else `own`.
        lead: where the ascent leads: to what the original says under the classes that are kept (`others`), or nowhere
            in particular (`none`). `None` is `others` where whole classes are forgotten, else `none`.
        num_train_epochs: passes over the retain rows; `None` is 6 where the ascent is led, else as many as forty
            passes over the forget rows take.
        per_device_forget_batch_size: forget rows per process and micro-batch; `None` is a quarter of the retain rows
            where the ascent is led, else as many.
        weight_average: decay of a mean of the weights, which the model has in the end ([`WeightAverage`]); 0 is none.
            `None` is 0.9 where the ascent is led, else 0.
    """

    unseen: str | None = field(
        default=None,
        metadata={
            "help": "Unseen images under their own class, or another (default: other where classes are forgotten).",
            "choices": list(UNSEEN),
        },
    )
    lead: str | None = field(
        default=None,
        metadata={
            "help": "Where the ascent leads: what the original says under kept classes, or nowhere (default: others "
            "where classes are forgotten).",
            "choices": list(LEADS),
        },
    )
    weight_average: float = filled_later(
        "Decay of the mean of the weights that the model has in the end (default: 0.9 where led, else 0)."
    )

    def __post_init__(self):
        super().__post_init__()
        for name, known in (("unseen", UNSEEN), ("lead", LEADS)):
            if getattr(self, name) not in (None, *known):
                raise UserError(f"`{name}` is '{getattr(self, name)}'; it is one of {', '.join(known)}")
        if self.weight_average is not None:
            check_average(self)


class DiffusionNablaTauTrainer(LeadingTrainer):
    """∇τ (Trippa et al. 2024, arXiv 2403.14339) on the denoising loss. Where some images are forgotten:

        L = Σ_k p_k·ReLU(1 − mean_k[ℓ_i] / τ_k)² + L_r,

    with ℓ_i = ‖ε − ε_θ(x_t, t, c)‖² of a forgotten row, mean_k over the step's rows whose timestep lies in the k-th
    eighth of the noise schedule, p_k their share of the rows, and τ_k the mean loss there of validation images, which
    the model never saw. Losses at early timesteps are many times those at late ones, and one τ for all would hear the
    early ones alone; one mean of ℓ_i / τ_k over all timesteps would be content with late ones that are many times τ_k
    while early ones are below. τ is measured once, on the original.

    Where whole classes are forgotten, τ_k is the loss of validation images under a class that is not theirs, and the
    ascent is led:

        L = mean_f ‖ε_θ(x_t, t, c) − target_k‖² + α·mean_r ‖ε_θ(x_t, t, c) − ε_θ₀(x_t, t, c)‖²,

    where the target lies on the line from what the original θ₀ says under c to the mean of what it says under kept
    classes, as far along as the loss is τ_k ([`LeadingTrainer`]), and α = 3.07. A finished model stands where its loss
    under c is least, so that the slope there is noise and an ascent without a lead goes wherever is easy: what is
    drawn loses its looks before it loses the class, and where drawing is guided, ε(∅) + w·(ε(c) − ε(∅)), what is left
    of the way from ∅ to c brings the class back. Rows that are shown without their condition have no part in the first
    term.

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
        if args.lead == OTHERS and not splits.forgotten_classes:
            raise UserError(
                "`lead` others is for whole classes, and some of their rows are forgotten here; leave it out"
            )
        self.is_led = bool(splits.forgotten_classes) if args.lead is None else args.lead == OTHERS
        self.keeps_start = self.is_led
        if args.weight_average is None:
            args.weight_average = AVERAGE if self.is_led else 0.0
        check_average(args)
        super().__init__(model, args, splits, task, **kwargs)
        if args.weight_average:
            self.add_callback(WeightAverage(self, args.weight_average))
        if splits.forgotten_classes and not self.is_led:
            self.notes.append(f"{UNLED}: --lead others is for whole classes.")

    def usual_passes(self, splits) -> float:
        return PASSES if self.is_led else super().usual_passes(splits)

    def default_forget_batch(self) -> int:
        rows = super().default_forget_batch()
        return max(1, rows // RETAIN_FOR_FORGET) if self.is_led else rows

    @property
    def other_class(self) -> bool:
        """Whether τ is measured under classes that are not the images' own."""
        return bool(self.splits.forgotten_classes) if self.args.unseen is None else self.args.unseen == "other"

    def plan(self) -> list[str]:
        own = " under their own class" if self.task.has_classes else ""
        under = " under a class that is not theirs" if self.other_class else own
        lines = [*super().plan(), f"the ascent stops at the loss of unseen images{under}, by timestep"]
        if self.is_led:
            lines.append("it leads to what the original says under the classes that are kept, which are held")
        return lines

    def rows_beside_steps(self) -> int:
        led = self.rows_of_lead() + self.rows_of_held() if self.is_led else 0
        return super().rows_beside_steps() + len(self.unseen_rows) + led

    @property
    def unseen_rows(self) -> Rows:
        """Validation rows that τ is measured on: all, or a seeded sample of them."""
        return self.some_rows(self.splits.measuring, MOST_CALIBRATION)

    def prepare(self) -> dict[str, torch.Tensor]:
        rows = self.unseen_rows
        self.count_examples(len(rows))
        errors = self.collect(rows, self.errors_under_another if self.other_class else errors_by_draw)
        tau = np.mean(errors, axis=0)
        found = {"tau": torch.tensor(tau, dtype=torch.float32)}
        return found | ({"stride": self.measure_strides(tau)} if self.is_led else {})

    def unlearning_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        if self.is_led:
            led = forget.mean(self.led_losses(forget, self.method_state["stride"]))
            return led + ALPHA * retain.mean(self.held_losses(retain))
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
        following = (said.labels + 1) % len(self.task.label_names or [])
        answer = model.denoise(self.shown_under(said.noised, following)).flatten(1)
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
