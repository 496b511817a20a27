"""Paths of this machine and the user's name, which must be in nothing that leaves it."""

import getpass
import html
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from hf_unlearn.errors import UserError

_URL = re.compile(r"\bhttps?://[^\s\"'<>)\]]+|\bdata:[\w/+.-]+;base64,[A-Za-z0-9+/=]+")
# An absolute path: neither the end of a relative one nor of a tag.
_PATH = re.compile(r"(?<![\w.</\\])(?:~\w*|[A-Za-z]:)?[/\\][^\s\"'<>|)\]},;]+")


def check_text(path: Path, name: str, output_dir: Path) -> None:
    """Raises `UserError` if a text file holds a path of this machine, or the user's name as a part of any path.

    In JSON every string that is an absolute path is one. Other texts are searched for the output folder, for what lies
    below the home, working and temporary folders, and for absolute paths with the user's name in them. Nothing found
    is quoted.
    """
    try:
        text = path.read_text(encoding="utf-8")
        strings = list(_strings(json.loads(text))) if path.suffix == ".json" else [text]
    except ValueError:
        raise UserError(f"{name} in {output_dir} cannot be read as text or JSON; mend it and push again") from None
    if (path.suffix == ".json" and any(map(is_absolute, strings))) or _is_private("\n".join(strings), output_dir):
        raise UserError(f"{name} in {output_dir} names a path of this machine or its user; take it out and push again")


def _is_private(text: str, output_dir: Path) -> bool:
    text = _URL.sub(" ", html.unescape(text).replace("\\/", "/"))
    text = re.sub("//+", "/", text)
    ends = [rf"{re.escape(str(folder))}(?![\w-])" for folder in _spellings(Path(output_dir))]
    ends += [rf"{re.escape(folder)}[/\\]" for folder in private_folders()]
    if re.search(rf"(?<![\w.</\\])(?:{'|'.join(ends)})", text):
        return True
    user = user_name()
    return any(user in re.split(r"[/\\]", found) for found in _PATH.findall(text))


def private_folders() -> list[str]:
    """Home, working and temporary folder; never the root."""
    folders = set().union(*map(_spellings, (Path.home(), Path.cwd(), Path(tempfile.gettempdir()))))
    return sorted(folder for folder in folders if Path(folder) != Path(folder).parent)


def _spellings(folder: Path) -> set[str]:
    """A folder's absolute name, with links and without."""
    return {str(folder.absolute()), str(folder.resolve())}


def user_name() -> str | None:
    """The name of who runs this, or `None` where the machine does not say."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None


def is_absolute(text: str) -> bool:
    """Whether a whole string is a path from the root, of any system and of at least two parts."""
    return re.fullmatch(r"(?:~\w*|[A-Za-z]:)?(?:[/\\][^\s/\\]+){2}[^\n]*", text) is not None


def is_local_name(name: Any, output_dir: Path) -> bool:
    """Whether a model's name is that of a folder: no Hub id by its form, or there, seen from here or `output_dir`."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        return True
    output = Path(output_dir).resolve()
    return any(os.path.exists(folder / name) for folder in (Path.cwd(), output, *output.parents))


def _strings(value: Any):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
