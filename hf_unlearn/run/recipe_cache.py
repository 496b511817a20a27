"""Where originals and twins are kept: an entry is found by everything that shaped its model, and trusted by checksums.

An original in here still remembers the rows that are forgotten later: `hf-unlearn cache` lists and removes entries.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_unlearn.exits import no_room
from hf_unlearn.models.chat_model import KEPT
from hf_unlearn.models.checksums import digests, file_digest, find_damaged
from hf_unlearn.progress import say

if TYPE_CHECKING:  # `hf-unlearn cache` reads this module, and waits for no torch
    from hf_unlearn.data.rows import Rows
    from hf_unlearn.tasks.base import Task

MADE = "made.json"
PARTIAL = "writing-"  # how the names of entries begin that are being written, or were left by a killed run
SHADOWS = "lira-"
OWN = ("hf_unlearn", "hf_unlearn_diffusion")
PACKAGES = ("torch", "transformers", "accelerate", "hf_unlearn")
ALSO = {"use_peft": "peft"}  # by the field of a recipe that has it train the model


def default_cache_dir() -> Path:
    """`$HF_UNLEARN_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HF_UNLEARN_CACHE") or Path(base) / "hf_unlearn")


def entry_key(recipe: Mapping[str, Any], task: "Task", rows: "Rows", seed: int, **more: Any) -> str:
    """Hash of everything that shapes a model made by a recipe.

    The rows count as the model gets them, encoded: columns, templates, tokenizer and longest input are all in that. A
    base counts by its content, or on the Hub by its commit, not by how its name was typed.

    Args:
        recipe: its fields; `model` is the base.
        rows: in the order of training.
        more: whatever else matters: how models are loaded, the device.
    """
    from hf_unlearn.data.content import features_digest

    base = recipe.get("model")
    parts = {
        "recipe": dict(recipe) | {"model": base and base_identity(base)},
        "task": [task.name, task.label_names, processor_text(task.processor)],
        "rows": features_digest(rows),
        "seed": seed,
        "versions": versions(recipe, task),
        "processes": os.environ.get("WORLD_SIZE", "1"),
        **more,
    }
    if code := outside_code(type(task)):
        parts["code"] = code
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def versions(recipe: Mapping[str, Any], task: "Task") -> dict[str, str]:
    """Of the packages that make a task's models by such a recipe."""
    also = [package for field, package in ALSO.items() if recipe.get(field)] + _packages_of(task)
    return {name: importlib.metadata.version(name) for name in (*PACKAGES, *also)}


def _packages_of(task: "Task") -> list[str]:
    """Installed packages of the modules that a task needs beside the core's: they make its models."""
    by_module = importlib.metadata.packages_distributions() if task.needs else {}
    return sorted({package for module in task.needs for package in by_module.get(module.partition(".")[0], [])})


def processor_text(processor: Any) -> str:
    """Everything that a tokenizer or image processor does to a row or a batch, as text."""
    parts = [type(processor).__name__, getattr(processor, "chat_template", None)]
    if hasattr(processor, "backend_tokenizer"):
        parts += [processor.backend_tokenizer.to_str(), processor.padding_side, processor.special_tokens_map]
    elif hasattr(processor, "to_json_string"):
        parts.append(processor.to_json_string())
    return json.dumps(parts, sort_keys=True, default=str)


def outside_code(*classes: type) -> dict[str, str]:
    """By module a hash of the files that bring classes of others, which no version above speaks for. Nothing of this
    package's own."""
    modules = {module: sys.modules.get(module) for module in sorted({each.__module__ for each in classes})}
    files = {name: getattr(module, "__file__", None) for name, module in modules.items()}
    own = tuple(f"{package}." for package in OWN)
    return {name: file_digest(Path(file)) for name, file in files.items() if file and not name.startswith(own)}


def base_identity(name: str) -> str:
    """What a base is, whatever it is called: a hash of the folder's files, or a Hub id with its commit."""
    folder = Path(name)
    if folder.is_dir():
        inside = folder.resolve()
        parts = (folder / "model_index.json").is_file()  # a pipeline of diffusers has its weights in folders
        files = sorted(path for path in (inside.rglob("*") if parts else inside.iterdir()) if path.is_file())
        named = [[str(path.relative_to(inside)), file_digest(path)] for path in files]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()
    from transformers.utils.hub import cached_file, extract_commit_hash

    try:
        return f"{name}@{extract_commit_hash(cached_file(name, 'config.json'), None)}"
    except (OSError, ValueError):  # it is refused where it is loaded
        return name


def read_entry(folder: Path) -> dict[str, Any] | None:
    """What `made.json` says of a whole entry. `None` where there is none; a damaged one is told of in a line."""
    if not folder.is_dir():
        return None
    try:
        made = json.loads((folder / MADE).read_text(encoding="utf-8"))
        whole = find_damaged(folder, made["files"]) is None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        whole = False
    if whole:
        return made
    say(f"the cache entry {folder} is damaged: its model is made again")
    return None


def keep_entry(folder: Path, model, task: "Task", made: dict[str, Any]) -> None:
    """Write beside the cache and rename, so that a run that is cut off leaves no half entry. A damaged entry is
    replaced; where nothing can be written the model is used all the same, and a line says so."""
    scratch = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=PARTIAL))
        task.save_model(model, scratch)
        made = {**made, "files": digests(scratch)}
        (scratch / MADE).write_text(json.dumps(made), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    except Exception as error:  # safetensors and tokenizers wrap the system's own
        reason = no_room(error) or getattr(error, "strerror", None)
        if reason is None:
            raise
        say(f"not kept in the cache {folder.parent} ({reason}): it is made again the next time")
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


@dataclass
class Entry:
    """One folder of the cache."""

    folder: Path
    size: int  # bytes
    title: str


def entries(cache: Path) -> Iterator[Entry]:
    """What this package has put into a cache folder, by name; nothing else that lies there."""
    for folder in sorted(cache.iterdir()) if cache.is_dir() else ():
        if not folder.is_dir():
            continue
        if folder.name.startswith(SHADOWS):
            title = "U-LiRA: what shadow models made of rows"
        elif folder.name.startswith(PARTIAL):
            title = "left by a run that was cut off"
        elif (folder / MADE).is_file():
            title = _title(folder)
        elif folder.name == KEPT and (folder / "config.json").is_file():
            title = "the demo's chat model, which knows none of your rows"
        else:
            continue
        yield Entry(folder, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), title)


def _title(folder: Path) -> str:
    try:
        made = json.loads((folder / MADE).read_text(encoding="utf-8"))
        recipe = made["recipe"]
        return f"{recipe['model'] or recipe['model_type']} on {made['rows']:,} rows, seed {made['seed']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"
