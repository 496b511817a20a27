"""What is said of figures that come from a sample of rows or tokens."""

from collections.abc import Mapping
from typing import Any

from hf_unlearn.report.said_instead import sampled_tokens

NAMES = {"retain": "retain", "test": "test", "nonmembers": "unseen"}


def sampled_words(evidence: Mapping[str, Any]) -> list[str]:
    """Sentences with sizes and standard errors, or nothing where all rows were scored and all tokens listened to."""
    return [text for text in (_sampled_rows(evidence.get("sampled")), sampled_tokens(evidence)) if text]


def _sampled_rows(block: Mapping[str, Any] | None) -> str | None:
    if not block:
        return None
    sizes = [f"{role['rows']:,} of {role['of']:,} {NAMES[name]} rows" for name, role in block.items()]
    errors = [words for name, role in block.items() if (words := _errors(NAMES[name], role["standard_errors"]))]
    told = f" Standard error of sampling: {'; '.join(errors)}." if errors else ""
    return f"Scored were {_listed(sizes)}, drawn by the seed (--score_all: every row).{told}"


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
