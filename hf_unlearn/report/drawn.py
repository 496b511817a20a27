"""What models drew: figures as rows of the table, and a picture of the same seeds under each of them."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_unlearn.report.answer_blocks import ORIGINAL

DRAWN = "plots/drawn.png"  # beside the card
LABELS = {
    ("forgotten_classes", "recognised"): "drawn as a forgotten class (%)",
    ("kept_classes", "recognised"): "drawn as the kept class asked for (%)",
    ("kept_classes", "frechet_unseen"): "Fréchet distance to unseen images",
    ("kept_classes", "frechet_twins"): "Fréchet distance to the twins' images",
}
COLUMNS = ("original", "unlearned", "twins")


def drawn_rows(block: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    """The evidence block `drawn` as rows of the table: label, original, unlearned, twins, gap and floor."""
    rows = []
    for kind, figures in (block or {}).get("figures", {}).items():
        for name, values in figures.items():
            share = name == "recognised"
            gap = values.get("gap")
            cells = [_cell(values.get(column), share) for column in (*COLUMNS, "floor")]
            rows.append((LABELS.get((kind, name), f"{kind} {name}"), *cells[:3], _cell(gap, share), cells[3]))
    return rows


def drawn_sentences(block: Mapping[str, Any] | None) -> list[str]:
    """What a reader of the figures must know of the classifier and the picture."""
    if not block:
        return []
    images, judge = sum(block["images"].values()), block["judge"]
    return [
        f"{images:,} images of each model, the same seeds for all. A classifier trained on the real ones says what "
        f"they show; of unseen real ones it tells {100 * judge['accuracy']:.1f} %. Fréchet distance: of the "
        "activations of its hidden layer, over kept classes."
    ]


def caption(block: Mapping[str, Any]) -> str:
    """Of the picture."""
    left_out = "What the original draws of forgotten classes" if ORIGINAL in block["shown"] else "The original"
    return f"The same seeds under {', '.join(block['shown'])}. {left_out} is left out: it may show forgotten rows."


def picture_of(block: Mapping[str, Any] | None) -> str | None:
    """The picture, a PNG in base64, where there is a whole one."""
    text = (block or {}).get("picture")
    if not isinstance(text, str):
        return None
    try:
        return text if base64.b64decode(text, validate=True).startswith(b"\x89PNG") else None
    except (binascii.Error, ValueError):
        return None


def save_drawn(evidence: Mapping[str, Any], folder: Path) -> str | None:
    """Write the picture into `folder`; returns its name there, or `None` where the evidence has none."""
    text = picture_of(evidence.get("drawn"))
    if text is None:
        return None
    path = folder / DRAWN
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(text))
    return DRAWN


def _cell(value: float | None, share: bool) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f}" if share else f"{value:,.2f}"
