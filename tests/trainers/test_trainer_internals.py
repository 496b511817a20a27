"""The parts of `transformers.Trainer` that are overridden or called here without being promised to anybody.

Checked against transformers 5.19.0 and 5.23.0. If a test fails after an upgrade: read what changed there, mend
the override, and write the release and its parameters here.
"""

import inspect

import pytest
from transformers import Trainer

from hf_unlearn.methods import METHODS, get_method
from hf_unlearn.trainers.base import UnlearningTrainer

CHECKED = ("5.19.0", "5.23.0")
# Overridden: the parameters that the override counts on.
OVERRIDDEN = {
    "__init__": (),
    "_get_grad_norm": ("model", "grad_norm"),
    "_init_training_state": (
        "max_steps",
        "num_update_steps_per_epoch",
        "num_train_epochs",
        "resume_from_checkpoint",
        "trial",
    ),
    "_inner_training_loop": ("batch_size", "args", "resume_from_checkpoint"),
    "_push_from_checkpoint": ("checkpoint_folder",),
    "_save": ("output_dir", "state_dict"),
    "_save_checkpoint": ("model", "trial"),
    "compute_loss": ("model", "inputs", "return_outputs", "num_items_in_batch"),
    "_prepare_input": ("data",),
    "create_optimizer": (),
    "create_scheduler": ("num_training_steps", "optimizer"),
    "evaluate": ("eval_dataset", "ignore_keys", "metric_key_prefix"),
    "get_batch_samples": ("epoch_iterator", "num_batches", "device"),
    "get_decay_parameter_names": ("model",),
    "get_train_dataloader": (),
    "init_hf_repo": ("token",),
    "log": ("logs", "start_time"),
    "push_to_hub": ("commit_message", "blocking", "token", "revision"),
    "save_model": ("output_dir", "_internal_call"),
    "set_initial_training_values": ("args", "dataloader"),
    "train": ("resume_from_checkpoint",),
    "training_step": ("model", "inputs", "num_items_in_batch"),
}
# Called or read.
USED = (
    "_prepare_inputs",
    "add_callback",
    "compute_loss_context_manager",
    "get_optimizer_cls_and_kwargs",
    "is_world_process_zero",
    "remove_callback",
)


def own_names() -> set[str]:
    """Every name of Trainer's that a class of this package defines again."""
    classes = {cls for name in METHODS for cls in get_method(name).__mro__ if cls.__module__.startswith("hf_unlearn.")}
    return {name for cls in classes for name in vars(cls) if callable(getattr(Trainer, name, None))} - {"__doc__"}


def test_every_override_is_named_here():
    assert own_names() == set(OVERRIDDEN)


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_trainer_still_has_what_is_overridden(name):
    parameters = inspect.signature(getattr(Trainer, name)).parameters
    assert set(OVERRIDDEN[name]) <= set(parameters), f"Trainer.{name} has other parameters than in {CHECKED[-1]}"


@pytest.mark.parametrize("name", USED)
def test_trainer_still_has_what_is_used(name):
    assert callable(getattr(Trainer, name))


def test_trainer_still_reads_the_switch_for_scaled_losses():
    assert UnlearningTrainer.loss_is_scaled_for_ga is False
    assert "loss_is_scaled_for_ga" in inspect.getsource(inspect.getmodule(Trainer))


def test_a_step_still_has_the_order_that_masks_count_on():
    """Clip, then the gradient's norm, then the optimizer, then the scheduler."""
    source = inspect.getsource(Trainer)
    places = [
        source.index(word) for word in ("self._get_grad_norm(", "self.optimizer.step()", "self.lr_scheduler.step()")
    ]
    assert places == sorted(places)
