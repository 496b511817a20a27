"""What a step asks of the device while it is at work: each such question waits for all that was queued before it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy import SETUPS
from transformers import TrainerCallback

from hf_unlearn.methods import get_method

WAITS = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal",
    "aten::_unique2", "aten::unique_dim", "aten::bincount",
}  # fmt: skip
STEP = 3  # one in which no target is measured again


class Waits(TorchDispatchMode):
    """Counts operations whose result the host must know: numbers, and sizes that depend on values."""

    found = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        places = args[1] if name.startswith("aten::index") and isinstance(args[1], (list, tuple)) else ()
        by_mask = any(torch.is_tensor(place) and place.dtype == torch.bool for place in places)
        self.found += name in WAITS or by_mask
        return function(*args, **(kwargs or {}))


class OneStep(TrainerCallback):
    """Counts in a single step."""

    def __init__(self):
        self.waits = Waits()

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == STEP:
            self.waits.__enter__()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == STEP + 1:
            self.waits.__exit__(None, None, None)


@pytest.mark.parametrize(
    "method, kind, options",
    [
        ("nabla_tau", "image", {"proxy_epochs": 1}),
        ("nabla_tau", "text", {"proxy_epochs": 1}),
        ("nabla_tau", "lm", {"proxy_epochs": 1, "variant": "tokens"}),
        ("salun", "image", {"proxy_epochs": 1, "saliency": 1.0}),
        ("bad_teacher", "image", {}),
        ("npo", "lm", {}),
    ],
)
def test_a_step_waits_once_for_the_check_that_it_is_finite(tmp_path, method, kind, options):
    model, splits, task = SETUPS[kind]()
    method = get_method(method)
    args = method.config_class(
        output_dir=str(tmp_path), max_steps=16, learning_rate=1e-3, use_cpu=True, disable_tqdm=True,
        logging_strategy="no", per_device_train_batch_size=8, **options,
    )  # fmt: skip
    step = OneStep()
    method(model, args, splits, task, quiet=True, callbacks=[step]).train()
    inside = Waits()
    with inside:  # transformers looks whether a mask hides anything
        batch = task.collate(splits.forget.__getitems__(range(8)))
        task.predict(model, batch | task.host_facts(batch))
    assert step.waits.found == 1 + inside.found


def test_a_boolean_index_counts_as_a_wait():
    with Waits() as waits:
        values = torch.arange(4)
        values[values > 1]
        values[torch.tensor([0, 1])]
        values.sum().item()
    assert waits.found == 2
