"""Checkpoints to go on from: whole ones, of this very run. Anything else would end as another model, in silence."""

import hashlib
import hmac
import json
import os
import re
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from hf_unlearn.data.content import user_key
from hf_unlearn.errors import UserError
from hf_unlearn.models import lora
from hf_unlearn.models.checksums import digests, find_damaged
from hf_unlearn.progress import say
from hf_unlearn.report.evidence import write_json
from hf_unlearn.trainers.first_process import from_first_process
from hf_unlearn.trainers.part import TrainerPart

METHOD_STATE = "method_state.safetensors"
CHECKSUMS = "checksums.json"  # of the other files; written when these are there
UNCHECKED = "{} has no checksums: a file that was damaged after it was written would not be noticed"
IDENTITY = "run"  # the name of the entry in that file's metadata
FOLDER = re.compile(r"checkpoint-(\d+)")
SAMPLED = 64  # values of each tensor that tell one original from another
MODELS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors", "pytorch_model_fsdp_0")
OPTIMIZERS = ("optimizer.pt", "optimizer.bin", "optimizer_0")
TOLD = {
    "rows": "of other rows: another request, other data, or divided by another seed",
    "start": "of another original model, or of this one before it was trained",
    "adapter": "of another adapter",
}


def run_identity(trainer: TrainerPart) -> dict[str, Any]:
    """What a checkpoint must agree on with the run that goes on from it; ask before the first step.

    Rows stand in it as an HMAC under the user's key. JSON types only.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    adapter = lora.describe(model) if lora.is_peft(model) else None
    shaping = trainer.args.shapes_steps()
    plain = json.loads(json.dumps({"method": trainer.method, **shaping, "adapter": adapter}, default=str))
    return plain | {"rows": _rows(trainer), "start": _sample(model)}


def _rows(trainer: TrainerPart) -> str:
    """HMAC over who plays which role, and over the forgotten rows where their digest is known."""
    roles = {name: rows.indices for name, rows in trainer.train_dataset.streams.items()}
    roles["validation"] = trainer.splits.validation.indices
    told = json.dumps([roles, trainer.forget_digest], sort_keys=True)
    return hmac.new(user_key(), told.encode(), hashlib.sha256).hexdigest()


def _sample(model: torch.nn.Module) -> str:
    """Hash of a few values of every weight: another original has others. A fresh adapter, which whoever makes it may
    draw anew, changes nothing of the original; the checkpoint holds its own."""
    found, drawn = hashlib.sha256(), lora.is_peft(model) and lora.is_fresh(model)
    for name, value in model.state_dict().items():
        if drawn and "lora_" in name:
            continue
        if type(value) in (torch.Tensor, torch.nn.Parameter) and not value.is_meta:
            some = value.detach().reshape(-1)[:SAMPLED].cpu().contiguous()
            found.update(name.encode() + some.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def metadata(identity: dict[str, Any]) -> dict[str, str]:
    """For the header of the method's state in a checkpoint."""
    return {IDENTITY: json.dumps(identity, sort_keys=True)}


def check_identity(folder: str | os.PathLike, identity: dict[str, Any]) -> None:
    """Raises `UserError` naming what differs between a checkpoint and the run that shall go on from it."""
    made = _identity_of(Path(folder))
    if made is None:
        raise UserError(f"{folder} does not say what run it is of, so nothing can go on from it: start again")
    name = next((name for name in ["method", "seed", *TOLD, *identity] if made.get(name) != identity[name]), None)
    if name is not None:
        told = TOLD.get(name, f"made with {name} {made.get(name)}, and this run has {identity[name]}")
        raise UserError(
            f"`resume_from_checkpoint`: {Path(folder).name} is {told}; give what it was made with, or start again in "
            "a new folder"
        )


def find_checkpoint(asked: str | bool, output: Path) -> str:
    """The folder to go on from: the one that is named, or for `last` the newest whole one in `output`.

    Raises `UserError` where there is none, or the named one is not whole.
    """
    newest = str(asked).lower() in ("last", "true")
    folders = checkpoints(output) if newest else [Path(str(asked))]
    found, reason = from_first_process(lambda: _first_whole(folders))
    if found is not None:
        return found
    told = f" ({reason})" if reason else ""
    mend = "start again in a new folder" if newest else "name a checkpoint folder, or 'last' for the newest whole one"
    raise UserError(f"`resume_from_checkpoint` {asked}: no checkpoint there that is whole{told}; {mend}")


def _first_whole(folders: list[Path]) -> tuple[str | None, str | None]:
    """The first folder that is whole, if there is one, and what the first of all lacks."""
    reasons: list[str | None] = []
    for folder in folders:
        reasons.append(what_is_missing(folder))
        if reasons[-1] is None:
            if not (folder / CHECKSUMS).exists():
                _say_once(UNCHECKED.format(folder.name))
            return str(folder), reasons[0]
    return None, reasons[0] if folders and folders[0].is_dir() else None


@lru_cache
def _say_once(line: str) -> None:
    say(line)


def checkpoints(output: Path) -> list[Path]:
    """Checkpoint folders, the newest first."""
    found = [path for path in (output.iterdir() if output.is_dir() else ()) if FOLDER.fullmatch(path.name)]
    return sorted(found, key=lambda path: -int(path.name.split("-")[1]))


def write_checksums(folder: Path) -> None:
    """Say what every file of a checkpoint holds, once all of them are there. The file appears whole or not at all."""
    found = digests(folder)
    write_json(folder / CHECKSUMS, {name: found[name] for name in found if not name.startswith(CHECKSUMS)})


def what_is_missing(folder: Path, *, contents: bool = True) -> str | None:
    """Why nothing can go on from a checkpoint; `None` for one that is whole.

    Args:
        contents: read every file and compare it with its checksum, where the checkpoint has checksums; else files are
            looked at as far as their formats tell.
    """
    here = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    sharded = any(name.startswith("global_step") for name in here)  # DeepSpeed keeps all of it in there
    needed: dict[str, tuple[str, ...]] = {
        "trainer's state": ("trainer_state.json",),
        "method's state": (METHOD_STATE,),
    }
    needed |= {f"random state ({name})": (name,) for name in _random_states(folder)}
    if not sharded:
        needed |= {"weights": MODELS, "optimizer": OPTIMIZERS, "scheduler": ("scheduler.pt",)}
    for what, names in needed.items():
        if not here & set(names):
            return f"its {what} is missing"
    for name in sorted(here):
        if not _is_readable(folder / name):
            return f"{name} is damaged"
    damaged = _differs(folder) if contents and CHECKSUMS in here else None
    return damaged and f"{damaged} is damaged"


def _differs(folder: Path) -> str | None:
    """The first file that is not what its checksum says."""
    expected = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    return find_damaged(folder, expected) if isinstance(expected, dict) else CHECKSUMS


def _random_states(folder: Path) -> list[str]:
    """One file for each process of the run that a checkpoint is of; Trainer goes on without them, and otherwise."""
    processes = made_with(folder, "world_size") or 1
    return ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]


def made_with(folder: Path, name: str) -> Any:
    """One entry of the identity of the run that a checkpoint is of; `None` where it does not say."""
    return (_identity_of(folder) or {}).get(name)


def _identity_of(folder: Path) -> dict[str, Any] | None:
    """The identity of the run that a checkpoint is of; `None` where it does not say."""
    try:
        with safe_open(folder / METHOD_STATE, "pt") as file:
            return json.loads((file.metadata() or {}).get(IDENTITY, "null"))
    except (OSError, SafetensorError):
        return None


def _is_readable(path: Path) -> bool:
    """Whether a file is all there, as far as its format tells."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                return True
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            shards = content.get("weight_map", {}) if path.name.endswith(".index.json") else {}
            return all((path.parent / name).is_file() for name in set(shards.values()))
        return path.suffix not in (".pt", ".pth") or zipfile.is_zipfile(path)
    except (OSError, ValueError, AttributeError, SafetensorError):
        return False
