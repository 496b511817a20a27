"""The evidence as a table: aligned text for the screen, Markdown for the card."""

import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from hf_unlearn.report.drawn import drawn_rows, drawn_sentences
from hf_unlearn.report.said_instead import LABEL, kl_of
from hf_unlearn.report.sampled import sampled_words
from hf_unlearn.report.verdict import headline, verdict

WIDTH = 100
ABSENT = "–"
SPLITS = ("forget", "retain", "test")
COST_KEYS = {
    "seconds": ("original_seconds", "unlearn_seconds", "retrain_seconds"),
    "examples": ("original_examples", "unlearn_examples", "retrain_examples"),
    "peak memory (MB)": (None, "peak_memory_mb", None),
}

Row = tuple[str, ...]


def render_table(evidence: Mapping[str, Any]) -> str:
    """Aligned text of at most 100 columns: the figures, the verdict, what they allow to say, then the run's notes."""
    header, *rows = table_rows(evidence)
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Row) -> str:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "   ".join([row[0].ljust(widths[0]), *cells]).rstrip()

    lines = [line(header), "─" * (sum(widths) + 3 * (len(widths) - 1)), *(line(row) for row in rows)]
    text = [textwrap.fill(sentence, WIDTH) for sentence in remarks(evidence)]
    judged = ((evidence["models"]["retrained"] or {}).get("twins") or 0) > 1
    first = [textwrap.fill(headline(evidence), WIDTH), ""] if judged else []
    return "\n".join([*lines, "", *first, *text])


def render_markdown(evidence: Mapping[str, Any]) -> str:
    """The same table in Markdown, without the sentences."""
    header, *rows = table_rows(evidence)
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def remarks(evidence: Mapping[str, Any]) -> list[str]:
    """What stands below the figures: the legend, what they allow to say, and the run's notes."""
    drawn = drawn_sentences(evidence.get("drawn"))
    return [legend(evidence), *drawn, *sampled_words(evidence), *verdict(evidence), *(evidence.get("notes") or [])]


def unit_of(evidence: Mapping[str, Any], figure: str) -> str:
    """What the evidence calls `accuracy`, or the unit of `loss`."""
    return (evidence.get("units") or {}).get(figure) or {"accuracy": "accuracy", "loss": "nats"}[figure]


def legend(evidence: Mapping[str, Any], *, costs: bool = True) -> str:
    """What the columns `gap` and `floor` hold, and with `costs` the brackets behind these."""
    known = [model for model in evidence["models"].values() if model]
    sets = "accuracy: rows with all labels right. " if any(model.get("f1") for model in known) else ""
    if not evidence["models"]["retrained"]:
        return f"{sets}retrained, gap, floor: no twin was trained or given."
    also = ", KS distance and what is said instead" if evidence.get("said_instead") else " and KS distance"
    return (
        f"{sets}gap: unlearned to the mean of the twins; floor: a twin to the others; in points, losses in "
        f"{unit_of(evidence, 'loss')}. Row figures{also} are against the twins, and theirs each against the others."
    ) + (" ±: standard error over rows. In brackets: share of one retraining." if costs else "")


def table_rows(evidence: Mapping[str, Any], *, intervals: bool = False) -> list[Row]:
    """Header and body, each `(label, original, unlearned, retrained, gap, floor)`, as text.

    Figures that were measured of no model are left out. With `intervals` a figure is followed by its 95 % interval
    over rows, `[low, high]`, that of twins by their range.
    """
    models, gap, floor = evidence["models"], evidence["gap"], evidence["floor"]
    retrained = models["retrained"]
    twins = f" ×{retrained['twins']}" if retrained else ""
    columns = [models["original"], models["unlearned"], retrained]
    rows: list[Row] = [("", "original", "unlearned", f"retrained{twins}", "gap", "floor")]

    def add(label: str, cell: Callable[[Mapping], str], key: str | None = None, digits: int = 2) -> None:
        cells = [ABSENT if model is None else cell(model) for model in columns]
        if intervals and key is not None:
            cells = [text + _interval(model, key) for text, model in zip(cells, columns, strict=True)]
        ends = [ABSENT if key is None else number(block.get(key), digits) for block in (gap, floor)]
        rows.append((label, *cells, *ends))

    for split in SPLITS:
        add(f"{split} {unit_of(evidence, 'accuracy')} (%)", partial(_accuracy, split), f"{split}_accuracy")
    for key in dict.fromkeys(key for model in columns if model for key in model.get("f1") or {}):
        split, average, _ = key.split("_")
        if split in SPLITS:
            add(f"{split} {average} F1 (%)", partial(_f1, key), key)
    for split in SPLITS:
        add(f"{split} loss ({unit_of(evidence, 'loss')})", partial(_loss, split), f"{split}_loss", digits=4)
    add("membership AUC (%)", _auc if intervals else _membership, "membership")
    add("rms z of forget rows", lambda m: number(m["rows"]["rms_z"]))
    add("  level-corrected", lambda m: number(m["rows"]["level_corrected"]["rms_z"]))
    add("still remembered (% of rows)", lambda m: percent(m["rows"]["remembered"]))
    add("over-forgotten (% of rows)", lambda m: percent(m["rows"]["over_forgotten"]))
    for name in dict.fromkeys(name for model in columns if model for name in model["further"]):
        add(name.replace("_", " "), partial(_further, name))
    rows += drawn_rows(evidence.get("drawn"))
    ks = (evidence.get("distributions") or {}).get("ks")
    if ks:
        cells = [number((ks.get(name) or {}).get("distance")) for name in ("original", "unlearned")]
        floors = [found["floor"] for found in ks.values() if found]
        rows.append(("KS distance of forget losses", *cells, number(floors[0] if floors else None), ABSENT, ABSENT))
    said = [number(kl_of(evidence, name), 3) for name in ("original", "unlearned", "twins")]
    rows.append((LABEL, *said, ABSENT, ABSENT))
    for label, keys in COST_KEYS.items():
        values = [None if key is None else evidence["cost"].get(key) for key in keys]
        cells = [number(value, 1 if label == "seconds" else 0) for value in values]
        if label != "peak memory (MB)" and values[1] is not None and values[2]:
            cells[1] += f" ({100 * values[1] / values[2]:.0f} %)"
        rows.append((label, *cells, ABSENT, ABSENT))
    return [row for row in rows if set(row[1:]) != {ABSENT}]


def number(value: float | None, digits: int = 2) -> str:
    return ABSENT if value is None else f"{value:,.{digits}f}"


def percent(fraction: float | None, digits: int = 2) -> str:
    return ABSENT if fraction is None else f"{100 * fraction:.{digits}f}"


def _interval(model: Mapping[str, Any] | None, key: str) -> str:
    interval = None if model is None else (model.get("intervals") or {}).get(key)
    if interval is None:
        return ""
    low, high = (number(v, 3) if key.endswith("_loss") else percent(v, 1) for v in interval)
    return f" [{low}, {high}]"


def _accuracy(split: str, model: Mapping) -> str:
    return percent(model["accuracy"][split])


def _f1(key: str, model: Mapping) -> str:
    return percent((model.get("f1") or {}).get(key))


def _further(name: str, model: Mapping) -> str:
    return number(model["further"].get(name), 3)


def _loss(split: str, model: Mapping) -> str:
    return number(model["loss"][split], 4)


def _auc(model: Mapping[str, Any]) -> str:
    return percent(model["membership"]["loss_auc"], 1)


def _membership(model: Mapping[str, Any]) -> str:
    value, error = model["membership"]["loss_auc"], model["membership"]["loss_auc_se"]
    return percent(value) if value is None or error is None else f"{percent(value, 1)} ± {percent(error, 1)}"
