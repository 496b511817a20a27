import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import processes
import pytest
import torch
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.callback import UnlearningEvalCallback
from hf_unlearn.evaluation.early_stop import StopAtValidation
from hf_unlearn.evaluation.logged_metrics import METRICS
from hf_unlearn.evaluation.scores import SplitScores
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
    arrays = ()

    def __init__(self):
        self.forwards = 0

    def collate(self, features):
        return {key: torch.stack([row[key] for row in features]) for key in ("pixel_values", "labels")}

    def predict(self, model, batch):
        self.forwards += len(batch["labels"])
        return Predictions(model(pixel_values=batch["pixel_values"]).logits, batch["labels"], len(batch["labels"]))


def make_splits(unseen_forgotten=None):
    splits = SimpleNamespace(
        forget=FakeImages(6, 1), retain=FakeImages(24, 2), validation_stop=FakeImages(5, 4), test=FakeImages(7, 3),
        unseen_forgotten=unseen_forgotten,
    )  # fmt: skip
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


def test_metrics_are_chosen_by_name_and_cost_no_further_pass(tmp_path):
    """All of them, and one of one's own: each row once per evaluation."""
    task, seen = FakeTask(), []

    def own(scores):
        seen.append(sorted(scores))
        return {"own": float(scores["forget"].loss.max()), "unknown": None}

    trainer = train(tmp_path, {"metrics": [*METRICS, own]}, task)
    assert task.forwards == 2 * (6 + 24 + 7)
    entry = evaluations(trainer)[0]
    assert set(entry) - {"epoch", "step"} == KEYS | {
        "eval_modified_entropy_auc", "eval_forget_median_loss", "eval_forget_top5_loss_share", "eval_own",
    }  # fmt: skip
    assert seen[0] == ["forget", "retain", "test"] and entry["eval_own"] >= entry["eval_forget_median_loss"]
    few = train(tmp_path, {"metrics": ["loss"]})
    logged = [set(entry) for entry in few.state.log_history if "eval_forget_loss" in entry]
    assert logged[0] - {"epoch", "step"} == {"eval_forget_loss", "eval_retain_loss", "eval_test_loss"}
    with pytest.raises(UserError, match="unknown `metric` 'lira'; there are accuracy, loss"):
        train(tmp_path, {"metrics": ["lira"]})


class Guarded(FakeImages):
    def __getitem__(self, i):
        raise AssertionError("rows that only report were read")


def stopping_splits():
    """Training on the validation rows brings their loss down to the forget rows', and below."""
    splits = make_splits()
    splits.validation_stop = FakeImages(39, 5)
    splits.forget, splits.retain = FakeImages(61, 6), splits.validation_stop
    splits.test, splits.nonmembers = Guarded(7, 3), Guarded(7, 3)
    return splits


def test_early_stopping_reads_forget_and_validation_alone(tmp_path):
    task = FakeTask()
    stop = StopAtValidation("loss", tolerance=0.5)
    options = {"stop": stop, "splits_to_score": ("forget",), "eval_steps": 1}
    trainer = train(tmp_path, options, task, stopping_splits())
    assert trainer.state.global_step == 1 < trainer.state.max_steps  # a fresh model tells nothing apart
    assert task.forwards == 61 + 39
    entry = evaluations(trainer)[0]
    assert set(entry) - {"epoch", "step"} == {
        "eval_forget_accuracy", "eval_forget_loss", "eval_stop_difference", "eval_stop_half_width",
    }  # fmt: skip
    assert abs(entry["eval_stop_difference"]) < 0.5 and entry["eval_stop_half_width"] < 0.5


def test_early_stopping_never_stops_on_too_few_rows(tmp_path, caplog):
    splits = stopping_splits()
    splits.forget = FakeImages(6, 1)
    options = {"stop": StopAtValidation("accuracy", tolerance=0.1), "splits_to_score": ("forget",), "eval_steps": 1}
    trainer = train(tmp_path, options, FakeTask(), splits)
    assert trainer.state.global_step == trainer.state.max_steps
    assert caplog.text.count("it will hardly stop") == 1


def scored(**arrays):
    rows = len(next(iter(arrays.values())))
    names = ("loss", "log_odds", "correct", "confidence", "entropy")
    return SplitScores(**{name: np.asarray(arrays.get(name, np.zeros(rows)), float) for name in names})


def test_when_it_stops_by_hand():
    stop = StopAtValidation("accuracy", tolerance=0.1)
    half = 1.96 * np.sqrt(2 * (202 / 404 * 202 / 404 / 404))
    alike = stop.look(scored(correct=[1, 0] * 200), scored(correct=[0, 1] * 200))
    assert alike.difference == 0 and alike.half_width == pytest.approx(half) and alike.stop
    assert not stop.look(scored(correct=[1] * 400), scored(correct=[1, 0] * 200)).stop  # still remembered
    assert stop.look(scored(correct=[0] * 400), scored(correct=[1, 0] * 200)).stop  # past the target
    assert not stop.look(scored(correct=[1, 0] * 20), scored(correct=[1, 0] * 200)).stop  # too few rows
    sure = stop.look(scored(correct=[1] * 5), scored(correct=[1] * 5))
    assert sure.difference == 0 and sure.half_width > 0.1 and not sure.stop
    loss = StopAtValidation("loss", tolerance=0.5)
    low, high = np.linspace(0.0, 1.0, 50), np.linspace(2.0, 3.0, 50)
    pairs = [(high, low, True), (low, high, False), ([1.0], high, False), ([], low, False)]
    for forget, validation, stops in pairs:
        assert loss.look(scored(loss=forget), scored(loss=validation)).stop == stops
    for bad in ({"figure": "auc"}, {"tolerance": 0.0}):
        with pytest.raises(UserError):
            StopAtValidation(**bad)


WORKER = """
import json, os, sys
import torch.distributed as dist
sys.path[:0] = sys.argv[1:3]
from test_callback import FakeTask, StopAtValidation, evaluations, stopping_splits, train

task = FakeTask()
options = {"stop": StopAtValidation("loss", tolerance=0.5), "splits_to_score": ("forget",), "eval_steps": 1}
trainer = train(sys.argv[3], options, task, stopping_splits())
assert trainer.args.world_size == 2 and dist.get_world_size() == 2
counts = [None, None]
dist.all_gather_object(counts, [task.forwards, trainer.state.global_step])
if dist.get_rank() == 0:
    with open(sys.argv[3] + "/found.json", "w") as file:
        json.dump({"counts": counts, "entry": evaluations(trainer)[0]}, file)
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # torch's own threads sometimes abort while the interpreter shuts down, with nothing left to do
"""


@pytest.mark.slow
def test_two_processes_share_the_rows_and_stop_together(tmp_path):
    """Splits that do not divide evenly: every row once over both processes, and the figures of all rows on each."""
    here = Path(__file__).parent
    done = processes.run(WORKER, str(here), str(here.parent), str(tmp_path), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    (first, steps), (second, same) = found["counts"]
    assert first + second == 61 + 39 and abs(first - second) <= 2 and steps == same == 1
    # The reported mean is that of all 61 forget rows of one model: no row counts twice, none is missing.
    accuracy = found["entry"]["eval_forget_accuracy"] * 61
    assert accuracy == pytest.approx(round(accuracy))
