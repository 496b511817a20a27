"""MSG, masked small gradients: the weights that tell forget from retain rows least are drawn anew, then trained."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from hf_unlearn.errors import UserError
from hf_unlearn.models import lora
from hf_unlearn.models.start import drawn_anew
from hf_unlearn.saliency.measure import mean_gradients, trainable
from hf_unlearn.saliency.packed_masks import pack, unpack
from hf_unlearn.saliency.selection import select_top
from hf_unlearn.saliency.shards import spread, whole
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.lens import GradientLens
from hf_unlearn.trainers.published import PAPER, SALUN_RELEASE, PublishedConfig, PublishedTrainer
from hf_unlearn.trainers.retain_only import RetainOnlyTrainer
from hf_unlearn.trainers.saliency_lens import SaliencyLens

PREFIX = "small_gradients/"  # of the lens's tensors in checkpoints


@dataclass
class MSGConfig(PublishedConfig):
    """Arguments of [`MSGTrainer`]. There is the published form only.

    Args:
        drawn_share: of the weights of each layer, in (0, 1), are drawn anew: those with the smallest gradients.
        others_scale: what the gradients of the layers' other weights are multiplied by.
        warmup_steps: steps, or a share below 1 of them, in which the rate rises before it falls.
    """

    published: ClassVar[dict[str, Any]] = {**SALUN_RELEASE, "lr_scheduler_type": "linear"}

    variant: str = field(default=PAPER, init=False)
    num_train_epochs: float = field(default=5.0, metadata={"help": "Passes over the retain rows."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate."})
    warmup_steps: float = field(default=0.5, metadata={"help": "Steps, or a share of them, in which the rate rises."})
    drawn_share: float = field(default=0.3, metadata={"help": "Share of a layer's weights that are drawn anew."})
    others_scale: float = field(default=0.1, metadata={"help": "Of the gradients of a layer's other weights."})

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.drawn_share < 1:
            raise UserError(f"`drawn_share` is {self.drawn_share}; it is a share between 0 and 1, both excluded")
        if not self.others_scale >= 0:
            raise UserError(f"`others_scale` is {self.others_scale}; give 0 or more")


class SmallGradients(GradientLens):
    """Draws the weights with the smallest |ḡ_r − ḡ_f| anew before the first step, and slows down the others."""

    trainer: "MSGTrainer"

    def __init__(self, trainer):
        super().__init__(trainer)
        self.others: dict[str, torch.Tensor] = {}  # by parameter: which weights are not drawn anew

    @classmethod
    def is_asked(cls, args: UnlearningConfig) -> bool:
        return True

    def prepare(self) -> dict[str, torch.Tensor]:
        trainer = self.trainer
        forget = trainer.splits.forget
        retain = trainer.some_rows(trainer.splits.retain, len(forget))
        layers = layer_weights(trainer.model)
        scores = self._gradients(retain, layers)
        for name, gradient in self._gradients(forget, layers).items():
            scores[name].sub_(gradient).abs_()
        self.others, _ = select_top(scores, share=1 - trainer.args.drawn_share, scope="per_tensor")
        self._draw(layers)
        return {f"{PREFIX}{name}": pack(whole(mask)) for name, mask in self.others.items()}

    def rows_read(self) -> int:
        forget = len(self.trainer.splits.forget)
        return forget + min(forget, len(self.trainer.splits.retain))

    def _gradients(self, rows, layers: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
        trainer = self.trainer
        trainer.count_examples(len(rows))
        return mean_gradients(
            trainer.model,
            trainer.task,
            rows,
            batch_size=trainer.args.per_device_eval_batch_size,
            device=trainer.args.device,
            parameters=layers,
        )

    @torch.no_grad()
    def _draw(self, layers: dict[str, nn.Parameter]) -> None:
        """As the model's own class begins its weights; what another lens holds stays."""
        drawn = dict(drawn_anew(self.trainer.model, self.trainer.args.seed).named_parameters())
        before = [lens for lens in self.trainer.active_lenses if lens is not self]
        for name, weight in layers.items():
            value = torch.where(self.others[name], weight, spread(drawn[name], weight))
            for lens in before:
                value = lens.allowed(name, weight, value)
            weight.copy_(value)

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        for name, weight in layer_weights(self.trainer.model).items():
            self.others[name] = spread(unpack(state[f"{PREFIX}{name}"], tuple(weight.shape)), weight)

    @torch.no_grad()
    def change_gradients(self) -> None:
        scale, weights = self.trainer.args.others_scale, trainable(self.trainer.model)
        for name, others in self.others.items():
            gradient = weights[name].grad
            if gradient is not None:
                gradient.copy_(torch.where(others, gradient * scale, gradient))


class MSGTrainer(PublishedTrainer, RetainOnlyTrainer):
    """MSG (Cadet et al. 2024, arXiv 2410.01276, which benchmarks the second place of the NeurIPS 2023 unlearning
    challenge under this name): the 30 % of each layer's weights with the smallest |ḡ_r − ḡ_f| are drawn anew; then
    L = L_r for five passes, the gradients of the layer's other weights times 0.1.

    ḡ are mean gradients of the original, over the forget rows and as many retain rows. SGD with momentum 0.9 and
    weight decay 5e-4, at a rate that rises to 1e-3 in the first half and falls in the second; an optimizer that
    divides by the size of gradients, as Adam does, would undo the factor. Published code does this to convolutions
    alone, drawn as Kaiming normal; here it is done to the linear and convolutional layers of the backbone, drawn as
    the model's own class draws them. There the rate changes after each pass, here after each step.

    Example:

        config = MSGConfig(output_dir="unlearned", drawn_share=0.3)
        MSGTrainer(model, config, splits, task).train()
    """

    config_class = MSGConfig
    args: MSGConfig
    lenses = (SaliencyLens, SmallGradients)
    method = "msg"
    paper = {
        "title": "Deep Unlearn: Benchmarking Machine Unlearning for Image Classification",
        "authors": "Cadet et al.",
        "year": "2024",
        "id": "arXiv:2410.01276",
    }

    def __init__(self, model, args: MSGConfig, splits, task, **kwargs):
        if lora.is_peft(model):
            raise UserError(
                "`method` msg draws the model's own weights anew, which an adapter keeps: leave out `use_peft`"
            )
        if not layer_weights(model):
            kind = type(unwrap(model)).__name__
            raise UserError(f"`method` msg draws weights of linear layers and convolutions anew; {kind} trains none")
        super().__init__(model, args, splits, task, **kwargs)

    @property
    def ends_passes(self) -> bool:
        return True


def layer_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable weights of the linear and convolutional layers of a model's backbone, by name."""
    from transformers.pytorch_utils import Conv1D

    inner, weights = unwrap(model), trainable(model)
    kinds, backbone = (nn.Linear, nn.modules.conv._ConvNd, Conv1D), inner.base_model
    inside = {id(module) for module in backbone.modules()}
    names = [
        f"{name}.weight"
        for name, module in inner.named_modules()
        if isinstance(module, kinds) and id(module) in inside
    ]
    return {name: weights[name] for name in names if name in weights}
