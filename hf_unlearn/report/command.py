"""`hf-unlearn report FOLDER …`: the table of one run and its page, or several runs side by side."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from hf_unlearn.errors import UserError
from hf_unlearn.report.compare import compare, comparison_text
from hf_unlearn.report.evidence import validate
from hf_unlearn.report.table import render_table


def report_command(folders: Sequence[str], output: str | None = None) -> None:
    """Print what one run or several show, and write the page.

    Args:
        folders: of finished runs.
        output: where the page goes. Default: `report.html` in the folder of a single run; of several, only what is
            printed.
    """
    if not folders:
        raise UserError("report takes at least one folder: hf-unlearn report FOLDER")
    runs = [read_evidence(folder) for folder in folders]
    if len(runs) == 1:
        from hf_unlearn.report.html import render_html

        print(render_table(runs[0]))
        return _write(Path(output) if output else Path(folders[0]) / "report.html", render_html(runs[0]))
    names = run_names(runs, folders)
    print(comparison_text(compare(runs, names)))
    if output:
        _write(Path(output), compare_runs(runs, names))


def read_evidence(folder: str | Path) -> dict[str, Any]:
    """The evidence of a finished run. Raises `UserError` where there is none or it is of another version."""
    path = Path(folder) / "evidence.json"
    try:
        evidence = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} cannot be read; name the --output_dir of a finished run") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON (line {error.lineno})") from None
    missing = validate(evidence) if isinstance(evidence, dict) else ["everything"]
    if missing:
        raise UserError(f"{path} is no evidence of this version: {', '.join(missing[:3])} is missing")
    return evidence


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


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name another file") from None
    print(f"\nThe report is in {path}")
