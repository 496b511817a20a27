"""Pictures for notebooks: the report's plots of a result as Matplotlib figures on white, and grids of images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from hf_unlearn.report import plots
from hf_unlearn.report.compare import Comparison

GRID = "#dddddd"  # a page replaces the colour that the report's plots are drawn in; here nobody does
LOSSES = np.logspace(-6, 2, 8 * 4 + 1)  # nats, four bins to a factor of ten
PANEL = (2.6, 2.4)  # inches


def loss_histogram(result: Any, role: str = "forget") -> Figure:
    """Losses of a role's rows (`"forget"`, `"retain"` or `"unseen"`) under original, unlearned and twins.

    Args:
        result: an [`~hf_unlearn.UnlearningResult`], or its evidence; so in all functions here.
    """
    return _on_white(plots.loss_histogram(_distributions(result)["loss"], role))


def roc_curves(result: Any) -> Figure:
    """The attack "the lower the loss, the likelier a forgotten row", for all the models."""
    return _on_white(plots.roc_curves(_distributions(result)["roc"]))


def row_z_histogram(result: Any) -> Figure:
    """How far each forgotten row lies from what twins give it. Takes two twins: raises `ValueError` with fewer."""
    found = _distributions(result)["row_z"]
    if found is None:
        raise ValueError("row z-scores take two twins or more: give them with retrained=[...]")
    figure = _on_white(plots.row_z_histogram(found))
    for axes in figure.axes:
        bound = max(map(abs, axes.get_xlim()))
        axes.set_xlim(-bound, bound)  # room for the words on either side
    return figure


def training_losses(result: Any) -> Figure:
    """The losses that the run logged, over its steps."""
    curves = _evidence(result)["training"]["curves"]
    named = {name: curves[name] for name in ("forget_loss", "retain_loss") if name in curves}
    return _on_white(plots.curves(named, "nats"))


def pareto(comparison: Comparison) -> Figure:
    """Forgetting against utility for runs that [`~hf_unlearn.report.compare.compare`] put side by side."""
    return _on_white(plots.pareto(comparison.points, comparison.forgetting_floor))


def loss_panels(results: Mapping[str, Any], role: str = "forget") -> Figure:
    """[`loss_histogram`] of several results side by side, by title."""
    panels = {}
    for title, result in results.items():
        found = _distributions(result)["loss"]
        panels[title] = (found["edges"], {name: roles[role] for name, roles in found["counts"].items()})
    return _panels(panels)


def losses_over_time(snapshots: Mapping[str, Sequence[float]], twins: Sequence[float]) -> Figure:
    """Losses of the same rows at several moments of a run, by title, each beside those under retrained twins.

    Args:
        snapshots: by title, `(rows,)` losses in nats.
        twins: `(rows,)` losses under twins; several twins are pooled.
    """

    every = np.clip(np.concatenate([*snapshots.values(), twins]), LOSSES[0], LOSSES[-1])
    first, last = np.searchsorted(LOSSES, every.min(), "right") - 1, np.searchsorted(LOSSES, every.max())
    edges = LOSSES[first : max(last, first + 1) + 1]

    def counts(losses: Sequence[float]) -> np.ndarray:
        return np.histogram(np.clip(losses, edges[0], edges[-1]), edges)[0]

    moments = {title: {"unlearned": counts(losses), "twins": counts(twins)} for title, losses in snapshots.items()}
    return _panels({title: (edges, models) for title, models in moments.items()})


def images(pictures: Sequence[Any], titles: Sequence[str] | None = None, columns: int = 10) -> Figure:
    """A grid of pictures, anything that Matplotlib draws, with a title over each."""
    if not len(pictures):
        raise ValueError("there are no pictures to show")
    titles = [""] * len(pictures) if titles is None else titles
    columns = min(columns, len(pictures))
    figure = _grid(-(-len(pictures) // columns), columns, (0.9, 1.15))
    for axes in figure.axes:
        axes.set_axis_off()
    for axes, picture, title in zip(figure.axes, pictures, titles, strict=False):
        axes.imshow(np.asarray(picture), cmap="gray_r")
        axes.set_title(title, fontsize=9)
    return figure


def _evidence(result: Any) -> Mapping[str, Any]:
    return result if isinstance(result, Mapping) else result.evidence


def _distributions(result: Any) -> Mapping[str, Any]:
    found = _evidence(result).get("distributions")
    if not found:
        raise ValueError("the evidence holds no distributions to draw")
    return found


def _on_white(figure: Figure) -> Figure:
    figure.set_facecolor("white")
    for axes in figure.axes:
        axes.grid(color=GRID)
    return figure


def _in_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    def drawn(*arguments):
        with matplotlib.style.context(["default", plots.STYLE]):
            return _on_white(draw(*arguments))

    return drawn


def _grid(rows: int, columns: int, size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained", facecolor="white")
    figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    return figure


@_in_style
def _panels(panels: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[int]]]]) -> Figure:
    """Histograms over one logarithmic axis: by title, the edges of the bins and the counts by model."""
    figure = _grid(1, len(panels), PANEL)
    for axes, (title, (edges, models)) in zip(figure.axes, panels.items(), strict=True):
        for name in ("twins", "original", "unlearned"):  # the twins, the yardstick, lie behind
            counts = np.asarray(models.get(name, ()), float)
            if counts.sum():
                shares = 100 * counts / counts.sum()
                if name == "twins":
                    axes.stairs(shares, edges, fill=True, color=plots.TWINS, alpha=0.2)
                axes.stairs(shares, edges, label=name, **plots.LINES[name])
        axes.set(title=title, xscale="log", xlabel="loss (nats)")
        axes.title.set_fontsize(10)
    figure.axes[0].set_ylabel("rows (%)")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=3)
    return figure
