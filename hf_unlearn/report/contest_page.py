"""`contest.html`: a contest as one self-contained page."""

from collections.abc import Sequence
from html import escape
from typing import Any

from hf_unlearn.report import plots as draw
from hf_unlearn.report.card import REQUESTS, hub_id
from hf_unlearn.report.contest_blocks import Contest, Entry
from hf_unlearn.report.contest_durability import durability_section
from hf_unlearn.report.contest_table import broken, contest_table, verdicts
from hf_unlearn.report.page import bullets, page, paragraph, plot, plots, section, table
from hf_unlearn.report.table import ABSENT, number

TITLE = "A contest of unlearning methods"
TABLES = {
    "Distance to the twins": (
        "distance", "gap_forget_accuracy", "gap_membership", "gap_forget_loss", "ks", "rms_z", "remembered",
        "over_forgotten",
    ),
    "Utility and cost": (
        "retain_accuracy", "test_accuracy", "gap_retain_accuracy", "gap_test_accuracy", "cost", "examples", "seconds",
        "memory",
    ),
    "Answers": (
        "forgotten_rouge", "kept_rouge", "general_rouge", "forgotten_repetition", "forgotten_refusals",
    ),
}  # fmt: skip
PLOTS = (
    ("cost", "distance", "Distance and cost"),
    ("test_accuracy", "distance", "Distance and utility"),
    ("memory", "distance", "Distance and memory"),
    ("cost", "rms_z", "Single rows and cost"),
)
AXES = {
    "cost": "cost (% of one retraining)",
    "test_accuracy": "test accuracy (%)",
    "memory": "peak memory (MB)",
    "distance": "distance to the twins (points)",
    "rms_z": "rms z of forget rows",
}
SHARES = {"test_accuracy"}  # what is near its upper end: the same at any scale but a linear one


def contest_page(contest: Contest) -> str:
    """The page; the same each time, and all that comes from `contest` is escaped."""
    sections = [
        f"<h1>{TITLE}</h1>",
        paragraph(_intro(contest)),
        section("What it shows", bullets(verdicts(contest)), bullets(broken(contest))),
        section("Distance, utility, cost", _pictures(contest)),
        section("Figures", *_tables(contest), bullets(contest["notes"])),
        section("Does it come back?", durability_section(contest)),
        section("The search for a learning rate", _search(contest)),
        section("How it was made", _made(contest)),
    ]
    return page(TITLE, "\n".join(part for part in sections if part))


def _intro(contest: Contest) -> str:
    first, seeds = contest["splits"][0], len(contest["seeds"])
    kind = REQUESTS.get(str((contest["request"] or {}).get("kind")))
    forget, retain = first["forget"] or 0, first["retain"] or 0
    text = f"{forget:,} training rows of {forget + retain:,} were to be forgotten"
    text += f" ({kind})" if kind else ""
    source = hub_id(contest["source"])
    text += f", data set {source}" if source else ""
    text += f". Task: {contest['task'].replace('_', ' ')}. "
    each = "each with an original and" if seeds > 1 else "with an original and"
    return text + f"{seeds} seed{'s' * (seeds > 1)}, {each} {contest['retrain']} retrained twins of its own."


def _tables(contest: Contest) -> list[str]:
    made = []
    for title, keys in TABLES.items():
        found = contest_table(contest, keys)
        if len(found.rows[0]) > 1:
            made.append(table(found.rows, f"{title}; ★: the best of the methods", best=found.best))
    return made


def _pictures(contest: Contest) -> str:
    figures = []
    for x, y, title in PLOTS:
        found = [_point(entry, x, y, _has_bars(contest)) for entry in contest["entries"]]
        points = [point for point in found if point is not None]
        if len(points) < 2:
            continue
        floor = contest["floor"][y]
        alt = "; ".join(f"{p['name']}: {AXES[x]} {p['x']:.3g}, {AXES[y]} {p['y']:.3g}" for p in points)
        svg = draw.svg(
            draw.contest(points, (AXES[x], AXES[y]), floor and floor["mean"], spread="y" if x in SHARES else "xy"),
            title.lower().replace(" ", "-").replace(",", ""),
            escape(f"Scatter plot. {alt}."),
        )
        figures.append(plot(svg, title))
    if not figures:
        return ""
    hint = (
        "Lower is better. Dotted: the floor, a twin against the others. Ringed: no other is as good in distance, test "
        "accuracy and cost. Squares are methods, diamonds those with a searched rate, the circle is the original, the "
        "triangle another twin."
    )
    if not any(entry["figures"]["memory"] for entry in contest["entries"]):
        hint += " Memory is measured on a GPU: on a CPU it is that of the whole process."
    crosses = " Bars: 95 % intervals over seeds, as far as the picture goes." if _has_bars(contest) else ""
    return plots(figures) + paragraph(hint + crosses, "muted")


def _has_bars(contest: Contest) -> bool:
    """With two seeds an interval is so wide that it would cover the picture; it stands in the table."""
    return len(contest["seeds"]) > 2


def _point(entry: Entry, x: str, y: str, bars: bool) -> dict[str, Any] | None:
    across, up = entry["figures"][x], entry["figures"][y]
    if across is None or up is None:
        return None
    return {
        "name": entry["name"],
        "kind": entry["kind"],
        "best": entry["best"],
        "x": across["mean"],
        "y": up["mean"],
        "bars": (across["half_width"], up["half_width"]) if bars else (None, None),
    }


def _search(contest: Contest) -> str:
    """Every rate that was tried, the chosen one marked."""
    rows: list[tuple[str, ...]] = [("", "seed", "rate: distance on validation rows (points)")]
    for entry in contest["entries"]:
        if entry["kind"] != "tuned":
            continue
        for k, tried in enumerate(entry["tried"], 1):
            known = [each["distance"] for each in tried if each["distance"] is not None]
            cells = [
                f"{number_of(each['learning_rate'])}: {number(each['distance'])}"
                + (" (chosen)" if known and each["distance"] == min(known) else "")
                for each in sorted(tried, key=lambda each: each["learning_rate"] or 0.0)
            ]
            rows.append((entry["name"], str(k), "; ".join(cells)))
    if len(rows) == 1:
        return ""
    text = (
        "A rate is valued by forget and validation rows alone: the mean of the gap in accuracy and of the distance of "
        "the attack's AUC from 50 %, and the accuracy on validation rows that was lost. – broke down."
    )
    return paragraph(text, "muted") + table(rows, "Learning rates", kind="text")


def number_of(rate: float | None) -> str:
    """`0.0005` as `5e-4`."""
    if rate is None:
        return ABSENT
    digits, _, exponent = f"{rate:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def _made(contest: Contest) -> str:
    parts = []
    seeds: Sequence[Any] = contest["seeds"]
    environment = contest["environment"]
    facts = [("", "value"), ("seeds", ", ".join(str(seed["run"]) for seed in seeds))]
    facts += [("original's seeds", ", ".join(str(seed["original"]) for seed in seeds))]
    facts += [(str(key), str(value)) for key, value in environment.items() if key not in ("packages", "seed")]
    facts += [(name, str(version)) for name, version in (environment["packages"] or {}).items()]
    parts.append(table(facts, "Seeds, machine and versions", kind="text"))
    for entry in contest["entries"]:
        settings = entry["method"]["hyperparameters"]
        if settings and entry["kind"] == "method":
            rows = [("", "value"), *((str(key), str(value)) for key, value in settings.items())]
            inner = table(rows, f"Hyperparameters of {entry['name']}", kind="text")
            parts.append(f"<details><summary>{escape(entry['name'])}</summary>{inner}</details>")
    return "\n".join(parts)
