"""Figures of disturbed models beside those of the twins: pure functions of numbers by model."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t

from hf_unlearn.evaluation.intervals import LEVEL
from hf_unlearn.report.stress_blocks import CellFigure, StepCurve, StepFigure, TwinCurve, TwinSpread

Figures = Mapping[str, float | None]
NO_TWINS = ("original", "unlearned")
IN_NATS = ("forget_loss",)


def cell(figures: Mapping[str, Figures], rows: int) -> dict[str, CellFigure]:
    """Every figure of one cell: `figures[model][figure]`, with the models `original` (may be missing), `unlearned`,
    and any others as twins, measured on so many `rows`."""
    return {key: _cell_figure(figures, key, rows) for key in figures["unlearned"]}


def _cell_figure(figures: Mapping[str, Figures], key: str, rows: int) -> CellFigure:
    twins = _of_twins(figures, key)
    own, spread = figures["unlearned"][key], twin_spread(twins)
    difference = None if own is None or spread is None else own - spread["mean"]
    least = 0.0 if key in IN_NATS else 1 / max(rows, 1)  # where twins agree by chance, one row is still no difference
    return {
        "original": figures["original"][key] if "original" in figures else None,
        "unlearned": own,
        "twins": spread,
        "difference": difference,
        "apart": None if difference is None else lies_apart(difference, twins, least),
    }


def twin_spread(values: Sequence[float]) -> TwinSpread | None:
    """Mean, ends and standard deviation of the twins' values; `None` without twins."""
    if not values:
        return None
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "lowest": min(values), "highest": max(values), "spread": spread}


def lies_apart(difference: float, twins: Sequence[float], least: float = 0.0) -> bool | None:
    """Whether one more twin would lie as far from the mean of these in less than 5 % of cases.

    |difference| > t·s·√(1 + 1/k) with Student's quantile for k − 1 degrees of freedom. `None` with fewer than two
    twins, or where they agree exactly and nothing is known of their spread.

    Args:
        least: the standard deviation is taken to be no smaller.
    """
    count = len(twins)
    spread = max(float(np.std(twins, ddof=1)), least) if count > 1 else 0.0
    if not spread > 0:
        return None
    return bool(abs(difference) > t.ppf((1 + LEVEL) / 2, count - 1) * spread * np.sqrt(1 + 1 / count))


def step_curve(rows: str, steps: Sequence[int], figures: Mapping[str, Sequence[Figures]]) -> StepCurve:
    """Figures over steps: `figures[model][step][figure]`, in the order of `steps`."""
    keys = figures["unlearned"][0]
    return {"rows": rows, "steps": list(steps), "figures": {key: _step_figure(figures, key) for key in keys}}


def _step_figure(figures: Mapping[str, Sequence[Figures]], key: str) -> StepFigure:
    lines = {name: [found[key] for found in looks] for name, looks in figures.items()}
    count = len(lines["unlearned"])
    spreads = [twin_spread(_of_twins({name: looks[i] for name, looks in figures.items()}, key)) for i in range(count)]
    twins: TwinCurve = {
        "mean": [None if found is None else found["mean"] for found in spreads],
        "lowest": [None if found is None else found["lowest"] for found in spreads],
        "highest": [None if found is None else found["highest"] for found in spreads],
    }
    return {
        "original": lines.get("original"),
        "unlearned": lines["unlearned"],
        "twins": None if all(found is None for found in spreads) else twins,
    }


def _of_twins(figures: Mapping[str, Figures], key: str) -> list[float]:
    """The twins' values; none at all where one is not known."""
    values = [found[key] for name, found in figures.items() if name not in NO_TWINS]
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []
