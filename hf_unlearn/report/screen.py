"""What a command prints of the evidence: the table of its figures, and what came back under stress."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from hf_unlearn.report.robustness import MARK, ON_SCREEN, curve_rows, grid_rows, sentences
from hf_unlearn.report.table import WIDTH, Row, render_table


def render_screen(evidence: Mapping[str, Any]) -> str:
    """The table with its remarks and, where the models were disturbed, the durability grid."""
    stress = evidence.get("stress")
    return render_table(evidence) + (f"\n\n{render_stress(stress)}" if stress else "")


def render_stress(block: Mapping[str, Any]) -> str:
    """The grid as aligned text of at most 100 columns."""
    head = "Does it come back? In each cell: unlearned | the twins' mean ± their standard deviation."
    tables = [aligned(grid_rows(block, key)) for key in ON_SCREEN]
    words = [textwrap.fill(sentence, WIDTH) for sentence in (*sentences(block), MARK)]
    return "\n\n".join([head, *(text for text in tables if text), aligned(curve_rows(block)), "\n".join(words)])


def aligned(rows: Sequence[Row]) -> str:
    """Rows as text, the first column to the left and the others to the right, with a rule below the header."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "   ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "─" * (sum(widths) + 3 * (len(widths) - 1)), *lines[1:]])
