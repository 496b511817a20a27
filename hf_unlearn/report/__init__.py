"""Renderings of the evidence: the file itself, the table, the model card. Nothing here needs torch."""

from hf_unlearn.report.card import render_card
from hf_unlearn.report.evidence import SCHEMA_VERSION, build_evidence, environment, validate, write_json
from hf_unlearn.report.table import render_markdown, render_table
from hf_unlearn.report.verdict import verdict

__all__ = [
    "SCHEMA_VERSION",
    "build_evidence",
    "environment",
    "render_card",
    "render_markdown",
    "render_table",
    "validate",
    "verdict",
    "write_json",
]
