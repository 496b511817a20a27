"""For the site: links that lead out of docs/ become the path's name, since the site has no such page."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, **_) -> str:
    """`[text](../path)` as `text (path)`. Raises `FileNotFoundError` for a path that does not exist."""
    return OUTSIDE.sub(_named, markdown)


def _named(link: re.Match) -> str:
    path = link[2].removeprefix("../")
    if not (ROOT / path).exists():
        raise FileNotFoundError(f"a page links to ../{path}, which does not exist")
    shown = link[1].strip("`")
    return f"`{path}`" if shown.endswith(path) or path.endswith(shown) else f"{link[1]} (`{path}`)"
