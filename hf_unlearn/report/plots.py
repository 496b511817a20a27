"""The plots of a report, as inline SVG that takes its colours from the page and so follows light and dark.

Models differ in line style as well as in colour (Okabe and Ito's), so that neither colour-blind readers nor a
black-and-white print lose one.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

# Drawn in these colours, which the page replaces by its own.
TEXT, GRID, MUTED = "#010203", "#040506", "#070809"
ORIGINAL, UNLEARNED, TWINS = "#d55e00", "#0072b2", "#009e73"
FAR_APART = 10.0  # times as large: then a scale is logarithmic
PAGE_COLOURS = {
    TEXT: "currentColor",
    GRID: "var(--line)",
    MUTED: "var(--muted)",
    ORIGINAL: "var(--original)",
    UNLEARNED: "var(--unlearned)",
    TWINS: "var(--twins)",
}
LINES: dict[str, dict[str, Any]] = {
    "original": {"color": ORIGINAL, "linestyle": (0, (4, 1.5)), "linewidth": 1.6},
    "unlearned": {"color": UNLEARNED, "linestyle": "-", "linewidth": 2.2},
    "twins": {"color": TWINS, "linestyle": (0, (1, 1)), "linewidth": 1.8},
}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": TEXT,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
}
MOST_TICKS = 5  # on a logarithmic axis: more would run into each other
SIZE = (4.3, 3.1)  # inches: a phone shows one to a row at about its own size


def styled(draw):
    """Runs a drawing function under this file's settings, whatever the caller's `rcParams`, which stay as they are."""

    def drawn(*arguments, **options):
        with matplotlib.style.context(["default", STYLE]):
            return draw(*arguments, **options)

    drawn.__name__, drawn.__doc__ = draw.__name__, draw.__doc__
    return drawn


@styled
def loss_histogram(losses: Mapping[str, Any], role: str) -> Figure:
    """Shares of a role's rows over the loss, a line per model; logarithmic, because the few rows of the tail matter.

    Args:
        losses: the evidence's `distributions.loss`.
        role: `"forget"`, `"retain"` or `"unseen"`.
    """
    figure, axes = _axes("loss (nats)", "rows (%)")
    _stairs(axes, losses["edges"], {name: roles[role] for name, roles in losses["counts"].items()})
    _log(axes, "x")
    return _with_legend(figure, axes)


@styled
def roc_curves(roc: Mapping[str, Any]) -> Figure:
    """ROC on log scales; the band is the range of the twins, the dotted diagonal a guess."""
    figure, axes = _axes("false positive rate", "true positive rate")
    lowest_x, lowest_y = 1 / roc["nonmembers"], 1 / roc["members"]
    axes.plot([lowest_x, 1], [lowest_x, 1], color=MUTED, linestyle=":", linewidth=1)
    if roc["twins_range"]:
        low, high = roc["twins_range"]
        axes.fill_between(roc["fpr"], low, high, step="post", color=TWINS, alpha=0.2, linewidth=0)
    for name, tpr in roc["tpr"].items():
        axes.plot(roc["fpr"], tpr, drawstyle="steps-post", label=name, **LINES[name])
    _log(axes, "x")
    _log(axes, "y")
    axes.set(xlim=(lowest_x, 1), ylim=(min(lowest_x, lowest_y), 1.1))
    return _with_legend(figure, axes)


@styled
def row_z_histogram(row_z: Mapping[str, Any]) -> Figure:
    """Shares of forget rows over their z against the twins; beyond ±2 they count as remembered or over-forgotten."""
    figure, axes = _axes("z of a row against the twins", "rows (%)")
    _stairs(axes, row_z["edges"], row_z["counts"])
    for z in (-2, 2):
        axes.axvline(z, color=MUTED, linestyle=":", linewidth=1)
    low, high = axes.get_xlim()
    widest = max(-low, high, 6)
    axes.set_xlim(-widest, widest)
    top = axes.get_ylim()[1] * 3  # room for the words
    axes.set_ylim(top=top)
    axes.text(-2.3, 0.8 * top, "over-forgotten", ha="right", va="top", fontsize=9)
    axes.text(2.3, 0.8 * top, "remembered", ha="left", va="top", fontsize=9)
    return _with_legend(figure, axes)


@styled
def curves(named: Mapping[str, Mapping[str, Sequence]], label: str) -> Figure:
    """Curves over the steps of a run; in nats on a log scale where they are positive and span a factor of 50."""
    figure, axes = _axes("step", label)
    styles = [(UNLEARNED, "-"), (ORIGINAL, (0, (4, 1.5))), (TWINS, (0, (1, 1))), (TEXT, (0, (5, 1, 1, 1)))]
    for (name, curve), (color, line) in zip(named.items(), styles, strict=False):
        axes.plot(curve["step"], curve["value"], color=color, linestyle=line, linewidth=1.8, label=_plain(name))
    values = [value for curve in named.values() for value in curve["value"] if value is not None]
    if label == "nats" and values and min(values) > 0 and max(values) > 50 * min(values):
        _log(axes, "y")
    return _with_legend(figure, axes)


@styled
def step_curves(curve: Mapping[str, Any], key: str, label: str) -> Figure:
    """A figure over the steps of fine-tuning; the band is the range of the twins.

    Args:
        curve: the evidence's `stress.curve`.
        key: of the figure; shares are drawn in percent.
    """
    figure, axes = _axes("step", label)
    found, scale = curve["figures"][key], 1 if key.endswith("_loss") else 100
    twins = found["twins"] or {}

    def scaled(values: Sequence[float | None]) -> list[float]:
        return [float("nan") if value is None else scale * value for value in values]

    if twins:
        axes.fill_between(
            curve["steps"], scaled(twins["lowest"]), scaled(twins["highest"]), color=TWINS, alpha=0.2, linewidth=0
        )
    lines = {"twins": twins.get("mean"), "original": found["original"], "unlearned": found["unlearned"]}
    for name, values in lines.items():
        if values:
            axes.plot(curve["steps"], scaled(values), label=name, marker=".", **LINES[name])
    return _with_legend(figure, axes)


@styled
def pareto(points: Sequence[Mapping[str, Any]], floor: float | None) -> Figure:
    """Forgetting against utility, the cost as the area of a marker; a ring where no other is better in all three.

    Args:
        points: each with `name`, `gap` (points), `accuracy` (percent), `cost` (share of one retraining, or `None`) and
            `best` (nothing else is better in all).
        floor: the twins' own gap in points.
    """
    figure, axes = _axes("forgetting: gap to the twins (points, less is better)", "test accuracy (%)", height=3.6)
    if floor is not None:
        axes.axvline(floor, color=TWINS, linestyle=(0, (1, 1)), linewidth=1.8)
        axes.annotate("floor", (floor, 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
                      textcoords="offset points", va="top", fontsize=9)  # fmt: skip
    named = []
    for i, point in enumerate(points):
        size = 40 + 300 * min(point["cost"] or 0, 2)
        color = ORIGINAL if point["cost"] == 0 else UNLEARNED
        axes.scatter(point["gap"], point["accuracy"], s=size, color=color, marker="osD^v"[i % 5], alpha=0.75)
        if point["best"]:
            size += 150
            axes.scatter(point["gap"], point["accuracy"], s=size, facecolors="none", edgecolors=TEXT, marker="o")
        radius = size**0.5 / 2 / 72  # the area is in square points
        named.append({"name": point["name"], "x": point["gap"], "y": point["accuracy"], "radius": radius})
    axes.margins(0.22)
    axes.set_xlim(left=0)
    _labels(figure, axes, named)
    return figure


@styled
def contest(
    points: Sequence[Mapping[str, Any]], titles: tuple[str, str], floor: float | None, *, spread: str = "xy"
) -> Figure:
    """Contestants by two figures, of which the second is better where it is lower; the twins' own as a line.

    Args:
        points: each with `name`, `kind` (`nothing`, `method`, `tuned`, `twin`), `x`, `y`, `bars` (half-widths in x and
            y, or `None`) and `best`, which is ringed.
        titles: of the axes.
        floor: of the second figure.
        spread: the axes that are logarithmic where figures differ by more than a factor of ten.
    """
    figure, axes = _axes(*titles, height=3.6)
    looks = {"nothing": (ORIGINAL, "o"), "method": (UNLEARNED, "s"), "tuned": (UNLEARNED, "D"), "twin": (TWINS, "^")}
    if floor is not None:
        axes.axhline(floor, color=TWINS, linestyle=(0, (1, 1)), linewidth=1.8)
    for point in points:
        color, marker = looks[point["kind"]]
        axes.scatter(point["x"], point["y"], s=45, color=color, marker=marker, alpha=0.8)
        if point["best"]:
            axes.scatter(point["x"], point["y"], s=170, facecolors="none", edgecolors=TEXT, marker="o")
    logs = {which: _spread(axes, which, [point[which] for point in points]) for which in spread}
    axes.margins(0.15)
    across, up = axes.get_xlim(), axes.get_ylim()
    for point in points:  # an interval may be many times as wide as what is between the points
        bars = {"xerr": point["bars"][0], "yerr": point["bars"][1]}
        axes.errorbar(point["x"], point["y"], **bars, color=MUTED, linewidth=0.8, alpha=0.6, zorder=0)
    axes.set(xlim=across, ylim=up if logs.get("y") else (min(0.0, up[0]), up[1]))
    _labels(figure, axes, points)
    return figure


def _spread(axes: Axes, which: str, values: Sequence[float]) -> bool:
    """A logarithmic scale for figures of several orders; with a 0 among them it is linear below the least other one.
    Returns whether it is logarithmic throughout."""
    above = [value for value in values if value > 0]
    if not above or min(values) < 0 or max(above) < FAR_APART * min(above):
        return False
    if len(above) == len(values):
        _log(axes, which)
        return True
    least = max(min(above), max(above) / 1000)
    getattr(axes, f"set_{which}scale")("symlog", linthresh=least)
    axis = axes.xaxis if which == "x" else axes.yaxis
    tens = [10.0**k for k in range(math.floor(math.log10(least)), math.ceil(math.log10(max(above))) + 1)]
    axis.set_major_locator(FixedLocator([0.0, *(ten for ten in tens if least <= ten)]))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
    return False


def _labels(figure: Figure, axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    """The points' names, each where it covers the fewest of the other names and points; places, and the `radius` of a
    point's marker, are in inches."""
    size = figure.get_size_inches() * (axes.get_position().width, axes.get_position().height)

    def place(point: Mapping[str, Any]) -> np.ndarray:
        return axes.transAxes.inverted().transform(axes.transData.transform((point["x"], point["y"]))) * size

    radii = [point.get("radius", 0.06) for point in points]
    taken = [(*(place(point) - radius), *(place(point) + radius)) for point, radius in zip(points, radii, strict=True)]
    for point, radius in zip(points, radii, strict=True):
        at, width = place(point), 0.068 * len(point["name"])
        best = None
        for up in (radius + 0.03, -radius - 0.16, radius + 0.16, -radius - 0.29, radius + 0.29, -radius - 0.42):
            for shift in (-0.5 * width, radius + 0.04, -width - radius - 0.04):
                box = (at[0] + shift, at[1] + up, at[0] + shift + width, at[1] + up + 0.13)
                outside = max(0.0, -box[0], box[2] - size[0]) + max(0.0, -box[1], box[3] - size[1])
                cost = sum(_overlap(box, other) for other in taken) + outside + 0.002 * abs(up)
                if best is None or cost < best[0]:
                    best = (cost, box)
        assert best is not None
        box = best[1]
        taken.append(box)
        offset = (72 * (box[0] - at[0]), 72 * (box[1] - at[1]))
        far = abs(box[1] - at[1]) > radius + 0.19
        line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkB": 4} if far else None
        axes.annotate(_plain(point["name"]), (point["x"], point["y"]), xytext=offset, textcoords="offset points",
                      ha="left", va="bottom", fontsize=8, arrowprops=line)  # fmt: skip


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """The area that two boxes `(left, bottom, right, top)` share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


@styled
def cost_bars(costs: Mapping[str, float], unit: str) -> Figure:
    """Horizontal bars with their figures, one per thing that was trained."""
    figure, axes = _axes(unit, "", height=1.9, left=1.1)
    looks = {"original": (ORIGINAL, "//"), "unlearning": (UNLEARNED, ""), "one retraining": (TWINS, "..")}
    for place, (name, value) in enumerate(list(costs.items())[::-1]):
        color, hatch = looks[name]
        axes.barh(place, value, height=0.6, color=color if not hatch else "none", edgecolor=color, hatch=hatch)
        digits = 1 if value < 100 else 0
        axes.annotate(f"{value:,.{digits}f}", (value, place), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(costs)), list(costs)[::-1])
    axes.set_xlim(0, 1.22 * max(costs.values(), default=1) or 1)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    return figure


def svg(figure: Figure, name: str, label: str) -> str:
    """`<svg>…</svg>` for a page: transparent, without a date, and the same each time.

    Args:
        name: unique on the page, of letters, digits and dashes; ids inside begin with it.
        label: what a screen reader says; escaped by the caller.
    """
    with matplotlib.style.context(["default", STYLE, {"svg.hashsalt": name}]):
        FigureCanvasSVG(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for drawn, page in PAGE_COLOURS.items():
        text = text.replace(drawn, page)
    # The page says which font and how wide.
    text = re.sub(r"font: (\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{label}">', text)
    return text.strip()


def _plain(name: str) -> str:
    """A name as text: between dollar signs Matplotlib would read mathematics."""
    return name.replace("$", r"\$")


def _axes(x: str, y: str, height: float = SIZE[1], left: float = 0.62) -> tuple[Figure, Axes]:
    """Axes with margins in inches; measuring texts for a tight layout would take longer than all the rest."""
    figure = Figure(figsize=(SIZE[0], height))
    figure.subplots_adjust(left=left / SIZE[0], right=1 - 0.12 / SIZE[0], bottom=0.5 / height, top=1 - 0.32 / height)
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y)
    return figure, axes


def _log(axes: Axes, which: str) -> None:
    """A logarithmic scale with plain numbers: at powers of ten, and in between where fewer than two are seen."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(_Decades())
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


class _Decades(LogLocator):
    """Powers of ten; within one decade 1, 2 and 5 times, and within a factor of two ordinary steps."""

    def tick_values(self, low: float, high: float):
        for subs in ((1.0,), (1.0, 2.0, 5.0)):
            self.set_params(subs=subs)
            ticks = np.asarray(super().tick_values(low, high))
            seen = ticks[(ticks >= low) & (ticks <= high)]
            if len(seen) >= 2:
                return seen[:: -(-len(seen) // MOST_TICKS)]
        return MaxNLocator(4).tick_values(low, high)


def _stairs(axes: Axes, edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> None:
    shares = {name: [100 * n / sum(c) for n in c] for name, c in counts.items() if sum(c)}
    for name in ("twins", "original", "unlearned"):  # the twins, the yardstick, lie behind
        if name in shares:
            if name == "twins":
                axes.stairs(shares[name], edges, fill=True, color=TWINS, alpha=0.2)
            axes.stairs(shares[name], edges, label=name, **LINES[name])
    _log(axes, "y")
    axes.set_ylim(0.6 * min((share for values in shares.values() for share in values if share), default=1), 130)


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    names = sorted(handles, key=lambda name: list(LINES).index(name) if name in LINES else 0)
    where: dict[str, Any] = {
        "loc": "upper left",
        "ncols": 4,
        "handlelength": 2.2,
        "columnspacing": 1.2,
        "borderpad": 0.1,
    }
    figure.legend([handles[name] for name in names], names, **where)
    return figure
