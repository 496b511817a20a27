"""The mean of a run's last weights, which is what diffusion models are drawn with."""

from typing import Any

from transformers import TrainerCallback

from hf_unlearn.trainers.part import TrainerPart

AVERAGE = "average/"  # among the tensors of a checkpoint
SPREAD = "The weights are spread over processes: the model has the last ones, and not the mean of the last ones."


class WeightAverage(TrainerCallback):
    """Keeps an exponential mean of the trained weights, and leaves it in the model where the training ends:

        θ̄ ← d_n·θ̄ + (1 − d_n)·θ_n after step n,   d_n = min(d, n / (9 + n)),   θ̄ = θ_1 after the first,

    as usual for denoisers (Ho et al. 2020, arXiv 2006.11239): their weights jitter, and what is drawn jitters with
    them. The mean is `EMAModel` of `diffusers`, and checkpoints keep it. Weights that do not move stay bit-identical.

    Args:
        trainer: whose weights.
        decay: d, in (0, 1).
    """

    def __init__(self, trainer: TrainerPart, decay: float):
        self.trainer = trainer
        self.decay = decay
        self.mean: Any = None
        if self.is_spread:
            trainer.notes.append(SPREAD)

    @property
    def is_spread(self) -> bool:
        return self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        from diffusers.training_utils import EMAModel

        if self.is_spread:
            return
        trained, kept = self._trained(), self.trainer.method_state
        self.mean = EMAModel(trained.values(), decay=self.decay)
        self.mean.optimization_step = state.global_step
        for name, mean in zip(trained, self.mean.shadow_params, strict=True):
            if AVERAGE + name in kept:  # the run goes on
                mean.copy_(kept[AVERAGE + name])
            kept[AVERAGE + name] = mean  # which every step changes in place

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if self.mean is not None:
            self.mean.step(self._trained().values())

    def on_train_end(self, args, state, control, **kwargs) -> None:
        if self.mean is not None:
            self.mean.copy_to(self._trained().values())

    def _trained(self) -> dict[str, Any]:
        return {name: weight for name, weight in self.trainer.model.named_parameters() if weight.requires_grad}
