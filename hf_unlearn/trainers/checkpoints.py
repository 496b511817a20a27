"""What a run writes of itself: checkpoints to go on from ([`resuming`](resuming.py) reads them), and the model."""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from hf_unlearn.models.lora import save_kwargs
from hf_unlearn.trainers.part import TrainerPart
from hf_unlearn.trainers.resuming import (
    METHOD_STATE,
    check_identity,
    find_checkpoint,
    made_with,
    metadata,
    run_identity,
    write_checksums,
)


class Checkpoints(TrainerPart):
    """Part of [`UnlearningTrainer`]: Trainer's checkpoints with what was measured before the first step, the identity
    of the run and checksums. No pickle of ours."""

    def __init__(self, *args: Any, **kwargs: Any):
        self._identity: dict[str, Any] = {}
        super().__init__(*args, **kwargs)

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As Trainer's; `resume_from_checkpoint=True` takes the newest whole one. Raises `UserError` for a checkpoint
        of another run, or one that is not whole."""
        identity = run_identity(self)
        if resume_from_checkpoint:
            resume_from_checkpoint = find_checkpoint(resume_from_checkpoint, Path(self.args.output_dir))
            started = self._identity.get("start")  # of the training before, which has moved the weights
            if started and made_with(Path(resume_from_checkpoint), "start") == started:
                identity["start"] = started
            check_identity(resume_from_checkpoint, identity)
        self._identity = identity
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_method_state(self, checkpoint: str) -> None:
        self.method_state = load_file(os.path.join(checkpoint, METHOD_STATE))
        for lens in self.active_lenses:
            lens.restore(self.method_state)

    def _save_checkpoint(self, model, trial):
        # Before Trainer's own files: it rotates old checkpoints at the end.
        folder = os.path.join(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        if self.args.should_save:
            os.makedirs(folder, exist_ok=True)
            state = {"side_examples": torch.zeros((), dtype=torch.int64), **self.method_state}
            tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
            save_file(tensors, os.path.join(folder, METHOD_STATE), metadata=metadata(self._identity))
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every process writes its random state
        if self.args.should_save:
            write_checksums(Path(folder))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # Trainer would add training_args.bin, a pickle, and every adapter, the reference included.
        if not self.args.should_save:
            return
        output_dir = output_dir or self.args.output_dir
        model = self.accelerator.unwrap_model(self.model)
        options = save_kwargs(model)
        if not hasattr(model, "peft_config"):
            # Resuming loads weights by the modules' names; the Hub's older names (ViT has some) would be skipped.
            options["save_original_format"] = False
        model.save_pretrained(output_dir, state_dict=state_dict, **options)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(output_dir)
