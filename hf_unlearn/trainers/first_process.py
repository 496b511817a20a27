"""What all processes of a run must agree on is found by the first of them."""

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def from_first_process(find: Callable[[], T]) -> T:
    """What `find` returns in the first process; the others wait for it and do not call theirs. All must call this.

    What is found goes through pickle. Outside of `torch.distributed` it is `find()`.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return find()
    shared = [find() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(shared)
    return shared[0]  # type: ignore[return-value]
