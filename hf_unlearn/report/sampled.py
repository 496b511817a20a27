"""What is said of figures that come from a sample of rows."""

from collections.abc import Mapping
from typing import Any

NAMES = {"retain": "retain", "test": "test", "nonmembers": "unseen"}


def sampled_words(evidence: Mapping[str, Any]) -> list[str]:
    """A sentence with sizes and standard errors, or nothing where all rows were scored."""
    block = evidence.get("sampled")
    if not block:
        return []
    sizes = [f"{role['rows']:,} of {role['of']:,} {NAMES[name]} rows" for name, role in block.items()]
    errors = [words for name, role in block.items() if (words := _errors(NAMES[name], role["standard_errors"]))]
    told = f" Standard error of sampling: {'; '.join(errors)}." if errors else ""
    return [f"Scored were {_listed(sizes)}, drawn by the seed (--score_all: every row).{told}"]


def _errors(name: str, errors: Mapping[str, Any]) -> str:
    """Of the unlearned model's accuracy and loss, and of the distance to the twins, which is known better."""
    own, gap = errors["unlearned"], errors["gap"]
    parts = [] if own["accuracy"] is None else [f"{name} accuracy {100 * own['accuracy']:.2f} points"]
    parts += [] if own["loss"] is None else [f"{name} loss {own['loss']:.4f} nats"]
    if gap is not None and gap["accuracy"] is not None:
        parts.append(f"its gap to the twins {100 * gap['accuracy']:.2f} points")
    return ", ".join(parts)


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
