"""Runs of several methods on one request, side by side: methods × metrics, the best marked."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_unlearn.errors import UserError
from hf_unlearn.report.said_instead import LABEL, kl_of
from hf_unlearn.report.table import WIDTH, number
from hf_unlearn.report.verdict import headline, original_gap

Evidence = Mapping[str, Any]


@dataclass
class Metric:
    """One row of the comparison.

    Args:
        key: its name in files.
        read: the figure of a run, or `None`.
        original: that of doing nothing.
        floor: that of a twin. Runs at or below it cannot be told apart, so they are all marked as best.
        higher: whether more is better; then the floor only informs.
    """

    key: str
    title: str
    read: Callable[[Evidence], float | None]
    original: Callable[[Evidence], float | None] = lambda run: None
    floor: Callable[[Evidence], float | None] = lambda run: None
    higher: bool = False
    digits: int = 2


def _gap(title: str, key: str) -> Metric:
    return Metric(
        f"gap_{key}",
        title,
        lambda run: run["gap"][key],
        lambda run: original_gap(run["models"])[key] if run["models"]["retrained"] else None,
        lambda run: run["floor"][key],
    )


def _row(title: str, key: str, scale: float = 1.0) -> Metric:
    def of(name):
        def read(run):
            value = (run["models"][name] or {"rows": {}})["rows"].get(key)
            return None if value is None else scale * value

        return read

    return Metric(key, title, of("unlearned"), of("original"), of("retrained"))


def _accuracy(title: str, split: str) -> Metric:
    def of(name):
        def read(run):
            value = (run["models"][name] or {"accuracy": {}})["accuracy"].get(split)
            return None if value is None else 100 * value

        return read

    return Metric(f"{split}_accuracy", title, of("unlearned"), of("original"), of("retrained"), higher=True)


def _ks(key: str, model: str) -> Callable[[Evidence], float | None]:
    return lambda run: (((run.get("distributions") or {}).get("ks") or {}).get(model) or {}).get(key)


def _said(model: str) -> Callable[[Evidence], float | None]:
    return lambda run: kl_of(run, model)


def _cost(key: str) -> Callable[[Evidence], float | None]:
    return lambda run: run["cost"].get(key)


def cost_percent(run: Evidence) -> float | None:
    """Cost of the unlearning in percent of one retraining."""
    cost = run["cost"]
    for unit in ("examples", "seconds"):  # examples first: they do not depend on the machine
        if cost.get(f"unlearn_{unit}") is not None and cost.get(f"retrain_{unit}"):
            return 100 * cost[f"unlearn_{unit}"] / cost[f"retrain_{unit}"]
    return None


METRICS = (
    _gap("gap: forget accuracy (points)", "forget_accuracy"),
    _gap("gap: retain accuracy (points)", "retain_accuracy"),
    _gap("gap: test accuracy (points)", "test_accuracy"),
    _gap("gap: membership AUC (points)", "membership"),
    _gap("gap: average (points)", "average"),
    _row("rms z of forget rows", "rms_z"),
    _row("still remembered (% of rows)", "remembered", 100),
    _row("over-forgotten (% of rows)", "over_forgotten", 100),
    Metric(
        "ks",
        "KS distance of forget losses",
        _ks("distance", "unlearned"),
        _ks("distance", "original"),
        _ks("floor", "unlearned"),
    ),
    Metric("said_instead", LABEL, _said("unlearned"), _said("original"), _said("twins"), digits=3),
    _accuracy("retain accuracy (%)", "retain"),
    _accuracy("test accuracy (%)", "test"),
    Metric("seconds", "seconds", _cost("unlearn_seconds"), floor=_cost("retrain_seconds"), digits=1),
    Metric("examples", "examples", _cost("unlearn_examples"), floor=_cost("retrain_examples"), digits=0),
    Metric("cost", "cost (% of one retraining)", cost_percent, digits=0),
)
COSTS = ("seconds", "examples", "cost (% of one retraining)")


@dataclass
class Comparison:
    """What the renderings need.

    Args:
        rows: the header `("", "original", run, …, "twin")`, then the metrics, as text.
        best: `[row][run]` of the metrics, whether a run is among the best.
        verdicts, notes: sentences, one per run, and about the comparison.
        points, forgetting_floor: of the Pareto plot.
    """

    names: list[str]
    rows: list[tuple[str, ...]]
    best: list[list[bool]]
    verdicts: list[str]
    notes: list[str]
    points: list[dict[str, Any]]
    forgetting_floor: float | None


def compare(runs: Sequence[Evidence], names: Sequence[str] | None = None) -> Comparison:
    """Put runs side by side.

    Args:
        runs: evidences of at least two runs.
        names: of the columns; by default the methods, numbered where one occurs more than once.

    Raises:
        UserError: they are not about the same request, so that figures side by side would mean nothing.
    """
    check_comparable(runs)
    names = list(names or _numbered([str(run["method"]["name"]) for run in runs]))
    rows: list[tuple[str, ...]] = [("", "original", *names, "twin")]
    best = []
    for metric in METRICS:
        values = [metric.read(run) for run in runs]
        # Of the original and the twins there is one figure only if all runs were compared with the same.
        ends = [_shared([read(run) for run in runs]) for read in (metric.original, metric.floor)]
        if any(value is not None for value in values):
            original, *cells, floor = (number(v, metric.digits) for v in (ends[0], *values, ends[1]))
            rows.append((metric.title, original, *cells, floor))
            best.append(best_of(values, None if metric.title in COSTS else ends[1], metric.higher))
    between = _shared([forgetting(run["floor"]) for run in runs])
    verdicts = [f"{name}: {headline(run)}" for name, run in zip(names, runs, strict=True)]
    return Comparison(names, rows, best, verdicts, _notes(runs), _points(runs, names), between)


def check_comparable(runs: Sequence[Evidence]) -> None:
    """Raise `UserError` in one line unless all runs unlearned the same rows of the same data for the same task."""
    if len(runs) < 2:
        raise UserError("comparing takes at least two runs")
    facts = {
        "task": [run["task"] for run in runs],
        "data set": [run["data"]["source"] for run in runs],
        "numbers of rows": [run["data"]["splits"] for run in runs],
        "forgotten rows": [run["data"]["forget_digest"] for run in runs],
    }
    for name, values in facts.items():
        other = next((i for i, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            raise UserError(
                f"runs 1 and {other + 1} are not comparable: their {name} differ; compare runs of one request and seed"
            )


def comparison_text(comparison: Comparison) -> str:
    """Aligned text; the best runs of a row carry a star."""
    header, *body = comparison.rows
    marked = [header]
    for (label, original, *cells, twin), marks in zip(body, comparison.best, strict=True):
        starred = [f"{cell} {'*' if mark else ' '}" for cell, mark in zip(cells, marks, strict=True)]
        marked.append((label, original, *starred, twin))
    widths = [max(len(row[i]) for row in marked) for i in range(len(header))]
    lines = [
        "   ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in marked
    ]
    lines.insert(1, "─" * (sum(widths) + 3 * (len(widths) - 1)))
    return "\n".join([*lines, "", *(textwrap.fill(note, WIDTH) for note in comparison.verdicts + comparison.notes)])


def best_of(values: Sequence[float | None], floor: float | None, higher: bool) -> list[bool]:
    """Which runs to mark: the best, and where less is better all that a twin would not beat."""
    known = [value for value in values if value is not None]
    if higher:
        return [value is not None and value == max(known) for value in values]
    limit = min(known) if floor is None else max(min(known), floor)
    return [value is not None and value <= limit for value in values]


def _points(runs: Sequence[Evidence], names: Sequence[str]) -> list[dict[str, Any]]:
    """What the Pareto plot shows: the runs, and the original, which costs nothing. Empty where a figure is missing."""
    points = []
    first = runs[0]["models"]
    if first["original"] and first["retrained"]:
        gap, accuracy = original_gap(first), first["original"]["accuracy"]["test"]
        points.append({"name": "original", "gap": forgetting(gap), "accuracy": accuracy, "cost": 0.0})
    for name, run in zip(names, runs, strict=True):
        unlearned, share = run["models"]["unlearned"], cost_percent(run)
        accuracy = unlearned["accuracy"]["test"] if unlearned else None
        cost = None if share is None else share / 100
        points.append({"name": name, "gap": forgetting(run["gap"]), "accuracy": accuracy, "cost": cost})
    points = [p | {"accuracy": 100 * p["accuracy"]} for p in points if None not in (p["gap"], p["accuracy"])]
    return [point | {"best": not any(dominates(other, point) for other in points)} for point in points]


def forgetting(gap: Mapping[str, float | None]) -> float | None:
    """Mean of the two gaps that are about the forgotten rows, in points."""
    accuracy, membership = gap["forget_accuracy"], gap["membership"]
    return None if accuracy is None or membership is None else (accuracy + membership) / 2


def dominates(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """No worse in all three and better in one; an unknown cost beats none and is beaten by none."""
    ones, others = ((p["gap"], -p["accuracy"], p["cost"]) for p in (one, other))
    if None in (ones[2], others[2]):
        return False
    return all(a <= b for a, b in zip(ones, others, strict=True)) and ones != others


def _notes(runs: Sequence[Evidence]) -> list[str]:
    notes = [
        "Marked: the best of a row; where less is better also all within the floor (column twin), because what is "
        "as close as a twin cannot be told apart. One run each: differences between runs hold for these seeds."
    ]
    if any(run["data"]["forget_digest"] is None for run in runs):
        notes.append("Whether the same rows were forgotten could not be checked: the evidence holds no digest.")
    if len({str(run["models"]["retrained"] and run["models"]["retrained"]["loss"]) for run in runs}) > 1:
        notes.append("The runs were compared with different twins, so gaps differ by more than the methods.")
    if len({(run["environment"].get("device"), run["environment"].get("cpu_count")) for run in runs}) > 1:
        notes.append("The runs were made on different machines: compare examples, not seconds.")
    return notes


def _shared(values: Sequence[float | None]) -> float | None:
    return values[0] if all(value is not None and value == values[0] for value in values) else None


def _numbered(names: Sequence[str]) -> list[str]:
    return [f"{name} {names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)]
