"""What brings forgotten rows back, contestant by contestant, on the page of a contest."""

from html import escape
from typing import Any

from hf_unlearn.report.contest_blocks import Contest, DurabilityCell, Entry
from hf_unlearn.report.heat_map import COLOURED, colour
from hf_unlearn.report.page import paragraph
from hf_unlearn.report.robustness import FIGURES, KINDS, ON_SCREEN, signed, tuning_text
from hf_unlearn.report.table import ABSENT

QUANTIZED = {
    ("int8", "untouched"): "8 bits (int8)",
    ("nf4", "untouched"): "4 bits (NF4)",
    ("nf4", "few_forgotten_rows"): "4 bits (NF4) after relearning",
}
LEGEND = (
    "Each cell: the contestant minus its twins, and below its own figure. Orange: it remembers more than they do, "
    "blue: less; full colour at 20 points. *: apart from the twins (one more twin would lie as far away in less than "
    "5 % of cases) under more than half of the seeds; one cell in twenty is by chance. The last line has the twins' "
    "mean ± the standard deviation between them. The whole grid is in the evidence of each run."
)


def durability_section(contest: Contest) -> str:
    """A table for each figure, contestants by disturbances; empty without `--stress`."""
    terms = contest.get("stress")
    entries = [entry for entry in contest["entries"] if entry.get("durability")]
    if not terms or not entries:
        return ""
    columns = {("as_saved", kind): name.format(terms["rows"].get(kind, 0)) for kind, name in KINDS.items()} | QUANTIZED
    columns = {place: name for place, name in columns.items() if _cell_of(entries[0], place, "forget_accuracy")}
    tables = [_table(entries, columns, key) for key in ON_SCREEN]
    return "\n".join([paragraph(tuning_text(terms["protocol"])), *tables, paragraph(LEGEND, "muted")])


def _table(entries: list[Entry], columns: dict[tuple[str, str], str], key: str) -> str:
    name, show = FIGURES[key]
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in ("", *columns.values()))
    lines = []
    for entry in entries:
        cells = "".join(_cell(_cell_of(entry, place, key), key, show) for place in columns)
        lines.append(f'<tr><th scope="row">{escape(entry["name"])}</th>{cells}</tr>')
    twins = "".join(f"<td>{escape(_twins(_cell_of(entries[0], place, key), show))}</td>" for place in columns)
    lines.append(f'<tr><th scope="row">twins</th>{twins}</tr>')
    caption = escape(f"{name[0].upper()}{name[1:]}, contestants beside their twins")
    return (
        f'<p><strong>{caption}.</strong></p>\n<div class="wide" tabindex="0" role="region" aria-label="{caption}">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>"
    )


def _cell_of(entry: Entry, place: tuple[str, str], key: str) -> DurabilityCell | None:
    weights, kind = place
    return entry["durability"].get(weights, {}).get(kind, {}).get(key)


def _cell(found: DurabilityCell | None, key: str, show: Any) -> str:
    if found is None or found["unlearned"] is None:
        return f"<td>{ABSENT}</td>"
    own, difference = found["unlearned"]["mean"], found["difference"]
    if difference is None:
        return f"<td>{escape(show(own))}</td>"
    seeds = sum(value is not None for value in difference["values"])
    text = signed({"difference": difference["mean"], "apart": 2 * found["apart"] > seeds}, show)
    background = colour(difference["mean"], *COLOURED[key])
    style = f' style="background: {background}"' if background else ""
    return f'<td{style}><strong>{escape(text)}</strong><span class="interval">{escape(show(own))}</span></td>'


def _twins(found: DurabilityCell | None, show: Any) -> str:
    if found is None or found["twins"] is None:
        return ABSENT
    spread = found["spread"]
    return show(found["twins"]["mean"]) + ("" if spread is None else f" ± {show(spread['mean'])}")
