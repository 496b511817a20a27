"""A picture of a run in phases: accuracy on the forgotten and on the kept classes, phase by phase."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CURVES = {  # colours that the colour-blind can tell apart, and marks for those who see none
    "forget": ("forgotten classes", "#D55E00", "s", "-"),
    "retain": ("kept classes, training", "#0072B2", "o", "-"),
    "test": ("kept classes, test", "#009E73", "^", "--"),
}


def plot_phases(history: Sequence[Mapping[str, Any]], phases: Sequence[tuple[str, int]], path: str | Path) -> Path:
    """Draw the accuracies in a training's log over its steps, with a band for each phase.

    Args:
        history: `trainer.state.log_history`; the entries with `eval_forget_accuracy` are drawn.
        phases: name and number of steps, in order.
        path: of the picture; its ending (`.svg`, `.png`) says which kind.

    Raises `ValueError` if the history has no evaluation.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = [entry for entry in history if "eval_forget_accuracy" in entry]
    if not points:
        raise ValueError("the history holds no evaluation to draw")
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _bands(axes, phases)
    for name, (label, color, mark, line) in CURVES.items():
        drawn = {entry["step"]: entry[f"eval_{name}_accuracy"] for entry in points if f"eval_{name}_accuracy" in entry}
        if drawn:
            accuracy = [100 * value for value in drawn.values()]
            axes.plot(list(drawn), accuracy, line, marker=mark, markersize=5, color=color, label=label)
    axes.set(xlabel="step", ylabel="accuracy (%)", ylim=(-3, 114), xlim=(0, sum(steps for _, steps in phases)))
    axes.set_yticks(range(0, 101, 20))
    axes.legend(loc="center right", frameon=True, fontsize="small")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path = Path(path)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _bands(axes, phases: Sequence[tuple[str, int]]) -> None:
    """Shade every other phase, and write each one's name above the curves."""
    start = 0
    for number, (name, steps) in enumerate(phases):
        if number % 2 == 0:
            axes.axvspan(start, start + steps, color="0.94", zorder=0)
        axes.text(start + steps / 2, 107, name, ha="center", va="center", color="0.3")
        start += steps
