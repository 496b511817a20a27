"""Which optimizers a mask can hold: those whose update of a weight depends on that weight and its gradient alone."""

import os

import torch

from hf_unlearn.errors import UserError

# By class name; a subclass may do anything and is not the class.
_TORCH = {"SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop"}
_EIGHT_BIT = {
    f"{paged}{name}{bits}"
    for name, paged_too in {"Adam": 1, "AdamW": 1, "Lion": 1, "SGD": 0, "RMSprop": 0, "Adagrad": 0}.items()
    for paged in ("", "Paged")[: 1 + paged_too]
    for bits in ("", "8bit", "32bit")
}  # bitsandbytes
_REASONS = {
    "Muon": "it orthogonalises whole matrices",
    "Shampoo": "it preconditions whole matrices",
    "SOAP": "it preconditions whole matrices",
    "GaLore": "it projects whole matrices",
    "APOLLO": "it projects whole matrices",
    "Adafactor": "it keeps statistics of rows and columns",
    "LAMB": "it scales a layer's update by the layer's norm",
    "LARS": "it scales a layer's update by the layer's norm",
    "LBFGS": "it mixes the gradients of all weights",
    "ASGD": "it shrinks every weight at every step",
    "SparseAdam": "it takes sparse gradients only",
}


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer itself, out of accelerate's wrapper.

    Raises:
        `UserError`: it is DeepSpeed's.
    """
    while type(optimizer).__module__.startswith("accelerate.") and hasattr(optimizer, "optimizer"):
        _refuse_deepspeed(optimizer)
        optimizer = optimizer.optimizer
    _refuse_deepspeed(optimizer)
    return optimizer


def _refuse_deepspeed(optimizer: torch.optim.Optimizer) -> None:
    kind = f"{type(optimizer).__module__}.{type(optimizer).__name__}".lower()
    # The variable is accelerate's own sign: there DeepSpeed may wrap a plain optimizer only later.
    if "deepspeed" in kind or os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("1", "true"):
        raise UserError("a saliency mask does not work under DeepSpeed; train with DDP or FSDP2 instead")


def check_elementwise(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer that could move a weight whose gradient is 0.

    Raises:
        `UserError`: the optimizer is not elementwise or not known to be, or it is warm: its state (momentum)
            already holds an update for weights outside the mask.
    """
    name = type(optimizer).__name__
    mend = "use `optim` adamw_torch, sgd or another elementwise one"
    if not _is_known(optimizer):
        whole = next((why for part, why in _REASONS.items() if part.lower() in name.lower()), None)
        raise UserError(f"a saliency mask cannot hold optimizer {name}: {whole or 'it is not known here'}; {mend}")
    if getattr(getattr(optimizer, "args", None), "max_unorm", 0):
        raise UserError(f"a saliency mask cannot hold optimizer {name} with max_unorm: it uses a layer's norm; {mend}")
    if any(state and float(state.get("step", 1)) != 0 for state in optimizer.state.values()):
        raise UserError(
            "a saliency mask was put on an optimizer that has taken steps, whose momentum still moves weights outside "
            "the mask; start from a new optimizer"
        )


def decay_is_decoupled(optimizer: torch.optim.Optimizer, group: dict) -> bool:
    """Whether weight decay shrinks the weight (AdamW) rather than being added to its gradient (SGD, Adam)."""
    if type(optimizer).__module__.startswith("bitsandbytes."):
        return "Adam" in type(optimizer).__name__ or "Lion" in type(optimizer).__name__
    return group.get("decoupled_weight_decay", False)


def _is_known(optimizer: torch.optim.Optimizer) -> bool:
    name = type(optimizer).__name__
    if type(optimizer).__module__.startswith("bitsandbytes."):
        return name in _EIGHT_BIT
    return name in _TORCH and type(optimizer) is getattr(torch.optim, name)
