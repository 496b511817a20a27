"""`hf-unlearn cache`: the originals and twins that are kept, and how to get rid of them."""

import os
import shutil
from pathlib import Path

from hf_unlearn.errors import UserError
from hf_unlearn.run.line_parser import LineParser

REMEMBERS = "An original in here still remembers the rows that were forgotten from copies of it."


def cache(argv: list[str] | None = None) -> None:
    """List the entries, or remove some. Raises `UserError` for a name that is none, and for a folder that is none."""
    parser = LineParser(prog="hf-unlearn cache", description="Originals and twins that are kept. " + REMEMBERS)
    parser.add_argument("--cache_dir", help="the folder (default: $HF_UNLEARN_CACHE, or the user's cache folder)")
    parser.add_argument("--clear", nargs="*", metavar="NAME", help="remove these entries; without a name all of them")
    given = parser.parse_args(argv)

    from hf_unlearn.run.recipe_cache import default_cache_dir, entries

    folder = Path(given.cache_dir).expanduser() if given.cache_dir else default_cache_dir()
    if given.cache_dir and not folder.is_dir():
        raise UserError(f"--cache_dir: there is no folder {folder}; name that of the runs, or leave it out")
    found = list(entries(folder))
    if given.clear is not None:
        unknown = set(given.clear) - {entry.folder.name for entry in found}
        if unknown:
            raise UserError(f"--clear {sorted(unknown)[0]}: no such entry in {folder}; hf-unlearn cache lists them")
        found = [entry for entry in found if not given.clear or entry.folder.name in given.clear]
        for entry in found:
            shutil.rmtree(entry.folder)
    for entry in found:
        print(f"{entry.folder.name:<38}{entry.size / 2**20:>10,.1f} MB   {entry.title}")
    total = sum(entry.size for entry in found) / 2**20
    what = "removed from" if given.clear is not None else "in"
    print(f"{len(found)} {'entry' if len(found) == 1 else 'entries'} of {total:,.1f} MB {what} {folder}")
    if found and given.clear is None:
        print(REMEMBERS)
    print(f"Rows as they were read stay in the datasets cache: {datasets_cache()}")


def datasets_cache() -> str:
    """The folder that `datasets` keeps rows in, without seconds of waiting for its import."""
    home = os.environ.get("HF_HOME", os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface"))
    return os.environ.get("HF_DATASETS_CACHE", os.path.join(os.path.expanduser(home), "datasets"))
