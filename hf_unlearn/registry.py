"""Classes by name: the package's own, those that installed packages register, and any other as `module:Class`."""

import difflib
import importlib
import os
import sys
from importlib.metadata import EntryPoint, entry_points

from hf_unlearn.errors import UserError


class Registry:
    """Finds the classes of one kind.

    Args:
        kind: what they are, for messages: `method` or `task`; also the name of the argument.
        own: the package's own, name to `module:Class`. A package cannot take one of these names.
        base: `module:Class` of the class that all of them derive from.

    Other packages register theirs as entry points of the group `hf_unlearn.methods` or `hf_unlearn.tasks`.
    """

    def __init__(self, kind: str, own: dict[str, str], base: str):
        self.kind = kind
        self.own = own
        self.base = base

    def names(self) -> list[str]:
        """Every name that is known, the package's own first."""
        return list(dict.fromkeys([*self.own, *sorted(point.name for point in self._points())]))

    def get(self, name: str | type) -> type:
        """A class by its name, by `module:Class`, or as it is.

        Raises:
            `UserError`: an unknown name, a module or class that cannot be loaded, a class of another kind, or a name
                that two packages register.
        """
        if isinstance(name, type):
            return self._checked(name, name.__qualname__)
        if name in self.own:
            return _load(self.own[name])
        if ":" in name:
            return self._checked(self._named(name), name)
        points = [point for point in self._points() if point.name == name]
        if len({point.value for point in points}) > 1:
            raise UserError(f"`{self.kind}` {name} is registered by two packages; name one as module:Class")
        if points:
            return self._checked(self._loaded(points[0].load, name), name)
        close = difflib.get_close_matches(name, self.names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(self.names())}, or module:Class"
        raise UserError(f"unknown `{self.kind}` '{name}'; {hint}")

    def _points(self) -> list[EntryPoint]:
        return list(entry_points(group=f"hf_unlearn.{self.kind}s"))

    def _named(self, name: str) -> type:
        here = os.getcwd()
        if here not in sys.path:  # a command is started elsewhere; `python` looks in the working folder too
            sys.path.append(here)
        return self._loaded(lambda: _load(name), name)

    def _loaded(self, load, name: str) -> type:
        try:
            return load()
        except Exception as error:  # somebody else's module may raise anything while it is imported
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"`{self.kind}` {name} cannot be loaded: {reason}") from error

    def _checked(self, found: type, name: str) -> type:
        base = _load(self.base)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise UserError(f"`{self.kind}` {name} is no subclass of {base.__name__}")
        return found


def _load(path: str) -> type:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
