"""What a run did not check: a reader must not take silence for a result."""

from collections.abc import Mapping
from typing import Any

from hf_unlearn.report.card import task_of

CHECKS = {
    "lira": "Row by row with shadow models (U-LiRA, RULI, KLoM), which finds more than attacks by averages.",
    "relearning": "Whether training brings the forgotten rows back sooner than a twin learns them.",
    "quantization": "Whether the forgotten rows come back when the weights are quantized.",
}
FOR_LANGUAGE = {"paraphrases": "Whether the forgotten answers come back when the question is put in other words."}


def unchecked(evidence: Mapping[str, Any]) -> list[str]:
    """Sentences, one per thing that is not in `evidence`."""
    retrained = evidence["models"]["retrained"]
    twins = retrained["twins"] if retrained else 0
    found = []
    if twins == 0:
        found.append("The distance to retrained models: no twin was trained or given.")
    elif twins == 1:
        found.append("How far two retrainings lie apart (the floor): there is one twin, and it takes two.")
    if twins < 4:
        found.append(
            "Single rows with confidence: their figures need two twins and are rough below four; "
            f"here are {twins or 'none'}."
        )
    unlearned = evidence["models"]["unlearned"]
    if unlearned is not None:
        found += [f"The {split} rows." for split, value in unlearned["accuracy"].items() if value is None]
    stress = evidence.get("stress") or {}
    done = {"lira": evidence.get("lira"), "relearning": stress, "quantization": stress}
    done["paraphrases"] = stress.get("paraphrases")
    task = task_of(evidence)
    checks = CHECKS | (FOR_LANGUAGE if task is not None and task.generates else {})
    found += [text for name, text in checks.items() if not done.get(name)]
    skipped = (evidence.get("attacks") or {}).get("not_run", ["threshold and classifier attacks"])
    if skipped:
        found.append(f"Membership attacks: {', '.join(skipped)}.")
    found += [
        "Other seeds of the unlearning: this is one run.",
        "Other attacks than those listed here. No certificate says that nothing of the forgotten rows is left.",
    ]
    return found
