"""What the figures of a run allow to say, and where they stop: a few sentences, with the numbers they rest on."""

from collections.abc import Mapping
from typing import Any

NAMES = {
    "forget_accuracy": "forget accuracy",
    "membership": "membership AUC",
    "retain_accuracy": "retain accuracy",
    "test_accuracy": "test accuracy",
}
FACTOR, SLACK = 1.25, 0.5  # a gap counts as small up to FACTOR × floor + SLACK points
UTILITY_POINTS = 1.0  # retain and test accuracy may lie this far below the twins
ROW_POINTS = 3.0  # so much more of the rows may be remembered, or over-forgotten, than among twins
NO_TWIN = (
    "No retrained twin to compare with: the figures say what changed, not whether the model is like one that never "
    "saw the forgotten rows."
)


def verdict(evidence: Mapping[str, Any]) -> list[str]:
    """Sentences about `evidence`, each one line; empty when no unlearned model was scored."""
    models = evidence["models"]
    if models["unlearned"] is None:
        return []
    if models["retrained"] is None:
        return [NO_TWIN]
    twins = models["retrained"]["twins"]
    average = evidence["gap"]["average"]
    if twins == 1:
        size = "the gap" if average is None else f"an average gap of {average:.1f} points"
        return [f"With one twin there is no floor: {size} cannot be told from the spread between two retrainings."]
    sentences = [_averages(evidence, twins), _doing_nothing(evidence), _rows(models, twins)]
    return [sentence for sentence in sentences if sentence]


def _averages(evidence: Mapping[str, Any], twins: int) -> str:
    gap, floor, difference = evidence["gap"], evidence["floor"], evidence["difference"]
    unknown = [name for key, name in NAMES.items() if gap[key] is None or floor[key] is None]
    known = [key for key in NAMES if NAMES[key] not in unknown]
    far = [
        f"{NAMES[key]} is {gap[key]:.1f} points from the twins (floor {floor[key]:.1f})"
        for key in ("forget_accuracy", "membership")
        if key in known and gap[key] > FACTOR * floor[key] + SLACK
    ]
    lowered = [
        f"{NAMES[key]} is {-difference[key]:.1f} points below the twins"
        for key in ("retain_accuracy", "test_accuracy")
        if key in known and difference[key] < -UTILITY_POINTS
    ]
    suffix = f" Not measured: {', '.join(unknown)}." if unknown else ""
    if not known:
        return "Averages:" + suffix.lower()
    if far or lowered:
        return f"Averages against {twins} twins: {'; '.join(far + lowered)}.{suffix}"
    limits = f"forgetting within {FACTOR} × floor + {SLACK} points, accuracy at most {UTILITY_POINTS:.0f} point below"
    return f"Averages against {twins} twins: about as far as from twin to twin ({limits}).{suffix}"


def _doing_nothing(evidence: Mapping[str, Any]) -> str | None:
    average, floor = original_gap(evidence["models"])["average"], evidence["floor"]["average"]
    if average is None or floor is None or average > 2 * floor:
        return None
    return (
        f"The original itself is only {average:.1f} points from the twins (floor {floor:.1f}): "
        "this case can hardly tell methods apart."
    )


def _rows(models: Mapping[str, Any], twins: int) -> str:
    ours, theirs = models["unlearned"]["rows"], models["retrained"]["rows"]
    pairs = [("raw", ours, theirs), ("level-corrected", ours["level_corrected"], theirs["level_corrected"])]
    if any(block[key] is None for _, *both in pairs for block in both for key in ("rms_z", "remembered")):
        return "This rests on averages alone, which can pass while single rows are untouched: rows need 3 twins."
    close = all(
        ours["rms_z"] <= FACTOR * theirs["rms_z"]
        and all(100 * (ours[key] - theirs[key]) <= ROW_POINTS for key in ("remembered", "over_forgotten"))
        for _, ours, theirs in pairs
    )
    figures = "; ".join(
        f"{name} rms z {ours['rms_z']:.2f}, {100 * ours['remembered']:.1f} % remembered "
        f"(twins {theirs['rms_z']:.2f}, {100 * theirs['remembered']:.1f} %)"
        for name, ours, theirs in pairs
    )
    found = "rows lie about as far as from twin to twin" if close else "rows still stand out"
    rough = ", roughly, with fewer than 4 twins" if twins < 4 else ""
    return f"Row by row: {found}{rough}: {figures}."


def original_gap(models: Mapping[str, Any]) -> dict[str, float | None]:
    """The gap of doing nothing, in the keys and units of the evidence's `gap`."""
    original, retrained = models["original"], models["retrained"]
    result: dict[str, float | None] = {}
    for key in ("forget_accuracy", "retain_accuracy", "test_accuracy", "membership"):
        part, figure = ("membership", "loss_auc") if key == "membership" else ("accuracy", key.split("_")[0])
        values = [None if model is None else model[part][figure] for model in (original, retrained)]
        result[key] = None if None in values else 100 * abs(values[0] - values[1])
    known = [value for value in result.values() if value is not None]
    result["average"] = sum(known) / 4 if len(known) == 4 else None
    return result
