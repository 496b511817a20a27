"""The JSON schema of `evidence.json`, made from the types of its blocks, and the check of a file against it.

`evidence.schema.json` beside this file holds it for other programs: what [`text`] gives.
"""

import json
import types
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from hf_unlearn.report.blocks import Evidence, Items

PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


@lru_cache(maxsize=4)
def schema(kind: Any = Evidence) -> dict[str, Any]:
    """The schema of a `TypedDict`, in the terms of JSON Schema 2020-12."""
    definitions: dict[str, Any] = {}
    top = _of(kind, definitions)
    name = f"{kind.__name__.lower()}.json of hf_unlearn"
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name}
    return {**head, **top, "$defs": dict(sorted(definitions.items()))}


def text() -> str:
    """The schema as it stands in `evidence.schema.json`."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def problems(content: Any, kind: Any = Evidence) -> list[str]:
    """What is wrong with `content`, a few words for each place, as `gap.average is missing`; empty if nothing is.
    `kind`: the `TypedDict` that it should be."""
    from jsonschema import Draft202012Validator

    found = [text for error in Draft202012Validator(schema(kind)).iter_errors(content) for text in _words(error)]
    return sorted(set(found))


def _of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; those of `TypedDict`s are collected by name."""
    if kind is Any:
        return {}
    if is_typeddict(kind):
        if kind.__name__ not in definitions:
            hints = get_type_hints(kind, include_extras=True)
            definitions[kind.__name__] = {
                "description": " ".join((kind.__doc__ or "").split()),
                "type": "object",
                "properties": {name: _of(hint, definitions) for name, hint in hints.items()},
                "required": [name for name in hints if name in kind.__required_keys__],
            }
        return {"$ref": f"#/$defs/{kind.__name__}"}
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        counts = [part.count for part in parts[1:] if isinstance(part, Items)]
        return _of(parts[0], definitions) | {"minItems": counts[0], "maxItems": counts[0]}
    if origin in (Union, types.UnionType):
        return _any_of([_of(part, definitions) for part in parts])
    if origin is list:
        return {"type": "array", "items": _of(parts[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(parts[1], definitions)}
    return {"type": PLAIN[kind]}


def _any_of(choices: list[dict[str, Any]]) -> dict[str, Any]:
    if all(set(choice) == {"type"} for choice in choices):
        return {"type": [choice["type"] for choice in choices]}
    return {"anyOf": choices}


def _words(error: Any) -> Iterator[str]:
    """One error of the validator, or where it says that no choice fits, those of the choice that is no null."""
    if error.validator == "anyOf":
        null = error.validator_value.index({"type": "null"})
        for inner in error.context:
            if inner.schema_path[0] != null:
                yield from _words(inner)
        return
    place = ".".join(map(str, error.absolute_path))
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        yield from (f"{place}.{name} is missing".removeprefix(".") for name in missing)
    elif error.validator == "type":
        wanted = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        yield f"{place or 'the file'} is {_shown(error.instance)}, not {' or '.join(wanted)}"
    else:
        yield f"{place} has {len(error.instance)} items, not {error.validator_value}"


def _shown(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Mapping | list):
        return "an object" if isinstance(value, Mapping) else "an array"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 20 else f"{text[:19]}…"
