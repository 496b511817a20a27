"""Options of optimizer, schedule and recomputing, which transformers would read only once a training has begun."""

import copy
import inspect
from dataclasses import fields
from typing import Any

from hf_unlearn.errors import UserError, in_one_line


def check_optimizer(trainer: Any) -> None:
    """Raises `UserError` for an optimizer that is not installed, and for `optim_args` that it cannot read or leaves
    unread."""
    from transformers import Trainer

    name, given = getattr(trainer.optim, "value", trainer.optim), trainer.optim_args
    if given and any(part.count("=") != 1 for part in given.split(",")):
        raise UserError(f"--optim_args is '{given}'; give key=value, several with commas between them")
    plain = copy.copy(trainer)
    plain.optim_args = None
    try:
        without = Trainer.get_optimizer_cls_and_kwargs(plain)
    except ImportError as error:
        raise UserError(f"--optim {name}: {in_one_line(error)}") from None
    except ValueError:
        return  # it asks for a model
    try:
        if given and Trainer.get_optimizer_cls_and_kwargs(trainer) == without:
            raise UserError(f"--optim_args is without effect with --optim {name}; leave it out")
    except (ValueError, AttributeError) as error:
        raise UserError(f"--optim_args is '{given}': {in_one_line(error)}") from None


def check_times(trainer: Any) -> None:
    """Raises `UserError` where it is said how often to save or evaluate, and not that it is done at all."""
    defaults = {f.name: f.default for f in fields(type(trainer))}
    for what in ("save", "eval"):
        strategy = getattr(trainer, f"{what}_strategy")
        strategy = getattr(strategy, "value", strategy)
        names = [f"{what}_steps"] if strategy != "steps" else []
        names += ["save_total_limit"] if what == "save" and strategy == "no" else []
        for name in names:
            if getattr(trainer, name) != defaults[name]:
                mend = f"say --{what}_strategy steps, or leave it out"
                raise UserError(f"--{name} is without effect while --{what}_strategy is {strategy}; {mend}")


def check_recomputing(trainer: Any) -> None:
    """Raises `UserError` for `gradient_checkpointing_kwargs` without effect, or that torch does not have."""
    from torch.utils.checkpoint import checkpoint

    given = trainer.gradient_checkpointing_kwargs
    if not given:
        return
    if not trainer.gradient_checkpointing:
        raise UserError(
            "--gradient_checkpointing_kwargs goes with --gradient_checkpointing; add that, or leave it out"
        )
    known = [name for name, p in inspect.signature(checkpoint).parameters.items() if p.kind is p.KEYWORD_ONLY]
    known.append("preserve_rng_state")  # it is taken from among the others
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UserError(f"--gradient_checkpointing_kwargs: torch has no '{unknown[0]}'; it has {', '.join(known)}")


def check_scheduler(name: Any, options: dict | None, prefix: str) -> None:
    """Raises `UserError` for a schedule that is unknown or refuses its options."""
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    try:
        get_scheduler(name, optimizer, 0, 1, scheduler_specific_kwargs=options)
    except (ValueError, TypeError) as error:
        shown = getattr(name, "value", name)
        raise UserError(f"--{prefix}lr_scheduler_type {shown}: {in_one_line(error)}") from None
