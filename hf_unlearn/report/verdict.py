"""What the figures of a run allow to say, and where they stop: a few sentences, with the numbers they rest on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
KS_SLACK = 0.05  # forget losses may lie above the twins' by FACTOR × floor + KS_SLACK
FEW_ROWS = 50
NO_TWIN = (
    "No retrained twin to compare with: the figures say what changed, not whether the model is like one that never "
    "saw the forgotten rows."
)
AVERAGES_ALONE = "This rests on averages alone, which can pass while single rows are untouched: rows need {} twins."


@dataclass
class Rows:
    """What the row-level figures say: `stand_out` is `None` where nobody could look."""

    stand_out: bool | None
    sentence: str
    kinds: list[str] = field(default_factory=list)  # "remembered", "over-forgotten"


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
    rows = judge_rows(models).sentence
    sentences = [_averages(evidence), too_hard(evidence), _doing_nothing(evidence), _few_rows(evidence), rows]
    return [sentence for sentence in sentences if sentence]


def headline(evidence: Mapping[str, Any]) -> str:
    """The verdict in one sentence that claims no more than [`verdict`] does."""
    models = evidence["models"]
    if models["unlearned"] is None:
        return "Not judged: no unlearned model was scored."
    if models["retrained"] is None:
        return "Not judged: there is no model retrained without the forgotten rows to compare with."
    twins = models["retrained"]["twins"]
    if twins == 1:
        return "Not judged: one retrained twin shows a distance, but not how far two retrainings lie apart."
    far, lowered, unknown = against_twins(evidence)
    rows = judge_rows(models)
    faults = [NAMES[key] for key in (*far, *lowered)]
    faults += [f"single rows ({' and '.join(rows.kinds)})" if rows.kinds else "single rows"] if rows.stand_out else []
    faults += ["forget losses too high"] if too_hard(evidence) else []
    if faults:
        return f"Still to be told from {twins} retrained twins: {', '.join(faults)}."
    if len(unknown) == len(NAMES):
        return "Not judged: none of the averages was measured."
    scope = "In averages and row by row" if rows.stand_out is False else "In averages alone"
    limits = ["rows were not judged"] if rows.stand_out is None else []
    limits += ["roughly, with fewer than 4 twins"] if rows.stand_out is False and twins < 4 else []
    limits += [f"without {', '.join(unknown)}"] if unknown else []
    limits += ["but doing nothing comes as close: this case can hardly tell methods apart"] * bool(
        _doing_nothing(evidence)
    )
    limits += ["on few forget rows"] if _few_rows(evidence) else []
    suffix = f" ({'; '.join(limits)})" if limits else ""
    return f"{scope}, about as far from {twins} retrained twins as they are from each other{suffix}."


def against_twins(evidence: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Averages that lie far from the twins, accuracies below theirs (keys of `NAMES`), and names of the unknown."""
    gap, floor, difference = evidence["gap"], evidence["floor"], evidence["difference"]
    known = [key for key in NAMES if gap[key] is not None and floor[key] is not None]
    far = [key for key in ("forget_accuracy", "membership") if key in known and gap[key] > FACTOR * floor[key] + SLACK]
    lowered = [
        key for key in ("retain_accuracy", "test_accuracy") if key in known and difference[key] < -UTILITY_POINTS
    ]
    return far, lowered, [name for key, name in NAMES.items() if key not in known]


def too_hard(evidence: Mapping[str, Any]) -> str | None:
    """A sentence where forget losses lie above the twins' by more than twins differ: forgetting that shows."""
    ours = ((evidence.get("distributions") or {}).get("ks") or {}).get("unlearned")
    if not ours or ours["direction"] != "over" or ours["floor"] is None:
        return None
    if ours["distance"] <= FACTOR * ours["floor"] + KS_SLACK:
        return None
    return (
        f"Forgotten so hard that it shows: the losses of forget rows lie above the twins' "
        f"(KS distance {ours['distance']:.2f}, from twin to twin {ours['floor']:.2f})."
    )


def judge_rows(models: Mapping[str, Any]) -> Rows:
    """Row z-scores beside the twins' own. Two twins leave none to hold out: there a third's, about 1, stands in."""
    ours, theirs = models["unlearned"]["rows"], models["retrained"]["rows"]
    twins = models["retrained"]["twins"]
    pairs = [("raw", ours, theirs), ("level-corrected", ours["level_corrected"], theirs["level_corrected"])]
    if any(block[key] is None for _, *both in pairs for block in both for key in ("rms_z", "remembered")):
        return _rows_of_two(ours) if twins == 2 else Rows(None, AVERAGES_ALONE.format(2))
    kinds = [
        name
        for key, name in (("remembered", "remembered"), ("over_forgotten", "over-forgotten"))
        if any(100 * (ours[key] - theirs[key]) > ROW_POINTS for _, ours, theirs in pairs)
    ]
    close = not kinds and all(ours["rms_z"] <= FACTOR * theirs["rms_z"] for _, ours, theirs in pairs)
    figures = "; ".join(
        f"{name} rms z {ours['rms_z']:.2f}, {100 * ours['remembered']:.1f} % remembered, "
        f"{100 * ours['over_forgotten']:.1f} % over-forgotten (twins {theirs['rms_z']:.2f}, "
        f"{100 * theirs['remembered']:.1f} %, {100 * theirs['over_forgotten']:.1f} %)"
        for name, ours, theirs in pairs
    )
    found = "rows lie about as far as from twin to twin" if close else "rows still stand out"
    rough = ", roughly, with fewer than 4 twins" if twins < 4 else ""
    return Rows(not close, f"Row by row: {found}{rough}: {figures}.", kinds)


def _rows_of_two(ours: Mapping[str, Any]) -> Rows:
    figures = [block["rms_z"] for block in (ours, ours["level_corrected"])]
    if None in figures:
        return Rows(None, AVERAGES_ALONE.format(2))
    close = all(value <= FACTOR for value in figures)
    found = "rows lie about as far as another twin would" if close else "rows still stand out"
    return Rows(
        not close,
        f"Row by row: {found}, roughly, with 2 twins: raw rms z {figures[0]:.2f}, level-corrected {figures[1]:.2f} "
        "(another twin: about 1).",
    )


def _averages(evidence: Mapping[str, Any]) -> str:
    gap, floor, difference = evidence["gap"], evidence["floor"], evidence["difference"]
    far, lowered, unknown = against_twins(evidence)
    twins = evidence["models"]["retrained"]["twins"]
    suffix = f" Not measured: {', '.join(unknown)}." if unknown else ""
    if len(unknown) == len(NAMES):
        return "Averages:" + suffix.lower()
    found = [f"{NAMES[key]} is {gap[key]:.1f} points from the twins (floor {floor[key]:.1f})" for key in far]
    found += [f"{NAMES[key]} is {-difference[key]:.1f} points below the twins" for key in lowered]
    if found:
        return f"Averages against {twins} twins: {'; '.join(found)}.{suffix}"
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


def _few_rows(evidence: Mapping[str, Any]) -> str | None:
    rows = (evidence["data"]["splits"] or {}).get("forget")
    if not rows or rows >= FEW_ROWS:
        return None
    return f"Only {rows} forget rows: one of them moves an accuracy by {100 / rows:.1f} points."


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
