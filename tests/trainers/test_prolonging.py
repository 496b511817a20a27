"""A run goes on while its forget rows stand above their targets, and ends as if it had been planned so long."""

from functools import partial
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from toy import image_setup, lm_setup
from transformers import get_scheduler

from hf_unlearn.methods import get_method
from hf_unlearn.trainers import prolonging, row_target_trainer, token_pull
from hf_unlearn.trainers.config import KnownRecipe
from hf_unlearn.trainers.prolonging import ABOVE, STEPS, stretch
from hf_unlearn.trainers.sampler import JointSampler, StreamSize
from hf_unlearn.trainers.schedule import Phase, Schedule

PLANNED, MOST = 8, 64


@pytest.fixture
def short(monkeypatch):
    """Runs of 8 planned steps."""
    monkeypatch.setattr(row_target_trainer.RowTargetTrainer, "least_steps", PLANNED)


def make(
    folder: Path, above: float | None = None, method: str = "nabla_tau", recipe=None, dtype=torch.float32, **more
):
    """A trainer whose rows stand `above` their targets whenever it looks; `None`: where they do."""
    model, splits, task = image_setup(dtype)
    values = {"proxy_epochs": 1, "learning_rate": 1e-3, "use_cpu": True, "disable_tqdm": True, "report_to": []}
    values |= {"per_device_forget_batch_size": 8, "retrain_epochs": 1, "save_strategy": "steps", "save_steps": 5}
    kind = get_method(method)
    args = kind.config_class(output_dir=str(folder), logging_steps=1, **(values | more))
    trainer = kind(model, args, splits, task, quiet=True, recipe=recipe)
    if above is not None:
        trainer.stand_above = lambda places: above
    return trainer


def test_a_prolonged_schedule_goes_on_with_its_last_phase():
    schedule = Schedule([Phase("a", 3, ("forget",)), Phase("b", 4, ("retain",), most_steps=10)])
    assert (schedule.total_steps, schedule.planned_steps, schedule.most_steps) == (7, 7, 13)
    before = [schedule.stream_steps(9, name) for name in ("forget", "retain")]
    schedule.prolong(9)
    assert (schedule.total_steps, schedule.planned_steps, schedule.most_steps) == (9, 7, 13)
    assert [schedule.stream_steps(9, name) for name in ("forget", "retain")] == before == [3, 6]
    schedule.prolong(99)
    assert schedule.total_steps == 13
    assert Schedule([Phase("b", 4, most_steps=10)], max_steps=6).most_steps == 6  # what the user says is said


def test_rows_of_a_step_do_not_depend_on_how_long_the_run_is():
    schedule = Schedule([Phase("unlearn", 4, most_steps=12)])
    sampler = JointSampler(schedule, {"forget": StreamSize(5, 2), "retain": StreamSize(9, 4)}, seed=0)
    before = list(sampler)
    schedule.prolong(9)
    assert list(sampler) == before and len(sampler) == len(before) == 12


def test_a_falling_rate_is_that_of_a_run_planned_so_long():
    made = [torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(2)]
    ours, theirs = (partial(get_scheduler, "linear", optimizer, num_warmup_steps=2) for optimizer in made)
    ours, theirs = ours(num_training_steps=10), theirs(num_training_steps=20)
    for step in range(20):
        if step == 7:
            stretch(ours, 20)
        if step > 7:
            assert ours.get_last_lr() == theirs.get_last_lr()
        for made_optimizer, rate in zip(made, (ours, theirs), strict=True):
            made_optimizer.step(), rate.step()
    constant = get_scheduler("constant", made[0])
    stretch(constant, 20)  # a rate that does not fall stays as it is
    assert constant.lr_lambdas[0](19) == 1.0


@pytest.mark.parametrize("method", ["nabla_tau", "salun"])
@pytest.mark.parametrize("above, steps", [(0.5, MOST), (0.0, PLANNED)])
def test_a_run_ends_when_its_rows_no_longer_stand_above(tmp_path, short, method, above, steps):
    trainer = make(tmp_path, above, method)
    assert (trainer.schedule.total_steps, trainer.schedule.most_steps) == (PLANNED, MOST)
    trainer.train()
    assert trainer.state.global_step == trainer.state.max_steps == steps
    assert any("prolonged to 64" in note for note in trainer.notes) == (steps == MOST)
    assert any("above their targets by 0.5 of" in note for note in trainer.notes) == (steps == MOST)
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates[-1] == pytest.approx(1e-3 / (steps - 1), rel=0.2)  # it has fallen by the end, and not before


def test_wrong_labels_of_a_removed_class_are_not_prolonged(tmp_path, short):
    """Their pull fades before the rows are as unlikely as their targets say, however long the run."""
    model, splits, task = image_setup()
    splits.forgotten_classes = (3,)
    args = get_method("salun").config_class(output_dir=str(tmp_path), use_cpu=True, retrain_epochs=1)
    trainer = get_method("salun")(model, args, splits, task, quiet=True)
    assert trainer.schedule.most_steps == trainer.schedule.total_steps


def test_another_training_begins_as_planned(tmp_path, short):
    trainer = make(tmp_path, 0.5)
    trainer.notes.append("of the rows")
    trainer.train()
    first = list(trainer.notes)
    assert first[0] == "of the rows" and any("prolonged" in note for note in first)
    trainer.train(resume_from_checkpoint=True)  # of a run that is over: its end is told again, and once
    assert trainer.notes == first
    trainer.stand_above = lambda places: 0.0
    trainer.train()
    assert trainer.state.global_step == PLANNED
    kinds = [note[:40] for note in first if "above their targets" not in note]
    assert [note[:40] for note in trainer.notes] == kinds  # those of this training, and of no other


def test_the_distance_is_that_of_the_rows_to_their_targets(tmp_path):
    trainer = make(tmp_path)
    log_odds = torch.tensor(trainer.score(trainer.splits.forget).log_odds)
    trainer.method_state = {"targets": log_odds - torch.arange(11.0) * 2, "spread": torch.tensor(4.0)}
    assert trainer.stand_above(torch.tensor([1, 4]).numpy()) == pytest.approx((2 + 8) / 2 / 4)
    assert "side_examples" not in trainer.method_state  # who looks in order to train longer counts it


@pytest.mark.parametrize("own", [{"num_train_epochs": 4}, {"max_steps": 8}, {"variant": "held"}])
def test_what_the_user_fixes_is_not_prolonged(tmp_path, short, own):
    trainer = make(tmp_path, 9.0, **own)
    assert trainer.schedule.most_steps == trainer.schedule.total_steps == 8
    trainer.train()
    assert trainer.state.global_step == 8 and STEPS not in trainer.method_state


@pytest.mark.parametrize("own", ["max_steps", "num_train_epochs"])
@pytest.mark.parametrize("method", ["nabla_tau", "salun"])
def test_a_run_that_the_user_cuts_says_how_far_its_rows_still_stand_above(tmp_path, short, method, own):
    steps = {"max_steps": 3, "num_train_epochs": 0.1}[own]
    trainer = make(tmp_path, method=method, **{own: steps})
    trainer.nats_above = lambda places: trainer.spread * np.array([-9.0, 0.5, 1.5, 2.0])[places % 4]
    trainer.train()
    words = (
        f"as {own} says, the forgotten rows stand above their targets by 0.91 of the spread of unseen rows on average"
    )
    (note,) = [note for note in trainer.notes if "their targets" in note]
    assert words in note and "5 of 11 by more than the whole of it" in note and f"Leave {own} out" in note
    trainer.nats_above = lambda places: trainer.spread * np.full(len(places), 0.09)
    trainer.train()
    assert not [note for note in trainer.notes if "their targets" in note]
    free = make(tmp_path / "free", 0.0, method)
    free.nats_above = lambda places: free.spread * np.full(len(places), 9.0)
    free.train()
    assert not [note for note in free.notes if "their targets" in note]  # it took what it needed


@pytest.mark.parametrize("steps, told", [(PLANNED - 1, True), (PLANNED, False)])
@pytest.mark.parametrize("kind", ["wrong labels of a removed class", "tokens"])
def test_where_no_run_goes_on_only_one_of_fewer_steps_is_cut(tmp_path, short, monkeypatch, kind, steps, told):
    setup, values = (lm_setup, {"variant": "tokens"}) if kind == "tokens" else (image_setup, {})
    model, splits, task = setup()
    method = get_method("nabla_tau" if values else "salun")
    splits.forgotten_classes = () if values else (3,)
    monkeypatch.setattr(token_pull, "LEAST_STEPS", PLANNED)
    values |= {"use_cpu": True, "max_steps": steps, "per_device_forget_batch_size": 64}
    trainer = method(model, method.config_class(output_dir=str(tmp_path), **values), splits, task, quiet=True)
    trainer.method_state = {"targets": torch.zeros(1)}
    assert trainer.cut_by() == ("max_steps" if told else None)


def test_cut_runs_without_a_target_for_each_row_are_not_looked_at(tmp_path, short):
    for k, own in enumerate(({"variant": "held"}, {"method": "salun", "variant": "paper", "learning_rate": 1e-3})):
        trainer = make(tmp_path / str(k), max_steps=2, **own)
        trainer.train()
        assert not [note for note in trainer.notes if "their targets" in note]


@pytest.mark.parametrize("epochs, most", [(1, 10), (20, 25), (1000, MOST)])  # 20 · 30 rows are 25 · 24
def test_a_run_is_not_prolonged_beyond_retraining(tmp_path, short, monkeypatch, epochs, most):
    monkeypatch.setattr(row_target_trainer, "FEW_STEPS", 10)
    recipe = KnownRecipe(lambda seed: None, epochs, 1e-3)
    assert make(tmp_path, recipe=recipe).schedule.most_steps == most


@pytest.mark.parametrize("stop", [5, 10, 15])  # before the first look at step 6, between two, and after the last
@pytest.mark.parametrize("method", [{}, {"method": "salun", "saliency": 1.0, "soft_threshold": 0.5}])
def test_a_prolonged_run_resumes_bit_identically(tmp_path, short, stop, method):
    def looks(trainer):
        trainer.stand_above = lambda places: 1.0 if trainer.state.global_step < 10 else 0.0
        return trainer

    whole = looks(make(tmp_path / "whole", **method))
    whole.train()
    assert whole.state.global_step == 18  # 8, 12, 18
    again = looks(make(tmp_path / "whole", **method))
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{stop}"))
    assert again.state.global_step == 18
    for ours, theirs in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert [n for n in again.notes if "prolonged" in n] == [n for n in whole.notes if "prolonged" in n]


def test_a_run_that_is_over_is_not_gone_on_with(tmp_path, short):
    whole = make(tmp_path, 0.0)
    whole.train()
    assert (whole.state.global_step, whole.schedule.most_steps) == (PLANNED, MOST)
    again = make(tmp_path, 0.0)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{PLANNED}"))
    assert again.state.global_step == PLANNED
    for ours, theirs in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


TWO = """
import os, sys
sys.path[:0] = [{tests!r}, {tests!r} + "/trainers"]
import torch
import torch.distributed as dist
from test_prolonging import always_above, make, weights

always_above(setattr)
trainer = make({out!r}, dtype=torch.float64, per_device_train_batch_size=8, per_device_forget_batch_size=4)
trainer.train()
if trainer.args.process_index == 0:
    found = {{"weights": weights(trainer), "above": trainer.method_state[{above!r}]}}
    torch.save(found | {{"steps": trainer.state.global_step}}, {out!r} + "/two.pt")
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""


def always_above(change):
    """Rows that stand anywhere are prolonged for, up to twice the steps that are planned."""
    change(row_target_trainer.RowTargetTrainer, "least_steps", PLANNED)
    change(row_target_trainer, "MOST_TIMES", 2)
    change(prolonging, "ENOUGH", -1e9)


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.slow
def test_two_processes_look_at_the_same_rows_and_go_on_as_long(tmp_path, monkeypatch):
    values = {"tests": str(Path(__file__).parents[1]), "out": str(tmp_path), "above": ABOVE}
    done = processes.run(TWO.format(**values), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    two = torch.load(tmp_path / "two.pt")
    always_above(monkeypatch.setattr)
    one = make(tmp_path / "one", dtype=torch.float64)
    one.train()
    assert one.state.global_step == two["steps"] == 2 * PLANNED
    assert (weights(one) - two["weights"]).abs().max() < 1e-9
    assert float(one.method_state[ABOVE]) == pytest.approx(float(two["above"]), abs=1e-9)
