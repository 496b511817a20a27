"""Answers side by side: a few on the screen, all on a page that stays on this machine, figures in the report."""

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hf_unlearn.report.page import page, paragraph, section
from hf_unlearn.report.table import Row, number, percent

PAGE = "answers.html"
STAYS = "This page quotes rows and what models say of them. It is for the people at this machine and is never pushed."
TITLES = {"forgotten": "Forgotten rows", "kept": "Kept rows", "general": "General questions"}
HEADER: Row = ("", "original", "unlearned", "twins")
FIGURES = {"rouge": "ROUGE-L recall", "repetition": "repetition, %", "refusals": "refusals, %"}
WIDTH = 100  # characters of a line on the screen


def answer_rows(block: Mapping[str, Any] | None) -> list[Row]:
    """The evidence block `answers` as a table, header first; empty without the block."""
    if not block:
        return []
    rows = [HEADER]
    for kind, figures in block["figures"].items():
        for key, models in figures.items():
            show = (lambda value: number(value, 3)) if key == "rouge" else percent
            label = f"{FIGURES[key]}, {TITLES[kind].lower()} ({block['rows'][kind]})"
            rows.append((label, *(show(models[model]) for model in HEADER[1:])))
    return rows


def answers_text(sheets: Mapping[str, Sequence[Mapping[str, Any]]], most: int = 3) -> str:
    """At most so many questions of each kind with all answers, wrapped for a terminal."""
    lines = []
    for kind, sheet in sheets.items():
        for entry in sheet[:most]:
            lines += ["", f"{TITLES[kind].lower()}: {entry['question']}"]
            wide = max(len(who) for who, _ in entry["rows"])
            for who, text in entry["rows"]:
                start = f"  {who:<{wide}}  "
                lines.append(
                    textwrap.fill(text or "(nothing)", WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
                )
    return "\n".join(lines[1:])


def answers_page(sheets: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """All questions with all answers, as a self-contained page; every text is escaped."""
    parts = ["<h1>Answers side by side</h1>", paragraph(STAYS, "muted")]
    for kind, sheet in sheets.items():
        parts.append(section(TITLES[kind], *(_entry(entry) for entry in sheet)))
    return page("Answers side by side", "\n".join(part for part in parts if part))


def _entry(entry: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{escape(who)}</th><td>{escape(text) or "(nothing)"}</td></tr>'
        for who, text in entry["rows"]
    )
    return (
        f'<p><strong>{escape(entry["question"])}</strong></p>\n<table class="text"><tbody>\n{rows}\n</tbody></table>'
    )
