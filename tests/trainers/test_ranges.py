"""Numbers that make no sense are refused by the name that Python knows, before a model is looked at."""

import math

import pytest

from hf_unlearn.errors import UserError
from hf_unlearn.methods import METHODS, get_method
from hf_unlearn.trainers.ranges import DECAY, RANGES, SEED, SHARE


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "name, value", [("learning_rate", math.nan), ("weight_decay", -0.1), ("adam_beta1", 1.0), ("seed", 2**32)]
)
def test_every_config_refuses_them(tmp_path, method, name, value):
    with pytest.raises(UserError, match=f"^`{name}` is {value}; "):
        get_method(method).config_class(output_dir=str(tmp_path), **{name: value})


def test_ends_of_ranges():
    assert 0 in DECAY and 1 not in DECAY and 1 in SHARE and 0 not in SHARE and 2**32 - 1 in SEED
    assert math.inf not in RANGES["learning_rate"] and math.nan not in RANGES["weight_decay"]


def test_arguments_without_effect(tmp_path):
    config = get_method("fine_tune").config_class
    with pytest.raises(UserError, match="`dataloader_drop_last` cannot be used here: "):
        config(output_dir=str(tmp_path), dataloader_drop_last=True)
    with pytest.raises(UserError, match="split_batches is without effect here"):
        config(output_dir=str(tmp_path), accelerator_config={"split_batches": True})
