"""Each trainer has its arguments to itself: it fills in what they leave open, for its own model and rows."""

import copy
import inspect
from typing import Any

from transformers import TrainingArguments


class OwnArguments(type):
    """Makes trainers on a shallow copy of their `TrainingArguments`.

    Methods write resolved values into `args` before `Trainer` has them. Without the copy a second trainer that is made
    from the same config would take the first one's rate and batches for the user's.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*map(_own, args), **{name: _own(value) for name, value in kwargs.items()})

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of `__init__`: the one above says nothing to a reader."""
        found = inspect.signature(cls.__init__)  # type: ignore[misc]
        return found.replace(parameters=list(found.parameters.values())[1:])


def _own(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, TrainingArguments) else value
