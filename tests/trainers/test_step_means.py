"""Losses of several means over a step: the same however the step is divided."""

import pytest
import torch
from toy import image_setup

from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import UnlearningConfig


def ratio(means: torch.Tensor) -> torch.Tensor:
    return (means[0] / means[1]) ** 2


class Ratio(UnlearningTrainer):
    """(mean of the losses of some rows)², some rows being those with an even place."""

    method = "ratio"

    def parts(self, forget):
        even = (forget.index % 2 == 0).to(forget.loss)
        return torch.stack([forget.loss * even, even], 1)

    def unlearning_loss(self, forget, retain):
        return self.of_step_mean(ratio, forget, self.parts) + retain.mean(retain.loss)


def test_several_means_are_those_of_the_whole_step(tmp_path):
    runs = []
    for parts in (1, 4):
        model, splits, task = image_setup(torch.float64)
        args = UnlearningConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=8 // parts, per_device_forget_batch_size=8 // parts,
            gradient_accumulation_steps=parts, learning_rate=1e-2, use_cpu=True, disable_tqdm=True, logging_steps=1,
            max_steps=2,
        )  # fmt: skip
        trainer = Ratio(model, args, splits, task, quiet=True)
        trainer.train()
        logged = [log["loss"] for log in trainer.state.log_history if "loss" in log]
        runs.append((torch.cat([p.detach().flatten() for p in model.parameters()]), logged))
    (whole, losses), (divided, theirs) = runs
    assert theirs == pytest.approx(losses, rel=1e-9) and len(losses) == 2
    assert (whole - divided).abs().max() < 1e-9
