"""Several runs side by side, as a page."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from hf_unlearn.report.compare import compare


def run_names(runs: Sequence[Mapping[str, Any]], folders: Sequence[str]) -> list[str]:
    """Methods; where one occurs more than once, the folders' own names."""
    methods = [str(run["method"]["name"]) for run in runs]
    own = [Path(folder).resolve().name for folder in folders]
    if len(set(methods)) == len(methods):
        return methods
    return own if len(set(own)) == len(own) else [str(folder) for folder in folders]


def compare_runs(runs: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> str:
    """Several runs side by side as a self-contained page. Raises `UserError` where they are not comparable."""
    from hf_unlearn.report import plots as draw
    from hf_unlearn.report.page import bullets, page, paragraph, plot, plots, section, table

    found = compare(runs, names)
    forget = (runs[0]["data"]["splits"] or {}).get("forget")
    count = "The same rows" if forget is None else f"The same {forget:,} rows"
    intro = paragraph(f"{count} were forgotten in {len(runs)} runs, and each result measured against retrained twins.")
    best = [[False, *marks, False] for marks in found.best]
    figures = ""
    if len(found.points) > 1:
        alt = "; ".join(
            f"{p['name']}: gap {p['gap']:.2f} points, test accuracy {p['accuracy']:.2f} %"
            + ("" if p["cost"] is None else f", cost {100 * p['cost']:.0f} % of one retraining")
            for p in found.points
        )
        caption = (
            "The gap is the mean of forget accuracy and membership; the area of a marker is the cost, from none to \
that of two retrainings. Ringed: no other is as good in all three. "
            + alt
            + "."
        )
        svg = draw.svg(draw.pareto(found.points, found.forgetting_floor), "pareto", escape(f"Scatter plot. {alt}."))
        figures = plots([plot(svg, "Forgetting, utility, cost", caption)])
    sections = [
        "<h1>Unlearning runs compared</h1>",
        intro,
        section("What each shows", bullets(found.verdicts)),
        section(
            "Figures",
            table(found.rows, "Unlearned models by method; ★: best of the row", best=best),
            bullets(found.notes),
        ),
        section("Forgetting, utility and cost", figures),
    ]
    return page("Unlearning runs compared", "\n".join(part for part in sections if part))
