"""The example in each public trainer's docstring makes a trainer."""

import inspect
import re

import pytest
from toy import SETUPS

import hf_unlearn
from hf_unlearn.errors import UserError
from hf_unlearn.methods import METHODS, get_method

BASES = [hf_unlearn.UnlearningTrainer, hf_unlearn.RowTargetTrainer, hf_unlearn.EditTrainer]
TRAINERS = [*BASES, hf_unlearn.ForgetRetainTrainer, *map(get_method, METHODS)]


def served_case(trainer_class):
    for setup in SETUPS.values():
        model, splits, task = setup()
        try:
            trainer_class.check_task(task)
        except UserError:
            continue
        splits.forgotten_classes = (0,) if task.has_classes else ()
        return {"model": model, "splits": splits, "task": task}
    raise AssertionError(f"{trainer_class.__name__} serves no task")


@pytest.mark.parametrize("trainer_class", TRAINERS, ids=lambda trainer_class: trainer_class.__name__)
def test_the_example_of_a_trainer_makes_one(trainer_class, tmp_path, monkeypatch):
    made = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hf_unlearn.UnlearningTrainer, "train", lambda self: made.append(self))
    _, example = re.split(r"^Example:$", inspect.getdoc(trainer_class), flags=re.M)
    names = vars(inspect.getmodule(trainer_class)) | vars(inspect.getmodule(trainer_class.config_class))
    exec(inspect.cleandoc(example), names | served_case(trainer_class))
    assert len(made) == 1 and isinstance(made[0], trainer_class)


def test_splits_from_data_sets_that_are_divided_already():
    _, splits, task = SETUPS["image"]()
    rows = splits.forget.source
    parts = {"forget": range(6), "retain": range(6, 30), "validation": range(30, 41), "test": range(41, 60)}
    found = hf_unlearn.UnlearningSplits.from_datasets(task, **{name: rows.select(at) for name, at in parts.items()})
    assert found.sizes() == {"forget": 6, "retain": 24, "validation_tau": 6, "validation_stop": 5, "test": 19}
    halves = (found.validation_tau.indices, found.validation_stop.indices)
    assert sorted([*halves[0], *halves[1]]) == list(range(11)) and found.nonmembers is found.test
    again = hf_unlearn.UnlearningSplits.from_datasets(task, **{name: rows.select(at) for name, at in parts.items()})
    assert again.validation_tau.indices == halves[0] and found.forget[2]["labels"] == rows[2]["label"]
    with pytest.raises(UserError, match="`validation` has 1 row"):
        hf_unlearn.UnlearningSplits.from_datasets(
            task, **{name: rows.select(at) for name, at in (parts | {"validation": [1]}).items()}
        )
