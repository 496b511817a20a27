"""The evidence block `language` as a table."""

from collections.abc import Mapping
from typing import Any

from hf_unlearn.report.table import ABSENT, Row, number

HEADER: Row = ("", "original", "unlearned", "twins")
MODELS = ("original", "unlearned", "twins")
DEFINED = ("extraction_strength", "exact_memorization", "min_k", "min_k_plus_plus")  # whose definition matters
NAMES = {"min_k": "Min-K %", "min_k_plus_plus": "Min-K %++", "loss": "loss", "zlib": "zlib", "reference": "reference"}


def language_rows(block: Mapping[str, Any] | None) -> list[Row]:
    """Header and body; attacks with their 95 % intervals (for twins: the range). Empty without the block."""
    if not block:
        return []
    whose = f" ({block['definition']})" if block.get("definition") else ""
    rows = [HEADER]
    for key, models in block["figures"].items():
        name = key.replace("_", " ").replace("rouge", "ROUGE-L")
        name += whose if key.endswith(DEFINED) else ""
        rows.append((name, *(number(models.get(model), 3) for model in MODELS)))
    for key, models in block["attacks"].items():
        own = whose if key in DEFINED else ""
        rows.append((f"{NAMES.get(key, key)} attack: AUC{own}", *(_interval(models.get(model)) for model in MODELS)))
    leak = block["priv_leak"]
    rows.append(("PrivLeak (0 is ideal)", number(leak["original"], 1), number(leak["unlearned"], 1), ABSENT))
    for part, title in (("p_value", "forget quality (p)"), ("distance", "forget quality: KS distance")):
        rows.append((title, *(_quality((block["forget_quality"] or {}).get(model), part) for model in MODELS)))
    return rows


def _interval(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return ABSENT
    ends = f" [{figure['interval'][0]:.3f}, {figure['interval'][1]:.3f}]" if figure["interval"] else ""
    return f"{figure['value']:.3f}{ends}"


def _quality(found: Mapping[str, Any] | None, part: str) -> str:
    if found is None or found[part] is None:
        return ABSENT
    return f"{found[part]:.2g}" if part == "p_value" else number(found[part], 3)
