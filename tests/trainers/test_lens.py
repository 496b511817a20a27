"""A lens of one's own changes the steps of any method, once a step, and is kept in checkpoints."""

import torch
from toy import image_setup

from hf_unlearn.methods.fine_tune import FineTuneConfig, FineTuneTrainer
from hf_unlearn.trainers.lens import GradientLens


class FrozenHead(GradientLens):
    """No gradient for the head."""

    calls: list = []

    @classmethod
    def is_asked(cls, args):
        return args.l1 > 0

    def prepare(self):
        return {"frozen_head/size": torch.tensor(68)}

    def restore(self, state):
        self.calls.append(("restored", int(state["frozen_head/size"])))

    def change_gradients(self):
        self.calls.append(self.trainer.state.global_step)
        for parameter in self.trainer.model.classifier.parameters():
            parameter.grad = None


class Trainer(FineTuneTrainer):
    lenses = (*FineTuneTrainer.lenses, FrozenHead)


def make(folder, l1=1e-3, **more):
    model, splits, task = image_setup()
    options = {
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.1,
    }
    options |= {"optim": "sgd", "learning_rate": 0.1, "use_cpu": True, "disable_tqdm": True, "l1": l1} | more
    return Trainer(model, FineTuneConfig(output_dir=str(folder), **options), splits, task, quiet=True)


def test_a_lens_changes_the_gradients_of_a_step_once(tmp_path):
    FrozenHead.calls = []
    trainer = make(tmp_path, save_strategy="steps", save_steps=1)
    start = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, start[name])}
    assert moved and not [name for name in moved if name.startswith("classifier")]
    assert FrozenHead.calls == [0, 1, 2] and trainer.lens is None
    again = make(tmp_path / "again")
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert FrozenHead.calls[3:] == [("restored", 68), 2]
    for one, other in zip(trainer.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_lens_that_nobody_asks_for_is_not_there(tmp_path):
    FrozenHead.calls = []
    trainer = make(tmp_path, l1=0.0)
    before = trainer.model.classifier.weight.detach().clone()
    trainer.train()
    assert trainer.active_lenses == [] and FrozenHead.calls == []
    assert not torch.equal(trainer.model.classifier.weight, before)
