"""UNSIR: three phases in one run, no forget row read, exact wherever it is stopped and however it is divided."""

import copy
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
import torch.nn.functional as F
from toy import image_setup, lm_setup, text_setup
from transformers import TrainerCallback

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.methods.unsir import UnsirConfig, UnsirTrainer
from hf_unlearn.models import lora
from hf_unlearn.report.phases import plot_phases
from hf_unlearn.trainers.config import KnownRecipe
from hf_unlearn.trainers.schedule import FORGET, RETAIN

STEPS = {"noise_steps": 4, "impair_steps": 3, "repair_steps": 4}


class Unreadable(Rows):
    """Rows of the forgotten classes: whoever reads one has broken the promise."""

    def __getitems__(self, batch):
        raise AssertionError("a forget row was read")


def by_class(setup, gone=(1,), readable=False):
    """The toy splits by class: forget are the retain rows of classes `gone`, and cannot be read."""
    model, splits, task = setup
    source = splits.retain.source
    labels = np.array(source["label"])
    roles = {"retain": ~np.isin(labels, gone), "forget": np.isin(labels, gone)}
    places = {name: [i for i in range(41) if keep[i]] for name, keep in roles.items()}
    splits.retain = Rows(source, task, places["retain"])
    splits.forget = (Rows if readable else Unreadable)(source, task, places["forget"])
    splits.unseen_forgotten = Unreadable(source, task, [60])
    splits.forgotten_classes = tuple(gone)
    return model, splits, task


def make(tmp_path, setup, *, batch=8, forget_batch=4, accumulation=1, recipe=None, **kwargs):
    model, splits, task = setup
    args = UnsirConfig(
        output_dir=str(tmp_path), use_cpu=True, logging_steps=1, disable_tqdm=True, per_device_train_batch_size=batch,
        per_device_forget_batch_size=forget_batch, gradient_accumulation_steps=accumulation,
        **{"learning_rate": 1e-2, "noise_rows": 6} | STEPS | kwargs,
    )  # fmt: skip
    return UnsirTrainer(model, args, splits, task, quiet=True, recipe=recipe)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def learned(setup, steps=200):
    """The toy's model after it has learned its training rows by heart."""
    model, splits, task = setup
    rows = task.collate(Rows(splits.retain.source, task, range(41)).__getitems__(range(41)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        task.predict(model.train(), rows).loss.mean().backward()
        optimizer.step()
    return model.eval(), splits, task


@pytest.mark.parametrize("kind", ["image", "text", "lora"])
@pytest.mark.parametrize("variant", ["fresh", "paper"])
def test_no_forget_row_is_read_and_no_kept_row_beyond_the_subset(tmp_path, kind, variant):
    setup = by_class(text_setup() if kind == "text" else image_setup(), gone=(1, 3))
    if kind == "lora":
        adapted = lora.add_lora(setup[0], r=2, alpha=4, dropout=0.0, task_type=None)
        setup = (adapted, *setup[1:])
    read = set()
    original = setup[1].retain.task.encode
    setup[2].encode = lambda rows, positions: read.update(positions) or original(rows, positions)
    trainer = make(tmp_path, setup, variant=variant, retain_per_class=3)
    trainer.train()
    assert trainer.state.global_step == 11
    kept = trainer.train_dataset.streams[RETAIN]
    labels = [row["labels"] for row in kept.__getitems__(range(len(kept)))]
    assert labels.count(0) == labels.count(2) == 3 and len(labels) == 6
    assert read <= set(kept.indices)
    with pytest.raises(AssertionError):
        trainer.evaluate()  # reading them is what makes the test's rows raise


def test_the_noise_carries_its_classes_and_takes_its_structure_from_kept_rows(tmp_path):
    trainer = make(tmp_path, by_class(text_setup(), gone=(1, 3)))
    rows = trainer.train_dataset.streams[FORGET]
    features = rows.__getitems__(range(12))
    assert [row["labels"] for row in features] == [1] * 6 + [3] * 6
    kept = {tuple(row["input_ids"].tolist()) for row in trainer.train_dataset.streams[RETAIN].__getitems__(range(21))}
    assert {tuple(row["input_ids"].tolist()) for row in features} <= kept
    assert len({len(row["input_ids"]) for row in features}) > 1


def test_several_classes_take_as_many_steps_as_one(tmp_path):
    trainers = [make(tmp_path, by_class(image_setup(), gone), noise_rows=None) for gone in ((1,), (0, 1, 3))]
    assert [len(t.train_dataset.streams[FORGET]) for t in trainers] == [16, 24]
    assert trainers[0].schedule.total_steps == trainers[1].schedule.total_steps == 11


def test_the_phases_and_their_logs(tmp_path):
    trainer = make(
        tmp_path,
        by_class(image_setup()),
        impair_learning_rate=2e-3,
        repair_learning_rate=1e-3,
        noise_learning_rate=0.3,
        noise_rows=8,
    )
    trainer.train()
    logs = [log for log in trainer.state.log_history if "learning_rate" in log]
    assert [log["learning_rate"] for log in logs] == pytest.approx(
        [0.3] * 4 + [2e-3] * 3 + [1e-3, 7.5e-4, 5e-4, 2.5e-4]
    )
    assert all({"noise_loss", "noise_norm_ratio"} <= log.keys() for log in logs[:4])
    assert all({"impair_noise_loss", "impair_retain_loss"} <= log.keys() for log in logs[4:7])
    assert all("repair_retain_loss" in log and "repair_noise_loss" not in log for log in logs[7:])
    # Noise steps cost noise rows; impairing both kinds; repairing retain rows. One look at the structure comes first.
    assert trainer.examples == 8 + 4 * 8 + 3 * (4 + 8) + 4 * 8


@pytest.mark.parametrize("targets", [["q_proj", "classifier"], ["q_proj", "fc2"]], ids=str)
def test_a_head_that_is_not_trained_whole_keeps_its_rows_and_so_does_the_adapter(tmp_path, targets):
    """Its rank is the number of classes: what has so many outputs need not be the head."""
    model, splits, task = by_class(image_setup())
    model = lora.add_lora(model, r=4, alpha=4, dropout=0.0, task_type=None, target_modules=targets, modules_to_save=[])
    trainer = make(tmp_path, (model, splits, task))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer._make_neutral()
    assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())
    assert trainer.notes == ["The output layer is frozen, so the forgotten classes kept their output rows."]


def test_a_run_that_learns_noise_alone_is_refused_and_one_without_repair_is_told(tmp_path):
    with pytest.raises(UserError, match="`max_steps` 4: the first 4 learn noise alone; give more"):
        make(tmp_path, by_class(image_setup()), max_steps=4)
    told = "max_steps is {}, so the run ends before its phase repair: the method is not done as a whole."
    for steps, notes in {5: [told.format(5)], 7: [told.format(7)], 8: [], -1: []}.items():
        assert make(tmp_path, by_class(image_setup()), max_steps=steps).notes == notes


class StopAfterNoise(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == STEPS["noise_steps"]


def test_noise_steps_leave_the_model_alone_and_impairing_starts_from_neutral_output_rows(tmp_path):
    setup = by_class(image_setup(torch.float64))
    before = copy.deepcopy(setup[0])
    trainer = make(tmp_path, setup)
    trainer.add_callback(StopAfterNoise())
    trainer.train()
    assert torch.equal(weights(before), weights(trainer.model))
    noise = trainer.noise
    rows = trainer._sampler()
    trainer = make(tmp_path / "on", by_class(image_setup(torch.float64)), max_steps=5, max_grad_norm=0.0)
    rows = trainer._sampler().rows(4)
    trainer.train()

    with torch.no_grad():
        for values in (before.classifier.weight, before.classifier.bias):
            values[1] = values[[0, 2, 3]].mean(0)
    optimizer = torch.optim.AdamW(before.parameters(), lr=1e-2, weight_decay=0.0)
    x = torch.cat([before.vit.embeddings.cls_token.expand(4, -1, -1), noise.values(torch.tensor(rows[FORGET]))], 1)
    hidden = x + before.vit.embeddings.position_embeddings
    for layer in before.vit.layers:
        hidden = layer(hidden)
    on_noise = before.classifier(before.vit.layernorm(hidden)[:, 0])
    _, splits, task = setup
    kept = task.collate(trainer.train_dataset.streams[RETAIN].__getitems__(list(rows[RETAIN])))
    loss = F.cross_entropy(on_noise, torch.full((4,), 1)) + task.predict(before, kept).loss.mean()
    loss.backward()
    optimizer.step()
    assert (weights(before) - weights(trainer.model)).abs().max() < 1e-6
    assert trainer.state.log_history[4]["loss"] == pytest.approx(loss.item(), rel=1e-5)


# Within the noise, at its end, while impairing, while repairing.
@pytest.mark.parametrize("stop, variant", [(2, "fresh"), (4, "fresh"), (5, "fresh"), (8, "fresh"), (5, "paper")])
def test_stopping_and_resuming_in_any_phase_is_bit_identical(tmp_path, stop, variant):
    setup = lambda: by_class(image_setup(dropout=0.1))  # noqa: E731
    options = {"variant": variant, "disable_dropout": False}
    whole = make(tmp_path / "whole", setup(), **options)
    whole.train()
    cut = make(tmp_path / "cut", setup(), save_steps=stop, save_strategy="steps", **options)
    cut.train()
    again = make(tmp_path / "again", setup(), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "cut" / f"checkpoint-{stop}"))
    assert torch.equal(weights(whole.model), weights(again.model))
    assert torch.equal(whole.method_state["noise"], again.method_state["noise"])
    assert whole.examples == again.examples


@pytest.mark.parametrize("kind, variant", [("image", "fresh"), ("text", "fresh"), ("image", "paper")])
def test_accumulation_gives_the_same_weights(tmp_path, kind, variant):
    runs = []
    for accumulation in (1, 4):
        setup = by_class((text_setup if kind == "text" else image_setup)(torch.float64))
        run = make(
            tmp_path, setup, batch=8 // accumulation, forget_batch=4 // accumulation, accumulation=accumulation,
            variant=variant, impair_learning_rate=1e-2, repair_learning_rate=1e-2,
        )  # fmt: skip
        run.train()
        runs.append(run)
    for run in runs[1:]:
        assert (weights(run.model) - weights(runs[0].model)).abs().max() < 1e-5  # the noise is float32
        losses = [[log["loss"] for log in r.state.log_history if "grad_norm" in log] for r in (run, runs[0])]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len(losses[0]) == 11


TWO = """
import os, sys, torch
sys.path[:0] = [{tests!r}, {here!r}]
import torch.distributed as dist
from test_unsir import by_class, image_setup, make, weights
t = make({out!r}, by_class(image_setup(torch.float64)), batch=4, forget_batch=2, ddp_backend="gloo")
assert t.args.world_size == 2
t.train()
if t.args.process_index == 0:
    torch.save({{"weights": weights(t.model), "examples": t.examples}}, {out!r} + "/two.pt")
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # torch's own threads sometimes abort while the interpreter shuts down, with nothing left to do
"""


@pytest.mark.slow
def test_two_processes_give_the_same_weights(tmp_path):
    here = Path(__file__).parent
    done = processes.run(TWO.format(tests=str(here.parent), here=str(here), out=str(tmp_path)), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    two = torch.load(tmp_path / "two.pt")
    one = make(tmp_path, by_class(image_setup(torch.float64)))
    one.train()
    assert (weights(one.model) - two["weights"]).abs().max() < 1e-5
    assert one.examples == two["examples"]


@pytest.mark.parametrize("kind, gone", [("image", (1,)), ("image", (0, 3)), ("text", (1,))])
def test_real_rows_are_forgotten_and_kept_ones_are_not(tmp_path, kind, gone):
    setup = by_class(learned((image_setup if kind == "image" else text_setup)()), gone, readable=True)
    _, splits, task = setup
    before = {name: score(setup[0], task, getattr(splits, name)).accuracy for name in ("forget", "retain")}
    assert min(before.values()) >= 0.85
    trainer = make(
        tmp_path, setup, noise_steps=30, impair_steps=10, repair_steps=20, learning_rate=1e-3, noise_rows=16
    )
    trainer.train()
    assert score(trainer.model, task, splits.forget).accuracy <= 0.02
    assert score(trainer.model, task, splits.retain).accuracy >= before["retain"] - 0.05


def test_impairing_as_published_lowers_the_accuracy_on_real_rows(tmp_path):
    setup = by_class(learned(image_setup()), readable=True)
    _, splits, task = setup
    trainer = make(tmp_path, setup, variant="paper", noise_steps=30, impair_steps=30, repair_steps=10, noise_rows=8)
    trainer.train()
    assert trainer.args.impair_learning_rate == 0.02 and trainer.args.repair_learning_rate == 0.01
    assert score(trainer.model, task, splits.forget).accuracy <= 0.3


def test_the_published_order(tmp_path):
    trainer = make(tmp_path, by_class(image_setup(), (1, 3)), variant="paper", impair_steps=None, repair_steps=None,
                   noise_rows=None)  # fmt: skip
    noise, retain = trainer.train_dataset.streams[FORGET], trainer.train_dataset.streams[RETAIN]
    assert len(noise) == 2 * 8 and len(retain) == 21
    assert [phase.steps for phase in trainer.schedule.phases] == [4, -(-(20 * 16 + 21) // 8), 3]
    sampler = trainer._sampler()
    impair = [sampler.rows(step) for step in range(4, 4 + trainer.args.impair_steps)]
    assert [len(rows[FORGET]) + len(rows[RETAIN]) for rows in impair] == [8] * 42 + [5]  # a smaller last batch
    counts = np.bincount(np.concatenate([rows[FORGET] for rows in impair]))
    assert counts.tolist() == [20] * 16
    assert set(np.concatenate([rows[RETAIN] for rows in impair])) == set(range(21))
    assert len({len(rows[FORGET]) for rows in impair}) > 1  # shuffled together


def test_the_defaults_read_at_most_a_tenth_of_what_retraining_reads(tmp_path):
    setup = by_class(image_setup())
    splits = setup[1]
    for epochs in (60, 1000):
        options = {"retrain_epochs": epochs, "impair_steps": None, "repair_steps": None, "noise_steps": 10}
        trainer = make(tmp_path, setup, batch=4, **options)
        planned = 11 * 6 + sum(
            len(rows)
            for step in range(10, trainer.schedule.total_steps)
            for rows in trainer._sampler().rows(step).values()
        )
        assert planned <= 0.1 * epochs * len(splits.retain)
    assert (trainer.args.impair_steps, trainer.args.repair_steps) == (20, 100)


@pytest.mark.parametrize("pretrained, steps", [(True, (40, 40)), (False, (5, 5))])
def test_a_pretrained_base_takes_as_many_steps_however_short_its_recipe(tmp_path, pretrained, steps):
    recipe = KnownRecipe(lambda seed: None, 3, 1e-4, pretrained=pretrained)
    options = {"impair_steps": None, "repair_steps": None, "recipe": recipe}
    trainer = make(tmp_path, by_class(image_setup()), **options)
    assert (trainer.args.impair_steps, trainer.args.repair_steps) == steps
    assert trainer.schedule.total_steps == STEPS["noise_steps"] + sum(steps)


def test_what_it_refuses(tmp_path):
    model, splits, task = image_setup()
    with pytest.raises(UserError, match="`classes`"):
        make(tmp_path, (model, splits, task))
    with pytest.raises(UserError, match="not of one class each"):
        make(tmp_path, lm_setup())
    for change in (
        {"variant": "other"},
        {"noise_rows": 0},
        {"noise_penalty": -1.0},
        {"saliency": 0.5},
        {"saliency_include": ["*"]},
    ):
        with pytest.raises(UserError) as error:
            make(tmp_path, by_class(image_setup()), **change)
        assert "\n" not in str(error.value)


def test_a_frozen_output_layer_is_said(tmp_path):
    model, splits, task = by_class(image_setup())
    model.classifier.requires_grad_(False)
    trainer = make(tmp_path, (model, splits, task))
    trainer.train()
    assert any("output layer is frozen" in note for note in trainer.notes)


def test_a_picture_of_the_phases(tmp_path):
    trainer = make(tmp_path, by_class(image_setup(), readable=True), eval_strategy="steps", eval_steps=1)
    trainer.splits.unseen_forgotten = None
    trainer.train()
    phases = [(phase.name, phase.steps) for phase in trainer.schedule.phases]
    picture = plot_phases(trainer.state.log_history, phases, tmp_path / "phases.svg")
    assert picture == tmp_path / "phases.svg" and "<svg" in picture.read_text()
    with pytest.raises(ValueError, match="no evaluation"):
        plot_phases([{"loss": 1.0}], phases, tmp_path / "none.svg")


def test_the_published_loop_step_by_step(tmp_path):
    """Adam at 0.02 over 20 copies of the noise and the subset, shuffled; then a new Adam at 0.01 over the subset.
    Neither clipping nor decay, plain means over a batch, the last one smaller."""
    reference = image_setup(torch.float64)[0]
    own = {"noise_space": "pixels", "noise_steps": 2, "impair_steps": None, "repair_steps": None}
    trainer = make(tmp_path, by_class(image_setup(torch.float64)), variant="paper", **own)
    trainer.train()
    sampler, noise, streams = trainer._sampler(), trainer.noise, trainer.train_dataset.streams
    kept = len(streams[RETAIN])
    impair, repair = -(-(20 * 6 + kept) // 8), -(-kept // 8)
    assert trainer.schedule.total_steps == 2 + impair + repair
    read = {FORGET: [], RETAIN: []}
    for step in range(2, 2 + impair + repair):
        if step in (2, 2 + impair):
            optimizer = torch.optim.Adam(reference.parameters(), lr=0.02 if step == 2 else 0.01)
        rows = {name: which.tolist() for name, which in sampler.rows(step).items()}
        pixels, labels = [], []
        if rows.get(FORGET):
            pixels.append(noise.values(torch.tensor(rows[FORGET])).double())
            labels.append(torch.as_tensor(streams[FORGET].labels[rows[FORGET]]))
        if rows[RETAIN]:
            batch = trainer.task.collate(streams[RETAIN].__getitems__(rows[RETAIN]))
            pixels.append(batch["pixel_values"].double())
            labels.append(batch["labels"])
        optimizer.zero_grad()
        F.cross_entropy(reference(pixel_values=torch.cat(pixels)).logits, torch.cat(labels)).backward()
        optimizer.step()
        if step < 2 + impair:
            for name, which in rows.items():
                read[name] += which
    assert sorted(read[FORGET]) == sorted(list(range(6)) * 20) and sorted(read[RETAIN]) == list(range(kept))
    assert (weights(trainer.model) - weights(reference)).abs().max() < 1e-6
