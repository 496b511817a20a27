"""SalUn for denoisers: what is drawn for a forgotten class becomes what is drawn for another one."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from hf_unlearn.errors import UserError
from hf_unlearn.methods.salun import SHARE, SalUnTrainer
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.tasks.row_chunks import wide_type
from hf_unlearn.trainers.config import filled_later
from hf_unlearn.trainers.published import PAPER
from hf_unlearn.trainers.schedule import FORGET
from hf_unlearn.trainers.split_output import SplitOutput
from hf_unlearn_diffusion.held import ALPHA, AVERAGE, PASSES, RETAIN_FOR_FORGET, HeldTrainer, check_average
from hf_unlearn_diffusion.predictions import DenoisingPredictions, Noised
from hf_unlearn_diffusion.steps import DenoisingConfig
from hf_unlearn_diffusion.task import ImageGeneration
from hf_unlearn_diffusion.weight_average import WeightAverage

RETAIN_TARGETS = ORIGINAL, NOISE = ("original", "noise")


@dataclass
class DiffusionSalUnConfig(DenoisingConfig):
    """Arguments of [`DiffusionSalUnTrainer`].

    `saliency` is 0.5 where nothing else is said, as published; 1 masks nothing, which leaves plain random labels.

    Args:
        variant: `rows` (default), or `paper`: 1,000 steps of 128 rows of each kind, Adam at a constant 1e-4, gradients
            clipped at 1 before the mask, dropout as the model has it.
        num_train_epochs: passes over the retain rows; `None` is 6. The class is gone after fewer, and kept
            classes need the others to settle again.
        per_device_forget_batch_size: forget rows per process and micro-batch; `None` is a quarter of the retain rows
            (paper: as many).
        alpha: weight α of the retain term, a mean over pixels. Published is 1e-3 on a sum over pixels, which is 3.07
            for images of 32 × 32 in colour.
        retain_target: what the retain term pulls kept rows to: what the `original` says of them under the same noise,
            or the `noise` itself, as published. `None` is `original` (paper: `noise`).
        weight_average: decay of a mean of the weights, which the model has in the end ([`WeightAverage`]); 0 is none.
            `None` is 0.9 (paper: 0).
        other_prompt: c′ of every forgotten row, for models that read prompts, e.g. `a photo of a person wearing
            clothes`. `None` is the prompt of the next kept concept.
    """

    num_train_epochs: float = filled_later("Passes over the retain rows (default: 6).")
    per_device_forget_batch_size: int = filled_later(
        "Forget rows per process and micro-batch (default: a quarter of the retain rows; variant paper: as many)."
    )
    variant: str = field(
        default="rows",
        metadata={
            "help": "rows: as many steps as the request takes; paper: as published.",
            "choices": ["rows", "paper"],
        },
    )
    other_prompt: str | None = field(
        default=None, metadata={"help": "Text to image: what is drawn instead (default: the next kept concept)."}
    )
    retain_target: str = filled_later(
        "What kept rows are pulled to: what the original says, or the noise (default: original; paper: noise).",
        choices=list(RETAIN_TARGETS),
    )
    weight_average: float = filled_later(
        "Decay of the mean of the weights that the model has in the end (default: 0.9; variant paper: 0, none)."
    )
    alpha: float = field(default=ALPHA, metadata={"help": "Weight of the retain term, a mean over pixels."})

    def __post_init__(self):
        if self.num_train_epochs is None:
            self.num_train_epochs = PASSES
        if self.weight_average is None:
            self.weight_average = 0.0 if self.variant == PAPER else AVERAGE
        super().__post_init__()
        if self.variant not in ("rows", "paper"):
            raise UserError(f"`variant` is '{self.variant}'; it is one of rows, paper")
        if self.alpha <= 0:
            raise UserError(f"`alpha` is {self.alpha}: without the retain term all classes are lost; give more than 0")
        if self.retain_target is None:
            self.retain_target = NOISE if self.variant == PAPER else ORIGINAL
        if self.retain_target not in RETAIN_TARGETS:
            raise UserError(f"`retain_target` is '{self.retain_target}'; it is one of {', '.join(RETAIN_TARGETS)}")
        check_average(self)
        if self.saliency is None and not self.saliency_mask:
            self.saliency = SHARE


class DiffusionSalUnTrainer(HeldTrainer):
    """SalUn for conditional denoisers (Fan et al. 2024, arXiv 2310.12508, equation 6):

        L = mean_f ‖ε_θ(x_t, t, c) − sg ε_θ(x_t, t, c′)‖² + α·mean_r ‖ε − ε_θ(x_t, t, c)‖²,   c′ ≠ c,

    norms being means over pixels, sg a number through which no gradient flows, and c′ the next class after c, in the
    order of their ids, that is not forgotten itself. By default the retain term is α·mean_r ‖ε_θ₀(x_t, t, c) −
    ε_θ(x_t, t, c)‖² with the original's weights θ₀: a finished model that is trained on noise again jitters, and draws
    worse until it has settled; this term has no gradient where the model says what the original says. Only the weights
    whose saliency |∇L_f(θ₀)| is in the upper half move. Rows that are shown without their class (`condition_dropout`)
    are so in both terms; the forget term of such a row is 0.

    Example:

        config = DiffusionSalUnConfig(output_dir="unlearned", saliency=0.5)
        DiffusionSalUnTrainer(model, config, splits, task).train()
    """

    config_class = DiffusionSalUnConfig
    args: DiffusionSalUnConfig
    method = "diffusion_salun"
    paper = SalUnTrainer.paper

    def __init__(self, model, args: DiffusionSalUnConfig, splits, task, **kwargs):
        if args.other_prompt is not None:
            if not hasattr(task, "conditions_said"):
                self.check_task(task)
            task.conditions_said(args.other_prompt)
        if args.variant == PAPER and getattr(task, "has_prompts", False):
            raise UserError(
                "`variant` paper has the steps of a DDPM; configs/hub_sd_salun.yaml has those published for prompts"
            )
        self.keeps_start = args.retain_target == ORIGINAL
        super().__init__(model, args, splits, task, **kwargs)
        if args.weight_average:
            self.add_callback(WeightAverage(self, args.weight_average))

    def default_forget_batch(self) -> int:
        rows = super().default_forget_batch()
        return rows if self.as_published else max(1, rows // RETAIN_FOR_FORGET)

    def rows_beside_steps(self) -> int:
        """Also the forgotten rows under another class, and the kept ones under the original, once in every step."""
        return super().rows_beside_steps() + self.rows_of_steps(FORGET) + self.rows_of_held()

    def unlearning_loss(self, forget: SplitOutput, retain: SplitOutput) -> torch.Tensor:
        kept = self.held_losses(retain) if self.keeps_start else retain.loss
        return forget.mean(self.forget_losses(forget)) + self.args.alpha * retain.mean(kept)

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        """‖ε_θ(x_t, t, c) − sg ε_θ(x_t, t, c′)‖² of each row, `(size,)`."""
        said = forget.predictions
        assert isinstance(said, DenoisingPredictions)
        model: Any = unwrap(self.model)
        shown = said.noised
        with torch.no_grad():
            other = Noised(shown.images, shown.timesteps, self.other_conditions(shown.conditions, said.labels))
            wanted = model.denoise(other).flatten(1) if len(forget) else said.logits
        self.count_examples(len(forget) * self.args.world_size)
        return (said.logits.to(wide_type(said.logits)) - wanted).square().mean(1)

    def other_conditions(self, conditions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """c′ of each row with condition c and class `labels` `(size,)`; no condition stays none."""
        model, task = unwrap(self.model), self.task
        assert isinstance(task, ImageGeneration)
        if self.args.other_prompt is not None:
            other = task.conditions_said(self.args.other_prompt).to(conditions.device).expand_as(conditions)
        else:
            count = len(task.label_names or [])
            gone = set(self.splits.forgotten_classes)
            kept = np.array([k for k in range(count) if k not in gone] or range(count))
            following = kept[np.searchsorted(kept, labels.cpu().numpy(), side="right") % len(kept)]
            other = task.conditions_of(torch.tensor(following, device=labels.device))
        return task.unless_without(other, conditions, model)
