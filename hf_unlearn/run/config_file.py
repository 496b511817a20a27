"""A YAML file of defaults: its values are checked and typed as if they had been typed on the command line."""

import argparse
import json
from pathlib import Path
from typing import Any

from hf_unlearn.errors import UserError
from hf_unlearn.exits import nearest

RECIPE = "original"  # the block whose keys are those of the recipe, without their prefix
KINDS = {"int": "whole number", "float": "number", "string_to_bool": "true or false"}


def read_config(path: str) -> dict[str, Any]:
    """Keys and values of a file, the block `original` with its prefix.

    Raises `UserError` for a file that is missing or no YAML, for a key that stands there twice, and for `config`.
    """
    import yaml

    try:
        values = yaml.load(Path(path).expanduser().read_text(encoding="utf-8"), _unique_keys(yaml.SafeLoader))
    except (OSError, ValueError) as error:
        reason = "it is no text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None)
        raise UserError(f"--config {path} cannot be read: {reason or error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"--config {path} is not valid YAML{_line_of(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"--config {path} holds no lines of the form key: value")
    original = values.pop(RECIPE, None) or {}
    if not isinstance(original, dict):
        raise UserError(f"--config {path}: '{RECIPE}' must be a block of keys")
    values = {str(key): value for key, value in values.items()}
    inner = {f"{RECIPE}_{key}": value for key, value in original.items()}
    if twice := sorted(values.keys() & inner.keys()):
        key = twice[0].removeprefix(f"{RECIPE}_")
        raise UserError(f"--config {path}: '{twice[0]}' and '{key}' of the block '{RECIPE}' are the same; keep one")
    if "config" in values:
        raise UserError(f"--config {path}: a file cannot name another one; leave 'config' out")
    return values | inner


def set_defaults(parser: argparse.ArgumentParser, values: dict[str, Any], path: str) -> None:
    """The values of a file as the parser's defaults. Raises `UserError` for an unknown key and for a wrong value."""
    known = {action.dest for action in parser._actions} - {"help_all"}
    for key in values:
        if key not in known:
            raise UserError(_unknown(path, key, known))
    done = set()
    for action in parser._actions:  # `--no_x` shares the name of `--x`, which comes first
        key = action.dest
        if key in done or values.get(key) is None:  # an empty value leaves the default
            continue
        done.add(key)
        value = values[key]
        if isinstance(value, list) and action.nargs not in ("+", "*"):
            raise UserError(f"{path}: '{key}' takes one value, not a list")
        items = [_typed(item, action, path) for item in (value if isinstance(value, list) else [value])]
        if not items:
            raise UserError(f"{path}: '{key}' is an empty list; leave the key out")
        parser.set_defaults(**{key: items if action.nargs in ("+", "*") else items[0]})
        action.required = False


def _typed(value: Any, action: argparse.Action, path: str) -> Any:
    if value is False and action.dest.endswith("_strategy"):
        value = "no"  # an unquoted `no` is a boolean in YAML
    text = json.dumps(value, default=str) if isinstance(value, (dict, list)) else str(value)
    kind = getattr(action.type, "__name__", "value")
    try:
        if isinstance(value, (dict, list)) and kind in KINDS:
            raise TypeError
        typed = action.type(text) if callable(action.type) else value
    except (TypeError, ValueError, argparse.ArgumentTypeError):
        raise UserError(f"{path}: the value of '{action.dest}' is no {KINDS.get(kind, 'valid ' + kind)}") from None
    if action.choices and typed not in action.choices:
        raise UserError(f"{path}: '{action.dest}: {text}' is not one of {', '.join(map(str, action.choices))}")
    return typed


def _unknown(path: str, key: str, known: set[str]) -> str:
    prefix = f"{RECIPE}_"
    if not key.startswith(prefix):
        return f"{path}: unknown key '{key}'{nearest(key, known)}"
    inner = {name.removeprefix(prefix) for name in known if name.startswith(prefix)}
    key = key.removeprefix(prefix)
    return f"{path}: unknown key '{key}' in the recipe ({RECIPE}){nearest(key, inner)}"


def _unique_keys(loader: type) -> type:
    """The YAML loader that refuses a key which stands twice in a block: the later one would win in silence."""
    import yaml

    class UniqueKeys(loader):
        def construct_mapping(self, node, deep=False):
            seen = set()
            for key, _ in node.value:
                if key.tag != "tag:yaml.org,2002:merge" and key.value in seen and isinstance(key.value, str):
                    raise yaml.constructor.ConstructorError(
                        None, None, f"'{key.value}' stands there twice", key.start_mark
                    )
                seen.add(key.value if isinstance(key.value, str) else id(key))
            return super().construct_mapping(node, deep)

    return UniqueKeys


def _line_of(error) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1}: {error.problem})" if mark else ""
