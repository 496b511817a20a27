"""A contest as tables of text: contestants down, figures across."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from hf_unlearn.report.compare import COSTS, Metric, best_of
from hf_unlearn.report.contest import FIGURES
from hf_unlearn.report.contest_blocks import Contest, OverSeeds
from hf_unlearn.report.table import ABSENT, WIDTH, number

SHORT = {  # what is shown on the terminal, by how it is called there
    "distance": "distance",
    "rms_z": "rms z",
    "said_instead": "KL",
    "retain_accuracy": "retain %",
    "test_accuracy": "test %",
    "cost": "cost %",
    "seconds": "seconds",
    "memory": "MB",
}
BARE = ("said_instead", "cost", "seconds", "examples", "memory")  # shown without an interval
FLOOR = "floor (a twin)"


@dataclass
class Table:
    """`rows`: the header, then one for each contestant, then the twins' own figures; `best[row][column]` of the body,
    without its first column."""

    rows: list[tuple[str, ...]]
    best: list[list[bool]]


def contest_table(contest: Contest, keys: Sequence[str], titles: Sequence[str] | None = None) -> Table:
    """The figures of these keys that any contestant has."""
    metrics = {metric.key: metric for metric in FIGURES}
    shown = [key for key in keys if any(entry["figures"][key] is not None for entry in contest["entries"])]
    names = dict(zip(keys, titles or [metrics[key].title for key in keys], strict=True))
    rows: list[tuple[str, ...]] = [("", *(names[key] for key in shown))]
    for entry in contest["entries"]:
        rows.append((entry["name"], *(_cell(entry["figures"][key], metrics[key]) for key in shown)))
    rows.append((FLOOR, *(_cell(contest["floor"][key], metrics[key]) for key in shown)))
    columns = [_marks(contest, metrics[key]) for key in shown]
    return Table(rows, [list(marks) for marks in zip(*columns, strict=True)])


def contest_text(contest: Contest) -> str:
    """The table for the screen, the best marked with a star, then what it allows to say."""
    says_words = any(entry["figures"].get("said_instead") for entry in contest["entries"])
    left_out = "memory" if says_words else None  # there is no room for both
    short = {key: title for key, title in SHORT.items() if key != left_out}
    found = contest_table(contest, list(short), list(short.values()))
    header, *body = found.rows
    marked = [(header[0], *(f"{title}  " for title in header[1:]))]
    for (name, *cells), marks in zip(body, found.best, strict=True):
        marked.append((name, *(f"{cell} {'*' if mark else ' '}" for cell, mark in zip(cells, marks, strict=True))))
    widths = [max(len(row[i]) for row in marked) for i in range(len(header))]
    lines = [
        " ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in marked
    ]
    rule = "─" * (sum(widths) + len(widths) - 1)
    lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    sentences = [*verdicts(contest), *broken(contest), *contest["notes"]]
    return "\n".join([*lines, "", *(textwrap.fill(sentence, WIDTH) for sentence in sentences)])


def verdicts(contest: Contest) -> list[str]:
    """A sentence for each verdict, with all contestants that have it; which of them no other beats in everything."""
    best = ", ".join(entry["name"] for entry in contest["entries"] if entry["best"])
    names: dict[str, list[str]] = {}
    for entry in contest["entries"]:
        names.setdefault(entry["verdict"]["text"], []).append(entry["name"])
    said = [f"{', '.join(who)}: {text}" for text, who in names.items()]
    if best:
        said.append(f"Not beaten by any other in distance, test accuracy and cost at once: {best}.")
    return said


def broken(contest: Contest) -> list[str]:
    """Who broke down, and who was passed over."""
    said = [f"{entry['name']} broke down: {'; '.join(entry['failed'])}." for entry in contest["entries"]
            if entry["failed"]]  # fmt: skip
    return said + [f"Passed over: {name} ({reason})." for name, reason in contest["passed_over"].items()]


def _cell(figure: OverSeeds | None, metric: Metric) -> str:
    if figure is None:
        return ABSENT
    text = number(figure["mean"], metric.digits)
    half = figure["half_width"]
    return text if half is None or metric.key in BARE else f"{text} ± {number(half, metric.digits)}"


def _marks(contest: Contest, metric: Metric) -> list[bool]:
    """Of each row whether it is among the best: methods only, for the others are there to compare with, and only those
    that broke down under no seed."""
    means = [
        figure["mean"] if figure is not None and runs else None
        for entry in contest["entries"]
        for figure in (entry["figures"][metric.key],)
        for runs in (entry["kind"] in ("method", "tuned") and not entry["failed"],)
    ]
    if not any(mean is not None for mean in means):
        return [False] * (len(means) + 1)
    floor = contest["floor"][metric.key]
    limit = None if floor is None or metric.title in COSTS else floor["mean"]
    return [*best_of(means, limit, metric.higher), False]
