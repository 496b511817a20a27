"""Things by name: the package's own, those that installed packages register, and any other as `module:name`."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hf_unlearn.errors import UserError


class Registry:
    """Finds the classes of one kind, or its functions.

    Args:
        kind: what they are, for messages: `method`, `task`, `metric` or `attack`; also the name of the argument.
        own: the package's own, name to `module:name` or to the thing itself. A package cannot take one of these names.
        base: `module:Class` of the class that all of them derive from; `None` for functions.

    Other packages register theirs as entry points of the group `hf_unlearn.methods`, `hf_unlearn.tasks`,
    `hf_unlearn.metrics` or `hf_unlearn.attacks`.
    """

    def __init__(self, kind: str, own: Mapping[str, Any], base: str | None = None):
        self.kind = kind
        self.own = own
        self.base = base

    def names(self) -> list[str]:
        """Every name that is known, the package's own first."""
        return [*self.own, *self.installed()]

    def installed(self) -> list[str]:
        """Names that other packages bring."""
        return sorted({point.name for point in self._points()} - set(self.own))

    def get(self, name: Any) -> Any:
        """What has a name, stands at `module:name`, or is given as it is.

        Raises:
            `UserError`: an unknown name, what cannot be loaded or is of another kind, or a name that two packages
                register.
        """
        if not isinstance(name, str):
            return self._checked(name, getattr(name, "__qualname__", repr(name)))
        if name in self.own:
            return _load(self.own[name])
        if ":" in name:
            return self._checked(self._named(name), name)
        points = [point for point in self._points() if point.name == name]
        if len({point.value for point in points}) > 1:
            raise UserError(f"`{self.kind}` {name} is registered by two packages; name one as module:{self._what}")
        if points:
            return self._checked(self._loaded(points[0].load, name), name)
        close = difflib.get_close_matches(name, self.names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(self.names())}, or module:{self._what}"
        raise UserError(f"unknown `{self.kind}` '{name}'; {hint}")

    @property
    def _what(self) -> str:
        return "function" if self.base is None else "Class"

    def _points(self) -> tuple[EntryPoint, ...]:
        return _entry_points(f"hf_unlearn.{self.kind}s", tuple(sys.path))

    def _named(self, name: str) -> Any:
        here = os.getcwd()
        if here not in sys.path:  # a command is started elsewhere; `python` looks in the working folder too
            sys.path.append(here)
        return self._loaded(lambda: _load(name), name)

    def _loaded(self, load: Callable[[], Any], name: str) -> Any:
        try:
            return load()
        except Exception as error:  # somebody else's module may raise anything while it is imported
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"`{self.kind}` {name} cannot be loaded: {reason}") from error

    def _checked(self, found: Any, name: str) -> Any:
        if self.base is None:
            if isinstance(found, type) or not callable(found):
                raise UserError(f"`{self.kind}` {name} is no function")
            return found
        base = _load(self.base)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise UserError(f"`{self.kind}` {name} is no subclass of {base.__name__}")
        return found


@lru_cache(maxsize=64)
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of a group, looked for once on the same path: that takes a look into every installed package."""
    return tuple(entry_points(group=group))


def _load(place: Any) -> Any:
    if not isinstance(place, str):
        return place
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
