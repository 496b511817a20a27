"""The evidence block `stress` as a table: each disturbance, and what it brought back."""

from collections.abc import Mapping
from typing import Any

from hf_unlearn.report.table import ABSENT, Row, number, percent

HEADER: Row = ("", "original", "unlearned", "twins", "beyond twins")
TITLES = {
    ("relearning", "few_forget_rows"): "{steps} steps on {rows} forget rows",
    ("relearning", "related_retain_rows"): "{steps} steps on {rows} related retain rows",
    ("quantization", "int8"): "8-bit weights",
    ("quantization", "int4"): "4-bit weights",
    ("paraphrases", "questions"): "paraphrased questions",
}
FIGURES = {
    "forget_accuracy": ("forget accuracy (%)", percent),
    "forget_loss": ("forget loss (nats)", number),
    "membership_auc": ("membership AUC (%)", percent),
    "unseen_accuracy": ("unseen accuracy (%)", percent),
}


def robustness_rows(block: Mapping[str, Any] | None) -> list[Row]:
    """Header and body; a cell holds `before → after`, the last one by how much the unlearned model's change exceeds
    the mean change of the twins, with the range of theirs. Empty where nothing was checked."""
    rows: list[Row] = []
    for (check, kind), text in TITLES.items():
        found = ((block or {}).get(check) or {}).get(kind)
        if not found:
            continue
        title = text.format(steps=found.get("steps"), rows=found.get("rows"))
        for key, (name, show) in FIGURES.items():
            cells = [_cell(found.get(model), key, show) for model in ("original", "unlearned", "twins")]
            rows.append((f"{title}: {name}", *cells, _beyond(found.get("beyond_twins"), key, show)))
    return [HEADER, *rows] if rows else []


def _cell(model: Mapping[str, Any] | None, key: str, show) -> str:
    return ABSENT if model is None else f"{show(model['before'][key])} → {show(model['after'][key])}"


def _beyond(block: Mapping[str, Any] | None, key: str, show) -> str:
    found = (block or {}).get(key)
    if found is None:
        return ABSENT
    low, high = found["twins"]["lowest"] - _mean(found), found["twins"]["highest"] - _mean(found)
    ends = "" if low == high else f" [{show(low)}, {show(high)}]"  # there is but one twin
    return show(found["beyond"]) + ends


def _mean(found: Mapping[str, Any]) -> float:
    """Mean change of the twins."""
    return found["change"] - found["beyond"]
