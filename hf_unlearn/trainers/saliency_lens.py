"""Weight saliency under any method: measured before the first step, kept in checkpoints, applied at every step."""

import os

import torch

from hf_unlearn.saliency.apply import MaskedUpdates, freeze_buffers
from hf_unlearn.saliency.build import build_mask
from hf_unlearn.saliency.elementwise import check_elementwise, unwrapped
from hf_unlearn.saliency.lora_rows import DRAWS, is_fresh
from hf_unlearn.saliency.mask import SaliencyMask
from hf_unlearn.saliency.measure import trainable
from hf_unlearn.saliency.selection import matching_names
from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.lens import GradientLens
from hf_unlearn.trainers.part import TrainerPart

MASK_NAME = "saliency_mask.safetensors"


class SaliencyLens(GradientLens):
    """Lets a trainer move only the weights that are salient for the forget rows (SalUn, equations 3 and 4).

    Every other weight stays bit-identical, whatever the method and the optimizer; so do BatchNorm statistics.

    Args:
        trainer: whose updates are masked; its arguments `saliency…` say how.
    """

    def __init__(self, trainer: TrainerPart):
        super().__init__(trainer)
        self._mask: SaliencyMask | None = None
        self._held: MaskedUpdates | None = None
        self._check_optimizer()

    @classmethod
    def is_asked(cls, args: UnlearningConfig) -> bool:
        return args.masks_updates

    def _check_optimizer(self) -> None:
        """Refuse an optimizer that no mask can hold before any work is done, where one can be made to be looked at."""
        kind, options = self.trainer.get_optimizer_cls_and_kwargs(self.trainer.args, self.trainer.model)
        try:
            optimizer = kind([torch.zeros(1, requires_grad=True)], **options)
        except (TypeError, ValueError, RuntimeError):
            return  # it is made otherwise; it will be looked at when it is there
        check_elementwise(unwrapped(optimizer))

    def plan(self) -> list[str]:
        """How many weights would move, without measuring which."""
        args = self.trainer.args
        if args.saliency_mask:
            return SaliencyMask.load(args.saliency_mask, self.trainer.model).summary().splitlines()
        parameters = trainable(self.trainer.model)
        chosen = matching_names(list(parameters), args.saliency_include or (), args.saliency_exclude or ())
        size, total = (sum(parameters[name].numel() for name in names) for names in (chosen, parameters))
        if is_fresh(self.trainer.model):
            part = f"{self.share:.0%} of the rows of the adapter's B, none of its A, {self.share:.0%} of other weights"
        else:
            part = f"{int(self.share * size + 0.5):,} of {total:,} trainable weights"
        return [f"{part} would move: the most salient for the forget rows"]

    @property
    def mask(self) -> SaliencyMask:
        """What may move; known once it is measured, read or restored."""
        assert self._mask is not None
        return self._mask

    @property
    def _updates(self) -> MaskedUpdates:
        assert self._held is not None
        return self._held

    @property
    def share(self) -> float:
        """Kept fraction ρ."""
        return self.trainer.args.saliency or 1.0

    def rows_read(self) -> int:
        if self.trainer.args.saliency_mask:
            return 0
        return len(self.trainer.splits.forget) * (DRAWS if is_fresh(self.trainer.model) else 1)

    def prepare(self) -> dict[str, torch.Tensor]:
        """Measure the mask, or read the one that was given; returns what a checkpoint keeps of it."""
        trainer, args = self.trainer, self.trainer.args
        digest = trainer.forget_digest
        if args.saliency_mask:
            self._use(SaliencyMask.load(args.saliency_mask, trainer.model, forget_digest=digest))
        else:
            rows = trainer.splits.forget
            mask = build_mask(
                trainer.model,
                trainer.task,
                rows,
                share=self.share,
                scope=args.saliency_scope,
                include=args.saliency_include or (),
                exclude=args.saliency_exclude or (),
                seed=args.seed,
                batch_size=args.per_device_eval_batch_size,
                device=args.device,
                forget_digest=digest,
            )
            trainer.count_examples(self.rows_read())
            self._use(mask)
        return self.mask.to_tensors()

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take the mask from a checkpoint's tensors."""
        self._use(SaliencyMask.from_tensors(state, self.trainer.model))

    def save(self, folder: str) -> None:
        """Write the mask for `--saliency_mask`, unless that is where it came from."""
        if not self.trainer.args.saliency_mask:
            self.mask.save(os.path.join(folder, MASK_NAME))

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        self._updates.attach(optimizer)

    def change_gradients(self) -> None:
        """Nothing is left of the gradient of a weight that may not move."""
        self._updates.mask_gradients()

    def before_forward(self) -> None:
        """Statistics of normalisation layers count as frozen weights."""
        freeze_buffers(self.trainer.model)

    def allowed(self, name: str, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        mask = self.mask.masks.get(name)
        return before if mask is None else torch.where(mask, after, before)

    def _use(self, mask: SaliencyMask) -> None:
        self._mask = mask
        self.trainer.notes += mask.summary().splitlines()
        self._held = MaskedUpdates(mask.masks, self.trainer.model)
        mask.shrink()
