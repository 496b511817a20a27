"""A run that ends with a damaged model is set back to its last sound state, and says so."""

import numpy as np
import pytest
import torch
from toy import image_setup, lm_setup, sets_setup

from hf_unlearn.methods import get_method
from hf_unlearn.models import lora
from hf_unlearn.trainers import row_target_trainer
from hf_unlearn.trainers.restoring import AT, KEPT, LOSSES, RIGHT

STEPS = 16
CHECKS = [0, 4, 8, 12, 14]
SOUND, BROKEN = (np.full(12, 0.5), np.ones(12, dtype=bool)), (np.full(12, 3.0), np.arange(12) < 6)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(row_target_trainer.RowTargetTrainer, "least_steps", STEPS)


def make(folder, breaks_after=None, method="nabla_tau", adapter=False, looks=None, **more):
    """A trainer whose validation rows say `SOUND` up to this step and `BROKEN` from then on."""
    model, splits, task = image_setup()
    if adapter:
        model = lora.add_lora(model, r=2, alpha=4, dropout=0.0, task_type=None)
    values = {"proxy_epochs": 1, "learning_rate": 1e-3, "num_train_epochs": 1, "max_steps": STEPS}
    values |= {"use_cpu": True, "disable_tqdm": True, "report_to": [], "logging_steps": 1}
    kind = get_method(method)
    trainer = kind(model, kind.config_class(output_dir=str(folder), **(values | more)), splits, task, quiet=True)

    def look():
        step = trainer.state.global_step
        if looks is not None:
            looks.append((step, weights(trainer)))
        return SOUND if breaks_after is None or step <= breaks_after else BROKEN

    trainer.look_at_validation = look
    return trainer


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])


@pytest.mark.parametrize("method", ["nabla_tau", "salun"])
@pytest.mark.parametrize("breaks_after, back_to", [(15, 14), (9, 8), (0, 0), (None, None)])
def test_the_last_sound_state_comes_back(tmp_path, method, breaks_after, back_to):
    looks = []
    trainer = make(tmp_path, breaks_after, method, looks=looks)
    trainer.train()
    assert [step for step, _ in looks] == [*CHECKS, STEPS]
    notes = [note for note in trainer.notes if "set back" in note]
    logged = [entry["set_back_to_step"] for entry in trainer.state.log_history if "set_back_to_step" in entry]
    found = dict(looks)
    assert not torch.equal(found[14], found[STEPS])
    if back_to is None:
        assert torch.equal(weights(trainer), found[STEPS]) and not notes and not logged
    else:
        assert torch.equal(weights(trainer), found[back_to]) and logged == [back_to]
        assert "50 % right at the end, for 100 %" in notes[0]
        assert ("nothing is forgotten" if back_to == 0 else f"step {back_to} of 16") in notes[0]
    assert not any(key.startswith(KEPT) for key in trainer.method_state)  # nobody needs the copy any more


def test_of_two_trainings_the_notes_are_those_of_the_last(tmp_path):
    trainer = make(tmp_path, 9)
    for _ in range(2):
        trainer.train()
        assert len([note for note in trainer.notes if "set back" in note]) == 1
        assert len([note for note in trainer.notes if "Targets come from" in note]) == 1
    trainer.look_at_validation = lambda: SOUND
    trainer.train()
    assert not [note for note in trainer.notes if "set back" in note]


def test_of_an_adapter_the_adapter_alone_is_kept(tmp_path):
    trainer = make(tmp_path, 0, adapter=True)
    size = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert trainer.kept_bytes() == 4 * size < 0.2 * 4 * sum(p.numel() for p in trainer.model.parameters())
    before = weights(trainer)
    trainer._measure_targets = trainer.note_state  # keeps the copy where it can be looked at
    trainer.method_state = {}
    trainer.note_state()
    assert sum(value.numel() for key, value in trainer.method_state.items() if key.startswith(KEPT)) == size
    trainer = make(tmp_path, 0, adapter=True)
    trainer.train()
    assert torch.equal(weights(trainer), before)


@pytest.mark.parametrize("stop", [6, STEPS])
def test_a_run_that_goes_on_from_a_checkpoint_goes_back_as_far(tmp_path, stop):
    options = {"save_strategy": "steps", "save_steps": 2, "looks": []}
    whole = make(tmp_path / "whole", 5, **options)
    whole.train()
    again = make(tmp_path / "whole", 5, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{stop}"))
    assert torch.equal(weights(again), weights(whole)) and torch.equal(weights(whole), dict(options["looks"])[4])


def test_what_is_damage(tmp_path):
    """More than five points of accuracy beyond what fewer training rows cost, and losses that are clearly higher."""
    trainer = make(tmp_path)
    losses, right = np.linspace(0.1, 0.9, 100), np.arange(100) < 80
    trainer.method_state = {LOSSES: torch.tensor(losses), RIGHT: torch.tensor(right)}
    fewer = np.arange(100) < 67
    assert len(trainer.splits.forget) / len(trainer.splits.retain) == pytest.approx(11 / 30)
    # 11 of 41 rows fewer: errors may rise from 20 to 27.3 %, losses by 37 %, and five points more are nobody's fault.
    assert trainer._damaged(losses * 2, fewer)
    assert not trainer._damaged(losses * 2, np.arange(100) < 68)
    assert not trainer._damaged(losses * 1.3, fewer)
    assert not trainer._damaged(losses / 2, fewer)
    trainer.splits.forget = trainer.splits.forget.select([0])  # a 31st of the rows
    assert trainer._damaged(losses * 1.3, np.arange(100) < 74)
    assert not trainer._damaged(losses * 1.3, np.arange(100) < 75)


def test_better_states_set_the_mark(tmp_path):
    """Wrong labels that go make validation better: then what was sound at first is damage."""
    trainer = make(tmp_path)
    trainer.method_state = {}
    for step, state in enumerate((BROKEN, SOUND, BROKEN)):
        trainer.state.global_step, trainer.look_at_validation = step, lambda state=state: state
        trainer.note_state()
    assert int(trainer.method_state[AT]) == 1
    assert torch.equal(trainer.method_state[LOSSES], torch.tensor(SOUND[0]))


def test_a_rate_that_breaks_the_model_is_noticed(tmp_path):
    """Nothing is pretended here: a model that learned to tell dark images from light ones, and a rate far too high."""
    model, splits, task = bright_setup()
    kind = get_method("nabla_tau")
    options = {"output_dir": str(tmp_path), "use_cpu": True, "disable_tqdm": True, "report_to": []}
    args = kind.config_class(**options, proxy_epochs=1, max_steps=STEPS, learning_rate=0.3)
    trainer = kind(model, args, splits, task, quiet=True)
    before = trainer.score(splits.test).accuracy
    trainer.train()
    assert before > 0.95 and trainer.score(splits.test).accuracy > before - 0.05
    assert any("set back" in note for note in trainer.notes)


def bright_setup():
    """Four classes of images, each brighter than the one before, and a model that knows them."""
    import datasets
    from toy import image_task, splits_of, vit

    rng, task = np.random.default_rng(0), image_task()
    roles = {"forget": 8, "retain": 72, "validation_tau": 60, "validation_stop": 8, "test": 60}
    labels = np.arange(sum(roles.values())) % 4
    images = (5 * labels[:, None, None] + rng.integers(0, 3, (len(labels), 8, 8))).astype(np.uint8)
    source = datasets.Dataset.from_dict({"image": images.tolist(), "label": labels.tolist()})
    model, splits = vit(), splits_of(source, task, roles)
    rows = task.collate(splits.retain.__getitems__(range(72)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        task.predict(model.train(), rows).loss.mean().backward()
        optimizer.step()
    return model.eval(), splits, task


def test_what_is_right_where_rows_have_no_single_class(tmp_path):
    sets = looking(tmp_path / "sets", sets_setup)
    _, right = sets.look_at_validation()
    assert right.tolist() == sets.score(sets.calibration_rows).correct.tolist()  # every label of the set
    lm = looking(tmp_path / "lm", lm_setup)
    losses, right = lm.look_at_validation()
    scores = lm.score(lm.calibration_rows)
    assert np.allclose(losses, scores.loss)
    likely = lm.look(lm.calibration_rows, lm.model).by_token
    assert right[0] == np.mean(likely.values[: likely.count[0]] > 0) and len(right) == len(scores.loss)


def looking(folder, setup):
    model, splits, task = setup(torch.float64)
    kind = get_method("nabla_tau")
    args = kind.config_class(output_dir=str(folder), use_cpu=True, variant="rows", proxy_epochs=1)
    return kind(model, args, splits, task, quiet=True)
