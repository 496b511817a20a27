from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from hf_unlearn.evaluation.callback import UnlearningEvalCallback
from hf_unlearn.tasks.predictions import Predictions

KEYS = {f"eval_{split}_{figure}" for split in ("forget", "retain", "test") for figure in ("accuracy", "loss")} | {
    "eval_membership_auc",
    "eval_membership_auc_se",
}


class FakeImages(torch.utils.data.Dataset):
    def __init__(self, size, seed):
        generator = torch.Generator().manual_seed(seed)
        self.pixels = torch.rand(size, 1, 8, 8, generator=generator)
        self.labels = torch.randint(0, 3, (size,), generator=generator)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {"pixel_values": self.pixels[i], "labels": self.labels[i]}


class FakeTask:
    def __init__(self):
        self.forwards = 0

    def collate(self, features):
        return {key: torch.stack([row[key] for row in features]) for key in ("pixel_values", "labels")}

    def predict(self, model, batch):
        self.forwards += len(batch["labels"])
        return Predictions(model(pixel_values=batch["pixel_values"]).logits, batch["labels"], len(batch["labels"]))


def make_splits(unseen_forgotten=None):
    splits = SimpleNamespace(
        forget=FakeImages(6, 1), retain=FakeImages(24, 2), test=FakeImages(7, 3), unseen_forgotten=unseen_forgotten
    )
    splits.nonmembers = unseen_forgotten or splits.test
    return splits


def train(folder, callback=None, task=None, splits=None, **options):
    """A Trainer with dropout and shuffling after its training of 6 steps, 3 per epoch."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
        num_channels=1, num_labels=3, hidden_dropout_prob=0.2,
    )  # fmt: skip
    splits = splits or make_splits()
    args = TrainingArguments(
        output_dir=str(folder), num_train_epochs=2, per_device_train_batch_size=8, learning_rate=1e-2, seed=1,
        logging_steps=1, report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    for name, value in options.items():
        setattr(args, name, value)
    trainer = Trainer(
        ViTForImageClassification(config), args, train_dataset=splits.retain, eval_dataset=options and splits.test
    )
    if callback is not None:
        trainer.add_callback(UnlearningEvalCallback(trainer, splits, task or FakeTask(), **callback))
    trainer.train()
    return trainer


def evaluations(trainer):
    return [entry for entry in trainer.state.log_history if "eval_forget_accuracy" in entry]


def without_times(history):
    return [{k: v for k, v in entry.items() if "runtime" not in k and "per_second" not in k} for entry in history]


def test_training_is_the_same_bit_by_bit_with_and_without_it(tmp_path):
    plain = train(tmp_path)
    watched = train(tmp_path, {"eval_steps": 1})
    assert len(evaluations(watched)) == 6
    for old, new in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(old, new)
    # The trainer's own log of a step is not swallowed either.
    rest = [entry for entry in watched.state.log_history if "eval_forget_accuracy" not in entry]
    assert without_times(rest) == without_times(plain.state.log_history)


def test_logs_every_epoch_by_default(tmp_path):
    entries = evaluations(train(tmp_path, {}))
    assert [entry["step"] for entry in entries] == [3, 6]
    assert set(entries[0]) - {"epoch", "step"} == KEYS


def test_own_schedule_ends_with_the_training(tmp_path):
    assert [entry["step"] for entry in evaluations(train(tmp_path, {"eval_steps": 4}))] == [4, 6]


def test_follows_the_evaluation_of_the_trainer(tmp_path):
    trainer = train(tmp_path, {}, eval_strategy="steps", eval_steps=2)
    assert [entry["step"] for entry in evaluations(trainer)] == [2, 4, 6]
    own = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["eval_test_loss"] for entry in evaluations(trainer)] == pytest.approx(own, abs=1e-5)


def test_removed_classes_are_compared_with_their_own_unseen_rows(tmp_path):
    task = FakeTask()
    trainer = train(tmp_path, {}, task, make_splits(unseen_forgotten=FakeImages(5, 4)))
    assert task.forwards == 2 * (6 + 24 + 7 + 5)
    assert set(evaluations(trainer)[0]) - {"epoch", "step"} == KEYS
    assert trainer.callback_handler.callbacks[-1].names == ["forget", "retain", "test", "nonmembers"]


def test_only_the_splits_asked_for_are_scored(tmp_path):
    task = FakeTask()
    trainer = train(tmp_path, {"splits_to_score": ("forget",)}, task)
    assert task.forwards == 2 * 6
    assert set(evaluations(trainer)[0]) - {"epoch", "step"} == {"eval_forget_accuracy", "eval_forget_loss"}
