"""`evidence.json`: one file that holds what a run did and what came of it. Everything else is a rendering of it."""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import hf_unlearn
from hf_unlearn.errors import UserError
from hf_unlearn.report.blocks import KEYS, MODEL_KEYS, SPLIT_KEYS

EVIDENCE = "evidence.json"
SCHEMA_VERSION = 1
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "peft", "scikit-learn", "numpy")


def build_evidence(
    *,
    method: Mapping[str, Any],
    task: str,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    comparison: Mapping[str, Any],
    cost: Mapping[str, Any],
    environment: Mapping[str, Any],
    distributions: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    attacks: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    seeds: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The whole evidence from its parts; a key of the schema that a part lacks becomes `None`, never a guess.

    Args:
        method, model, data, cost, environment, seeds: the blocks of [`Evidence`](blocks.py) by these names.
        task: the task's name, e.g. `"causal_lm"`.
        comparison: what `hf_unlearn.evaluation.comparison.compare` returns.
        distributions: what `hf_unlearn.evaluation.distributions.distributions` returns, for the plots.
        training: what [`~hf_unlearn.report.training.training_block`] returns.
        attacks: what `hf_unlearn.evaluation.attack_comparison.compare_attacks` returns.
        recipe: how the original was made, where that is known.
        notes: sentences a reader of the figures must know.
    """
    blocks = {"method": method, "model": model, "data": data, "cost": cost, "environment": environment, "seeds": seeds}
    blocks |= comparison
    evidence: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "method": None, "task": task}
    compared = ("models", "gap", "floor", "difference", "judged")
    for name in ("method", "model", "data", *compared, "seeds", "cost", "environment"):
        block = dict(blocks.get(name) or {})
        evidence[name] = {key: block.get(key) for key in KEYS.get(name, ())} | block
    splits = evidence["data"]["splits"] or {}
    evidence["data"]["splits"] = {key: splits.get(key) for key in SPLIT_KEYS} | dict(splits)
    later = {"distributions": distributions, "training": training, "attacks": attacks}
    evidence["recipe"] = plain(recipe)
    evidence |= {name: plain(block) for name, block in later.items()}
    evidence["notes"] = list(notes)
    return evidence


def validate(evidence: Mapping[str, Any]) -> list[str]:
    """Dotted names of the keys that the schema asks for and `evidence` lacks; an empty list when it is complete.

    A model that was not scored is `None` as a whole, which is complete.
    """
    missing = [key for key in ("schema_version", "task") if key not in evidence]
    if "schema_version" in evidence and evidence["schema_version"] != SCHEMA_VERSION:
        missing.append(f"schema_version {SCHEMA_VERSION}")
    for path, keys in KEYS.items():
        missing += _missing(evidence, path, keys)
    for name, block in (evidence.get("models") or {}).items():
        if block is not None:
            for part, keys in MODEL_KEYS.items():
                missing += [f"models.{name}.{key}" for key in _missing(block, part, keys)]
    return missing


def _missing(block: Mapping[str, Any], path: str, keys: tuple[str, ...]) -> list[str]:
    found: Any = block
    for step in path.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return [path]
    return [f"{path}.{key}" for key in keys if key not in found]


def write_json(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write strict JSON: NaN and infinities become null. The file is there whole or, after a crash, as it was before.

    Raises:
        TypeError: a value is no number, string, list or mapping.
    """
    path = Path(path)
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)


def plain(value: Any) -> Any:
    """`value` in the types of JSON: NumPy scalars as numbers, tuples as lists, members of an `Enum` as their values,
    non-finite numbers as `None`."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def environment(seed: int | None, device: str | None = None, **more: Any) -> dict[str, Any]:
    """What a run depended on, without user name, host name or path.

    Args:
        seed: of the run.
        device: e.g. `"cpu"`, or the name of the accelerator.
        more: further facts, e.g. `processes`, `dtype`.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "python": platform.python_version(),
        "packages": {"hf_unlearn": hf_unlearn.__version__} | {name: _version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "cpu_count": cpus,
        "seed": seed,
        **more,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def read_evidence(folder: str | Path) -> dict[str, Any]:
    """The evidence of a finished run. Raises `UserError` where there is none or it is of another version."""
    path = Path(folder) / EVIDENCE
    try:
        evidence = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} cannot be read; name the --output_dir of a finished run") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON (line {error.lineno})") from None
    missing = validate(evidence) if isinstance(evidence, dict) else ["everything"]
    if missing:
        raise UserError(f"{path} is no evidence of this version: {', '.join(missing[:3])} is missing")
    return evidence
