"""What language models say in the places of forgotten tokens, beside the twins: a figure, and what is told of it."""

from collections.abc import Mapping
from typing import Any

LABEL = "said instead (KL, nats/token)"
SURE = 2.0  # standard errors from which a change is believed
ODD = 2.0  # times as far as any twin is from the others


def kl_of(evidence: Mapping[str, Any], model: str) -> float | None:
    """KL to the twins in nats per token of `original`, `unlearned` or `twins`; `None` where it was not measured."""
    return (evidence.get("said_instead") or {}).get(model)


def odd_words(evidence: Mapping[str, Any]) -> str | None:
    """A sentence where the unlearned model is farther from the twins than the original was, and far from any twin."""
    block = evidence.get("said_instead")
    before, after = kl_of(evidence, "original"), kl_of(evidence, "unlearned")
    if not block or before is None or after is None:
        return None
    twins, error = [twin for twin in block["each"] if twin is not None], block["standard_errors"]["change"] or 0.0
    if not twins or after <= ODD * max(twins) or after - before <= SURE * error:
        return None
    return (
        f"The words in place of the forgotten answers are odd: {after:.2f} nats per token from the twins' (KL), where "
        f"the original's were {before:.2f}."
    )


def sampled_tokens(evidence: Mapping[str, Any]) -> str | None:
    """A sentence with the size of the sample and the standard error, where not all tokens were listened to."""
    block = evidence.get("said_instead")
    if not block or block["tokens"] >= block["of"]:
        return None
    error = block["standard_errors"]["unlearned"]
    told = "" if error is None else f" (standard error {error:.3f} nats)"
    return f"What is said instead was measured in {block['tokens']:,} of {block['of']:,} forgotten tokens{told}."
