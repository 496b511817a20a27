"""The durability grid on the model card: figures and counts, of no single row."""

from collections.abc import Mapping
from typing import Any

from hf_unlearn.report.robustness import FIGURES, MARK, ON_SCREEN, WEIGHTS, grid, sentences
from hf_unlearn.report.table import ABSENT

INTRO = (
    "Copies of every model were fine-tuned on rows of the kind in the first column, and quantized afterwards. In each "
    "cell: this model, then its retrained twins, their mean ± the standard deviation between them{}. What counts is "
    "how far it stands from them: a twin learns such rows too."
)


def durability_markdown(block: Mapping[str, Any] | None) -> list[str]:
    """The card's section as paragraphs, its heading first; empty where the models were not disturbed."""
    if not block:
        return []
    tables = [text for key in ON_SCREEN if (text := _table(block, key))]
    if not tables:
        return []
    alone = all(
        found["twins"] is None for key in ON_SCREEN for _, cells in grid(block, key) for found in cells if found
    )
    intro = INTRO.format(" (there is none here)" if alone else "")
    notes = "\n".join(f"- {_plain(text)}" for text in (*sentences(block), MARK))
    return ["## Does it come back?", intro, *tables, notes]


def _table(block: Mapping[str, Any], key: str) -> str:
    """The grid of one figure, kinds of rows by kinds of weights."""
    name, show = FIGURES[key]
    lines = [f"| {name} | " + " | ".join(WEIGHTS.values()) + " |", "| --- |" + " ---: |" * len(WEIGHTS)]
    for title, cells in grid(block, key):
        lines.append(f"| {title} | " + " | ".join(_cell(found, show) for found in cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _cell(found: Mapping[str, Any] | None, show) -> str:
    if found is None:
        return ABSENT
    own = show(found["unlearned"]) + (r"\*" if found["apart"] else "")
    twins = found["twins"]
    if twins is None:
        return own
    spread = "" if twins["spread"] is None else f" ± {show(twins['spread'])}"
    return f"{own} ({show(twins['mean'])}{spread})"


def _plain(text: str) -> str:
    """`text` without what Markdown would take for markup."""
    return text.replace("*", r"\*").replace("<", "&lt;")
