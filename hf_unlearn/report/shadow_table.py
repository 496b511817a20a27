"""The evidence block `lira` as cells and words: what a pool of shadow models says of a method."""

from collections.abc import Callable, Mapping
from typing import Any

from hf_unlearn.report.table import ABSENT, Row, number, percent

Figures = Mapping[str, Any]


def shadow_rows(block: Mapping[str, Any] | None) -> list[Row]:
    """A line for each verdict, a column for each kind of model. Lines that nobody has a figure of are left out."""
    kinds = _kinds(block)
    body = [(label, *(cell(figures) for figures in kinds.values())) for label, cell in _LINES.items()]
    body = [row for row in body if set(row[1:]) - {ABSENT}]
    return [("", *kinds), *body] if body else []


def sentences(block: Mapping[str, Any]) -> list[str]:
    """How large the pool was."""
    targets = f"{block['targets']:,} target{'s' * (block['targets'] != 1)}"
    text = f"{block['audited_rows']:,} audited rows, {block['shadows']:,} shadow models, {targets}"
    most = block.get("memorized_rows")
    return [f"{text}." if most is None else f"{text}; the {most:,} rows that shadows memorize most stand apart."]


def _kinds(block: Mapping[str, Any] | None) -> dict[str, Figures]:
    """Figures by kind of model; those of an attack by U-LiRA alone stand in the block itself."""
    block = block or {}
    found = block.get("models") or block
    return {name: value for name, value in found.items() if isinstance(value, Mapping)}


def _attack(key: str) -> Callable[[Figures], str]:
    return lambda figures: _share(figures.get(key))


def _tpr(figures: Figures) -> str:
    return _share((figures.get("tpr") or {}).get("0.01"))


def _share(figure: Any) -> str:
    """A share in percent with its interval."""
    if not isinstance(figure, Mapping) or figure.get("value") is None:
        return ABSENT
    ends = figure.get("interval")
    return percent(figure["value"], 1) + (f" [{', '.join(percent(end, 1) for end in ends)}]" if ends else "")


def _over_rows(name: str, null: str) -> Callable[[Figures], str]:
    """Median over rows; in brackets the 95th percentile, and what the median is by chance."""

    def cell(figures: Figures) -> str:
        if figures.get(f"{name}_median") is None:
            return ABSENT
        values = [figures[f"{name}_median"], figures.get(f"{name}_p95"), figures.get(null)]
        median, high, chance = (number(value, 2) for value in values)
        return f"{median} [{high}; {chance}]"

    return cell


_LINES: dict[str, Callable[[Figures], str]] = {
    "U-LiRA, AUC (%)": _attack("auc"),
    "U-LiRA, TPR at 1 % FPR (%)": _tpr,
    "RULI privacy, AUC (%)": _attack("privacy_auc"),
    "RULI privacy, most memorized (%)": _attack("privacy_memorized_auc"),
    "RULI efficacy, AUC (%)": _attack("efficacy_auc"),
    "RULI efficacy, most memorized (%)": _attack("efficacy_memorized_auc"),
    "KLoM (nats) [95 %; by chance]": _over_rows("klom", "klom_null_median"),
    "ε [95 %; by chance]": _over_rows("epsilon", "null_median"),
}
