"""What DeepSpeed's ZeRO does otherwise than other engines: it steps within the backward pass and keeps the weights."""

import math

from hf_unlearn.errors import UserError
from hf_unlearn.models.zero import load_whole, make_whole
from hf_unlearn.trainers.originals import Originals


class Zero(Originals):
    """Part of [`UnlearningTrainer`]. The engine holds the model from the first step to the last: what is measured
    before, and what comes after, have it whole on every process.

    Clipping and the update come within the backward pass, so nothing can change gradients in between. Under ZeRO-3 a
    process has a part of every weight.
    """

    def _check_zero(self, *, own_steps: bool) -> None:
        """Raises `UserError` for what DeepSpeed cannot serve. `own_steps`: the method has steps beside Trainer's."""
        load_whole()  # to be made, the trainer has asked for the contrary
        if not self.is_deepspeed_enabled:
            return
        if self.active_lenses:
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
        """As Trainer's; afterwards the model is whole on every process, and nothing of the engine is left."""
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
