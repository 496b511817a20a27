"""What of a finished output folder may leave this machine: a list of names, copied into a folder of its own.

Not on it are checkpoints, masks, noise, optimizer and RNG states, pickles, and whatever nobody thought of.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_unlearn.errors import UserError
from hf_unlearn.hub.private_paths import check_text, is_local_name
from hf_unlearn.progress import say
from hf_unlearn.report.blocks import Evidence, Request
from hf_unlearn.report.card import ADAPTER_LIMIT, adapter_limits, came_with_adapter, render_card, task_of
from hf_unlearn.report.drawn import DRAWN
from hf_unlearn.report.evidence import EVIDENCE, read_evidence
from hf_unlearn.report.picture import PICTURE

if TYPE_CHECKING:
    from hf_unlearn.tasks.base import Task

WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
CONFIGS = ("config.json", "generation_config.json")
PROCESSOR = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
DOCUMENTS = ("README.md", "evidence.json", "report.html", PICTURE, DRAWN, "LICENSE")
VOCABULARY = {"added_tokens.json", "tokenizer.json", "vocab.json"}  # words, not paths: may hold anything
REQUEST = set(Request.__annotations__)  # what may be public of it
REMOVED_CLASSES = "removed_classes.json"  # their ids, beside the model; stays here
LOADING_STATE = ("is_local", "local_files_only")  # how this machine loaded a tokenizer


def stage(output_dir: str | os.PathLike, destination: str | os.PathLike, *, push_adapter: bool = False) -> list[str]:
    """Copy what may leave this machine from a finished output folder into `destination`.

    Whole (or merged) weights go where there are some, else the adapter. Names of local folders are taken out of the
    configurations, and so are names of removed classes unless the request is published.

    Args:
        push_adapter: also where switching the adapter off gives the forgotten rows back.

    Returns the names of the staged files, sorted.

    Raises `UserError`: no finished run, no model, no adapter where `push_adapter` asks for it, a link, an adapter that
    would give the rows back or whose base exists here only, a text that names a path of this machine or the user.
    """
    folder, destination = Path(output_dir), Path(destination)
    evidence = _publishable_evidence(folder)
    destination.mkdir(parents=True, exist_ok=True)
    task = task_of(evidence)
    names = _chosen(folder, push_adapter, task)
    is_adapter = "adapter_config.json" in names
    if is_adapter:
        _check_adapter(folder, evidence, push_adapter)
    _check_code(folder, names)
    for name in names:
        _copy(folder, name, destination)
    _complete_card(destination / "README.md", evidence, is_adapter, task)
    names = list(dict.fromkeys([*names, "README.md"]))
    for config in ("config.json", "model_index.json"):
        _rename_removed(destination / config, folder, evidence)
    for name in names:
        _clean(destination / name, folder)
        if name.endswith((".md", ".html", ".json", ".jinja", ".svg")) and Path(name).name not in VOCABULARY:
            check_text(destination / name, name, folder)
    return sorted(names)


def _publishable_evidence(folder: Path) -> Evidence:
    """The evidence of a finished run. Raises `UserError` where there is none, or it says too much."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; name the `output_dir` of a finished run")
    evidence = read_evidence(folder)
    if set(evidence["data"]["request"] or {}) - REQUEST:
        raise UserError(f"{folder / EVIDENCE} says more of the forget request than may leave this machine")
    return evidence


def _chosen(folder: Path, push_adapter: bool, task: "type[Task] | None") -> list[str]:
    """Names, relative to `folder`, of the files on the list."""
    here = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    weights = sorted(name for name in here if WEIGHTS.fullmatch(name))
    own = task.model_files(folder) if task else None
    if push_adapter and not set(ADAPTER) <= here:
        raise UserError(f"{folder} holds no adapter; leave out `push_adapter`")
    if own:
        model, needed = own, set(own)
    elif weights and not (push_adapter and set(ADAPTER) <= here):
        model = [*weights, *CONFIGS]
        needed = {"config.json"} | _shards(folder, weights)
    else:
        model, needed = list(ADAPTER), set(ADAPTER)
    if needed - here:
        raise UserError(f"{folder} holds no model that loads; name the `output_dir` of a finished run")
    return [name for name in (*model, *PROCESSOR, *DOCUMENTS) if os.path.lexists(folder / name)]


def _shards(folder: Path, weights: list[str]) -> set[str]:
    """The weight files that must be there."""
    if "model.safetensors" in weights:
        return {"model.safetensors"}
    index = folder / "model.safetensors.index.json"
    named = _read_json(index).get("weight_map") if index.name in weights else None
    if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
        raise UserError(f"{index.name} in {folder} does not say which file holds which weight; save the model again")
    return {index.name, *named.values()}


def _copy(folder: Path, name: str, destination: Path) -> None:
    source, target = folder / name, destination / name
    is_link = source.is_symlink() or (source.parent != folder and source.parent.is_symlink())
    if is_link or not source.is_file():
        raise UserError(f"{name} in {folder} is a link or no file; put the file itself there")
    target.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):  # as large as the model, and only read
        try:
            return os.link(source, target)
        except OSError:
            pass
    shutil.copyfile(source, target)


def _check_adapter(folder: Path, evidence: Evidence, push_adapter: bool) -> None:
    if not push_adapter and not came_with_adapter(evidence):
        raise UserError(
            f"{folder} holds an adapter, and its base still holds the forgotten rows: run without `save_adapter` for "
            "merged weights, or say `push_adapter`"
        )
    if is_local_name(_read_json(folder / "adapter_config.json").get("base_model_name_or_path"), folder):
        raise UserError(
            f"the base model of the adapter in {folder} is a folder of this machine, so nobody could load it: run "
            "without `save_adapter` for merged weights, or push the base first and name it as `model_name_or_path`"
        )


def _check_code(folder: Path, names: list[str]) -> None:
    """A model with code of its own would arrive without it, unless that lies in another repository."""
    for name in {"config.json", "tokenizer_config.json", "preprocessor_config.json"} & set(names):
        classes = json.dumps(_read_json(folder / name).get("auto_map") or {})
        if '"' in classes and "--" not in classes:
            raise UserError(f"{name} in {folder} needs Python code of the model's own, which is not pushed from here")


def _complete_card(card: Path, evidence: Evidence, is_adapter: bool, task: "type[Task] | None") -> None:
    """A card where the folder has none; and one for an adapter says what that does not do."""
    if not card.is_file():
        library = "peft" if is_adapter else task.library_name if task else "transformers"
        card.write_text(render_card(evidence, library_name=library), encoding="utf-8")
    text = card.read_text(encoding="utf-8", errors="replace")
    if is_adapter and ADAPTER_LIMIT not in text:
        card.write_text(f"{text.rstrip()}\n\n{' '.join(adapter_limits(evidence))}\n", encoding="utf-8")


def _rename_removed(config: Path, folder: Path, evidence: Evidence) -> None:
    """Call removed classes `removed_<id>` in a staged configuration, and say so."""
    told = (evidence["data"]["request"] or {}).get("classes")
    if told or not (folder / REMOVED_CLASSES).is_file() or not config.is_file():
        return
    content = _read_json(config)
    names, ids = content.get("id2label") or {}, _read_json(folder / REMOVED_CLASSES).get("ids")
    if not isinstance(names, dict) or not all(place.isdigit() for place in names) or not isinstance(ids, list):
        raise UserError(
            f"{config.name} or {REMOVED_CLASSES} in {folder} was edited: it does not say which classes went"
        )
    removed = {str(place) for place in ids} & set(names)
    if not removed:
        return
    renamed = {place: f"removed_{place}" if place in removed else name for place, name in names.items()}
    content |= {"id2label": renamed}
    if "label2id" in content:
        content |= {"label2id": {name: int(place) for place, name in renamed.items()}}
    config.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    as_what = ", ".join(f"removed_{place}" for place in sorted(removed, key=int))
    say(f"note       pushed without the names of removed classes: {as_what}; --publish_request keeps them")


def _clean(path: Path, folder: Path) -> None:
    """Take names of local folders, and how this machine loaded things, out of a staged configuration."""
    if path.suffix != ".json" or path.name in VOCABULARY | {"evidence.json", "model.safetensors.index.json"}:
        return
    content = _read_json(path)
    cleaned = _without_local_names(content, folder)
    if path.name == "tokenizer_config.json":
        cleaned = {key: value for key, value in cleaned.items() if key not in LOADING_STATE}
    if cleaned != content:
        path.write_text(json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_local_names(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_without_local_names(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _without_local_names(item, folder)
        for key, item in value.items()
        if not (key in ("_name_or_path", "name_or_path") and is_local_name(item, folder))
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path.name} is no JSON file of keys and values; name the `output_dir` of a finished run")
    return content
