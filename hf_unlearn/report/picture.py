"""The card's picture: losses of the forgotten rows, before and after, beside the twins."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PICTURE = "plots/loss_histogram.png"  # beside the card


def save_picture(evidence: Mapping[str, Any], folder: Path) -> str | None:
    """Draw the picture into `folder`; returns its name there, or `None` where the evidence has no losses."""
    losses = (evidence.get("distributions") or {}).get("loss")
    if not losses or not any(sum(roles["forget"]) for roles in losses["counts"].values() if roles):
        return None
    from hf_unlearn.report.plots import loss_histogram

    figure = loss_histogram(losses, "forget")
    for axes in figure.axes:
        axes.grid(color="#dddddd")  # a page replaces the colour it was drawn in; here nobody does
    path = folder / PICTURE
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return PICTURE
