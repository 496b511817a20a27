"""What an audit found: its file, named and typed, and the screen. Nothing of it is of a single row."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from hf_unlearn.report.blocks import AttackFigure, Environment, Interval, Request
from hf_unlearn.report.screen import aligned
from hf_unlearn.report.table import ABSENT, WIDTH, Row, number, percent

KNOWN, ALIKE, UNJUDGED = "known", "not told apart", "not judged"
VERDICTS = {
    KNOWN: "The model knows these rows better than unseen ones.",
    ALIKE: "These rows are not told apart from unseen ones. That is no proof that they were not trained on.",
    UNJUDGED: "Without unseen rows it cannot be said which rows stand out: only what the model gained over the base.",
}
FIGURES = {
    "loss": ("mean loss (nats)", lambda value: number(value, 3)),
    "accuracy": ("accuracy (%)", lambda value: percent(value, 1)),
    "extraction_strength": ("extraction strength (%)", lambda value: percent(value, 1)),
    "exact_memorization": ("tokens known by heart (%)", lambda value: percent(value, 1)),
}
MOST_LISTED = 20
PRIVATE = "They are private: they stand on this screen only"


class StandingOut(TypedDict):
    """Rows that score above all but the share `false_positive_rate` of unseen rows: how many, how many chance would
    give, and how likely so many are by chance."""

    false_positive_rate: float
    count: int
    expected: float
    share: AttackFigure
    p_value: float


class Gained(TypedDict):
    """Loss of the base minus that of the model, by row: its mean, and the share of rows on which it is above 0."""

    mean: float
    interval: Interval
    share: AttackFigure


class Audit(TypedDict):
    """The file `audit.json`. `figures[figure][rows]` with the rows `audited`, `unseen` and, by the base model,
    `audited_base` and `unseen_base`. `score` says what rows are ranked by. `p_value`: how likely rows that are alike
    would look so well known, by ranks, mean and rows that stand out together."""

    schema_version: int
    task: str
    parameters: int
    source: str
    request: Request | None
    rows: dict[str, int]
    score: str
    figures: dict[str, dict[str, float | None]]
    auc: AttackFigure | None
    p_value: float | None
    standing_out: StandingOut | None
    gained: Gained | None
    verdict: str
    seed: int | None
    environment: Environment
    notes: list[str]


def render_audit(found: Mapping[str, Any], rows: Sequence[int] = (), rows_file: str | None = None) -> str:
    """The screen. `rows` are the numbers of those that stand out, the first of which are listed."""
    parts = [_what(found), aligned(_figures(found)), *_judged(found), VERDICTS[found["verdict"]]]
    if rows:
        listed = ", ".join(map(str, rows[:MOST_LISTED])) + (" …" if len(rows) > MOST_LISTED else "")
        where = f" and in {rows_file}." if rows_file else "; --rows_file keeps them all."
        chance = f"about {found['standing_out']['expected']:.0f} do by chance"
        parts.append(f"Rows that stand out ({chance}), most first, counted from 0: {listed}. {PRIVATE}{where}")
    words = [part if "\n" in part else textwrap.fill(part, WIDTH) for part in parts]
    notes = [textwrap.fill(note, WIDTH) for note in found["notes"]]
    return "\n\n".join([*words, "\n".join(notes)])


def _what(found: Mapping[str, Any]) -> str:
    rows = found["rows"]
    unseen = f" beside {rows['unseen']:,} unseen ones" if rows.get("unseen") else ""
    return f"What the model remembers of {rows['audited']:,} rows{unseen}. Rows are ranked by {found['score']}."


def _figures(found: Mapping[str, Any]) -> list[Row]:
    named = {"audited": "audited", "unseen": "unseen", "audited_base": "audited, base", "unseen_base": "unseen, base"}
    columns = [column for column in named if any(column in figure for figure in found["figures"].values())]
    rows: list[Row] = [("", *(named[column] for column in columns))]
    for key, (name, show) in FIGURES.items():
        if key in found["figures"]:
            rows.append((name, *(show(found["figures"][key].get(column)) for column in columns)))
    return rows


def _judged(found: Mapping[str, Any]) -> list[str]:
    lines, out, gained = [], found["standing_out"], found["gained"]
    if found["auc"] is not None:
        lines.append(f"AUC of audited against unseen rows: {_figure(found['auc'])} %; 50 where they are alike.")
    if out is not None:
        lines.append(
            f"Standing out at {100 * out['false_positive_rate']:g} % false positives: {out['count']:,} rows, "
            f"{_figure(out['share'])} %; chance gives {out['expected']:.1f}, and so many or more with p = "
            f"{out['p_value']:.2g}."
        )
    if found["p_value"] is not None:
        lines.append(f"Rows that are alike would look so well known with p = {found['p_value']:.2g}, all told.")
    if gained is not None:
        ends = ", ".join(number(end, 3) for end in gained["interval"])
        lines.append(
            f"Gained over the base: {number(gained['mean'], 3)} nats [{ends}] by row; {_figure(gained['share'])} % of "
            "rows are known better than by the base."
        )
    return lines


def _figure(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return ABSENT
    ends = f" [{', '.join(percent(end, 1) for end in found['interval'])}]" if found["interval"] else ""
    return percent(found["value"], 1) + ends
