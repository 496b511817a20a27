"""The runs of a contest, brought together over seeds: what stands in `contest.json`."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from hf_unlearn.report.blocks import Method
from hf_unlearn.report.compare import METRICS, Metric, dominates, forgetting
from hf_unlearn.report.contest_blocks import Contest, DurabilityCell, Entry, OverallVerdict, OverSeeds
from hf_unlearn.report.verdict import KINDS, OPEN, TOLD, WITHIN, damage, outcomes

Run = Mapping[str, Any]
SCHEMA_VERSION = 1
LEVEL = 0.95
ACCURACY = "accuracy"
NOTHING, TWIN, TUNED = "do nothing", "another twin", " tuned"
DISTANCE = Metric(
    "distance",
    "distance to the twins (points)",
    lambda run: forgetting(run["gap"]),
    floor=lambda run: forgetting(run["floor"]),
)
LOSS = Metric(
    "gap_forget_loss",
    "gap: forget loss",
    lambda run: run["gap"]["forget_loss"],
    floor=lambda run: run["floor"]["forget_loss"],
    digits=3,
)
MEMORY = Metric("memory", "peak memory (MB)", lambda run: run["cost"].get("peak_memory_mb"), digits=0)


def _answer(kind: str, figure: str, title: str, scale: float = 1.0, digits: int = 2, higher: bool = False) -> Metric:
    def of(model: str) -> Callable[[Run], float | None]:
        def read(run: Run) -> float | None:
            figures = (run.get("answers") or {}).get("figures", {}).get(kind, {})
            value = figures.get(figure, {}).get(model)
            return None if value is None else scale * value

        return read

    return Metric(
        f"{kind}_{figure}", title, of("unlearned"), of("original"), of("twins"), digits=digits, higher=higher
    )


ANSWERS = (
    _answer("forgotten", "rouge", "ROUGE-L, forgotten", digits=3),
    _answer("kept", "rouge", "ROUGE-L, kept", digits=3, higher=True),
    _answer("general", "rouge", "ROUGE-L, general", digits=3, higher=True),
    _answer("forgotten", "repetition", "repetition, forgotten (%)", 100),
    _answer("forgotten", "refusals", "refusals, forgotten (%)", 100),
)
FIGURES: tuple[Metric, ...] = (DISTANCE, LOSS, *METRICS, MEMORY, *ANSWERS)


def build_contest(
    runs: Mapping[str, Sequence[Run]],
    *,
    retrain: int,
    tune: int,
    passed_over: Mapping[str, str],
    accuracy: str = ACCURACY,
) -> Contest:
    """The whole file from `runs[entry][seed]`, each an evidence with the block `contest`, or where a method broke
    down that block alone.

    Args:
        retrain: twins of each seed.
        tune: rates of the search; 0 without one.
        passed_over: why methods did not take part.
        accuracy: what the task counts as one ([`Task.accuracy_name`]).
    """
    first = list(runs[NOTHING])
    stress = first[0].get("stress")
    more: Any = {"stress": {"protocol": stress["protocol"], "rows": stress["rows"]}} if stress else {}
    entries = [_entry(name, found) for name, found in runs.items()]
    points = [_point(entry) for entry in entries]
    for entry, point in zip(entries, points, strict=True):
        entry["best"] = point is not None and not any(dominates(o, point) for o in points if o is not None)
    return {
        "schema_version": SCHEMA_VERSION,
        "task": first[0]["task"],
        "source": first[0]["data"]["source"],
        "request": first[0]["data"]["request"],
        "splits": [run["data"]["splits"] for run in first],
        "seeds": [run["seeds"] for run in first],
        "retrain": retrain,
        "tune": tune,
        "entries": entries,
        "floor": {metric.key: over_seeds([metric.floor(run) for run in first]) for metric in FIGURES},
        "passed_over": dict(passed_over),
        "recipe": first[0]["recipe"],
        "environment": first[0]["environment"],
        "notes": _notes(runs, tune, accuracy),
        **more,
    }


def over_seeds(values: Sequence[float | None]) -> OverSeeds | None:
    """Mean over seeds and half its 95 % interval, Student's t; `None` where no seed has the figure."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    half = None
    if len(known) > 1:
        from scipy.special import stdtrit

        half = float(stdtrit(len(known) - 1, (1 + LEVEL) / 2)) * stdev(known) / math.sqrt(len(known))
    return {"values": list(values), "mean": fmean(known), "half_width": half}


def kind_of(name: str) -> str:
    """`nothing`, `twin`, `tuned` or `method`."""
    named = {NOTHING: "nothing", TWIN: "twin"}
    return named.get(name, "tuned" if name.endswith(TUNED) else "method")


def judged_over_seeds(runs: Sequence[Run]) -> OverallVerdict:
    """What one entry's evidences say together, figure by figure."""
    found = {kind: Counter[str]() for kind in (TOLD, WITHIN, OPEN)}
    told_apart = damaged = seeds = 0
    for run in runs:
        outcome = outcomes(run)
        seeds += bool(outcome)
        for each in outcome:
            found[each.found][each.key] += 1
        told_apart += any(each.found == TOLD for each in outcome)
        damaged += bool(damage(run))
    verdict: OverallVerdict = {
        "seeds": seeds,
        "told": dict(found[TOLD]),
        "within": dict(found[WITHIN]),
        "open": dict(found[OPEN]),
        "told_apart": told_apart,
        "damaged": damaged,
        "text": "",
    }
    return {**verdict, "text": _sentence(verdict)}


def _sentence(verdict: OverallVerdict) -> str:
    seeds = verdict["seeds"]
    if not seeds:
        return "not judged."
    text = f"damaged in {verdict['damaged']} of {seeds}; " if verdict["damaged"] else ""
    if verdict["told_apart"]:
        figures = _counted(verdict["told"], seeds)
        return f"{text}told apart from the twins in {verdict['told_apart']} of {seeds} ({figures})."
    always = [KINDS[key].title for key, count in verdict["within"].items() if count == seeds]
    text += "not told apart from the twins" + (f" in any of {seeds}" if seeds > 1 else "")
    text += f"; as good as they are in {', '.join(always)}" if always else ""
    text += f"; not settled: {_counted(verdict['open'], seeds)}" if verdict["open"] else ""
    return text + "."


def _counted(counts: Mapping[str, int], seeds: int) -> str:
    """`forget accuracy in 2, membership AUC`: the names alone where it was under every seed."""
    titles = {KINDS[key].title: count for key, count in counts.items()}
    return ", ".join(title if count == seeds else f"{title} in {count}" for title, count in titles.items())


def _entry(name: str, runs: Sequence[Run]) -> Entry:
    whole = [run for run in runs if "models" in run]
    blocks = [run["contest"] if "models" in run else run for run in runs]
    figures = {
        metric.key: over_seeds([metric.read(run) if "models" in run else None for run in runs]) for metric in FIGURES
    }
    durability = _durability([run.get("stress") for run in runs])
    more: Any = {"durability": durability} if durability else {}
    unknown: Method = {"name": name, "paper": None, "hyperparameters": None}
    method = whole[0]["method"] if whole else unknown
    return {
        "name": name,
        "kind": kind_of(name),
        "method": method,
        "figures": figures,
        "verdict": judged_over_seeds(whole),
        "best": False,
        "tried": [block["tried"] for block in blocks],
        "failed": [f"seed {block['seed'] + 1}: {block['failed']}" for block in blocks if block["failed"]],
        **more,
    }


def _durability(blocks: Sequence[Run | None]) -> dict[str, dict[str, dict[str, DurabilityCell]]]:
    """Every cell of the grid over seeds; empty where no model was disturbed."""
    grids = [block["cells"] if block else {} for block in blocks]
    shape: Mapping[str, Any] = next((grid for grid in grids if grid), {})

    def cell(weights: str, kind: str, key: str) -> DurabilityCell:
        found = [grid.get(weights, {}).get(kind, {}).get(key) for grid in grids]
        twins = [each and each["twins"] for each in found]
        return {
            "unlearned": over_seeds([each and each["unlearned"] for each in found]),
            "twins": over_seeds([each and each["mean"] for each in twins]),
            "spread": over_seeds([each and each["spread"] for each in twins]),
            "difference": over_seeds([each and each["difference"] for each in found]),
            "apart": sum(bool(each and each["apart"]) for each in found),
        }

    return {
        weights: {kind: {key: cell(weights, kind, key) for key in figures} for kind, figures in kinds.items()}
        for weights, kinds in shape.items()
    }


def _point(entry: Entry) -> dict[str, float] | None:
    """Where an entry stands in the three that it is dominated in; nowhere where it broke down under a seed, as a mean
    over the others is of the seeds that were good to it."""
    if entry["failed"]:
        return None
    found = [entry["figures"][key] for key in ("distance", "test_accuracy", "cost")]
    if any(figure is None for figure in found):
        return None
    gap, accuracy, cost = (figure["mean"] for figure in found if figure is not None)
    return {"gap": gap, "accuracy": accuracy, "cost": cost}


def _notes(runs: Mapping[str, Sequence[Run]], tune: int, accuracy: str) -> list[str]:
    seeds = len(runs[NOTHING])
    unit = (runs[NOTHING][0].get("units") or {}).get("loss", "nats")
    notes = [
        "Distance: the mean of the gaps in forget accuracy and membership AUC to the mean of the twins, in points; "
        "twin: the same of each twin against the others. Another twin is one more, judged as if a method had made it.",
        "Marked: the best of a figure, and where less is better all within the floor, because what is as close as a "
        "twin cannot be told apart.",
        f"Losses are in {unit}." if accuracy == ACCURACY else f"Accuracy is {accuracy} here; losses are in {unit}.",
    ]
    if seeds > 1:
        notes.append(
            f"±: half the 95 % interval of the mean over {seeds} seeds (Student's t), each with an original and twins "
            "of its own."
        )
    else:
        notes.append("One seed: differences between methods hold for it alone, and have no interval.")
    if tune:
        notes.append(
            f"Tuned: the best of {tune} learning rates, the default among them, by forget and validation rows alone; "
            "its cost is that of all of them and of valuing them. The others have their defaults."
        )
    machines = {
        (run["environment"].get("device"), run["environment"].get("cpu_count"))
        for found in runs.values()
        for run in found
        if "models" in run
    }
    if len(machines) > 1:
        notes.append("The runs were made on different machines: compare examples, not seconds.")
    shared = runs[NOTHING][0]["notes"]
    return notes + [note for note in shared if all(note in run["notes"] for run in runs[NOTHING])]
