"""What costs minutes and memory is done by the first process of each machine; the others take what it found."""

import os
import platform
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import TypeVar

import torch.distributed as dist

from hf_unlearn.errors import UserError

T = TypeVar("T")


def several_processes() -> bool:
    """Whether this is one of several processes that work together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first_of_machine() -> bool:
    """Whether this process is the first on its machine, as launchers count."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def once_per_machine(make: Callable[[], T]) -> T:
    """What `make` returns in the first process of this machine; what it raises there, all of them raise.

    All processes must call this. What is made goes through pickle.
    """
    if not several_processes():
        return make()
    machine = (platform.node(), os.environ.get("GROUP_RANK", "0"))
    made: tuple[T | None, Exception | None] = (None, None)
    if is_first_of_machine():
        try:
            made = make(), None
        except Exception as error:
            made = None, error
    every: list = [None] * dist.get_world_size()
    dist.all_gather_object(every, (machine, is_first_of_machine(), made), group=_patient())
    errors = [error for _, _, (_, error) in every if error is not None]
    if errors:
        raise errors[0]
    return next(found for where, first, (found, _) in every if where == machine and first)


def fail_together(problem: str | None) -> None:
    """Returns once every process has come here. Raises `UserError` in all of them where one has a problem."""
    if not several_processes():
        every = [problem]
    else:
        every = [None] * dist.get_world_size()
        dist.all_gather_object(every, problem, group=_patient())
    if told := [each for each in every if each is not None]:
        raise UserError(told[0])


@lru_cache(maxsize=1)
def _patient():
    """A group of all processes on the host that waits for days: a million images take longer than a step may."""
    return dist.new_group(backend="gloo", timeout=timedelta(days=7))
