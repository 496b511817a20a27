"""What engines that spread weights over processes do otherwise: which of them can serve a method, and their ways."""

import math

from torch import nn

from hf_unlearn.errors import UserError
from hf_unlearn.models.zero import load_whole, make_whole
from hf_unlearn.trainers.originals import Originals


class Engines(Originals):
    """Part of [`UnlearningTrainer`], for DeepSpeed's ZeRO and accelerate's FSDP2.

    DeepSpeed holds the model from the first step to the last: what is measured before, and what comes after, have it
    whole on every process. Clipping and the update come within the backward pass, so nothing can change gradients in
    between. Under ZeRO-3 a process has a part of every weight.
    """

    def _settle_engine(self, *, own_steps: bool) -> None:
        """Raises `UserError` for what DeepSpeed cannot serve. `own_steps`: the method has steps beside Trainer's."""
        load_whole()  # to be made, the trainer has asked for the contrary
        if self.is_fsdp_enabled:
            plugin = self.accelerator.state.fsdp_plugin
            plugin.transformer_cls_names_to_wrap = plugin.transformer_cls_names_to_wrap or blocks_to_wrap(self.model)
        if not self.is_deepspeed_enabled:
            return
        if any(lens.acts for lens in self.active_lenses):
            raise UserError("DeepSpeed steps within the backward pass, where no mask can act: take DDP or FSDP2")
        if own_steps:
            raise UserError(f"`method` {self.method} changes weights that DeepSpeed holds: take DDP")
        if any(hasattr(p, "ds_id") for p in self.model.parameters()):
            raise UserError(
                "ZeRO-3 spread the model as it was loaded, before anything could be measured: load it after the "
                "method's config is made"
            )
        if self.zero_stage == 3 and self.reads_weights:
            raise UserError(f"`method` {self.method} reads whole weights, which ZeRO-3 spreads: take ZeRO-2 or DDP")

    def train(self, *args, **kwargs):
        """As Trainer's; after DeepSpeed the model is whole on every process, and nothing of the engine is left."""
        output = super().train(*args, **kwargs)
        if self.is_deepspeed_enabled and self.model_wrapped is not self.model:
            make_whole(self.model, self.model_wrapped)
            self.model_wrapped, self.deepspeed = self.model, None
            self.optimizer = None  # type: ignore[assignment]  # as before the first step
            self.accelerator.free_memory()
        return output

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        if self.is_deepspeed_enabled and (norm is None or norm < 0):
            return math.nan  # DeepSpeed says −1 of a norm that is not finite
        return norm


def blocks_to_wrap(model: nn.Module) -> list[str] | None:
    """Classes that FSDP2 wraps one by one: those that a model names, but none with the input embeddings in it.

    accelerate wraps these on their own, and fails where something around them is wrapped already (ViT names both).
    """
    named = getattr(model, "_no_split_modules", None)
    try:
        inputs = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    if not named or inputs is None:
        return None
    kinds = {type(module).__name__ for module in model.modules()}
    around = {type(outer).__name__ for outer in model.modules() if any(inner is inputs for inner in outer.modules())}
    return [name for name in named if name in kinds - around]
