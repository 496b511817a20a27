"""`evidence.json`: one file that holds what a run did and what came of it. Everything else is a rendering of it."""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any, cast, get_type_hints

import hf_unlearn
from hf_unlearn.errors import UserError
from hf_unlearn.report.blocks import Evidence, Splits
from hf_unlearn.report.schema import problems

EVIDENCE = "evidence.json"
SCHEMA_VERSION = 1
# What makes a block that was added to a finished run.
MADE_BY = {
    "stress": "hf-unlearn evaluate --stress",
    "lira": "hf-unlearn lira --add_to",
    "answers": "hf-unlearn evaluate --generate",
    "language": "hf-unlearn evaluate",
}
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
) -> Evidence:
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
    given = {"method": method, "model": model, "data": data, "cost": cost, "environment": environment, "seeds": seeds}
    types = get_type_hints(Evidence)
    blocks: dict[str, Any] = {
        name: _complete(types[name], block) for name, block in (given | dict(comparison)).items() if name in types
    }
    blocks["data"]["splits"] = _complete(Splits, blocks["data"]["splits"])
    later = {"recipe": recipe, "distributions": distributions, "training": training, "attacks": attacks}
    found = {"schema_version": SCHEMA_VERSION, "task": task, **blocks, **later, "notes": list(notes)}
    for name in ("models", "gap", "floor", "difference", "judged"):
        found.setdefault(name, _complete(types[name], None))
    return cast(Evidence, {name: plain(found[name]) for name in types if name in found})


def _complete(kind: Any, block: Mapping[str, Any] | None) -> dict[str, Any]:
    """A block with `None` for each key of its type that it lacks."""
    return dict.fromkeys(getattr(kind, "__annotations__", {})) | dict(block or {})


def validate(evidence: Any) -> list[str]:
    """What of `evidence` is not as the schema has it, a few words for each place; an empty list when all of it is."""
    found = problems(evidence)
    version = evidence.get("schema_version") if isinstance(evidence, Mapping) else None
    if isinstance(version, int) and version != SCHEMA_VERSION:
        found.insert(0, f"schema_version is {version}, not {SCHEMA_VERSION}")
    return found


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


def read_evidence(folder: str | Path) -> Evidence:
    """The evidence of a finished run. Raises `UserError` where there is none, or it is not as the schema has it."""
    path = Path(folder) / EVIDENCE
    try:
        evidence = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} cannot be read; name the `output_dir` of a finished run") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON (line {error.lineno})") from None
    wrong = validate(evidence)
    blocks = list(dict.fromkeys(text.split(".")[0].split(" ")[0] for text in wrong))
    if wrong and set(blocks) <= set(MADE_BY):
        again = ", ".join(f"'{block}' with {MADE_BY[block]}" for block in blocks)
        raise UserError(f"{path} has a block of another version: make {again} again, or take it out of the file "
                        f"({wrong[0]})")  # fmt: skip
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise UserError(f"{path} is no evidence of this version: {'; '.join(wrong[:3])}{more}")
    return evidence
