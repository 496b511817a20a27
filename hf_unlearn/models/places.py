"""Where a model may lie, told from its name and the file system alone."""

from pathlib import Path

from hf_unlearn.errors import UserError


def check_place(name: str) -> None:
    """Raises `UserError` for a name that can only be a folder, and is none: the Hub would call it no repository."""
    path = Path(name).expanduser()
    if path.is_file():
        raise UserError(f"{name} is a file; name the folder of a model")
    if name.startswith((".", "/", "~")) and not path.is_dir():
        raise UserError(f"there is no folder {name}; name one, or a model on the Hub")
