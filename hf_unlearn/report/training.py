"""The evidence block `training`: the curves that the run logged."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

POINTS = 200
CURVES = ("loss", "forget_loss", "retain_loss", "learning_rate")


def training_block(log_history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`curves[name]` with `step` and `value`, thinned evenly to at most 200 points that keep the first and the last.

    Args:
        log_history: of a `TrainerState`. Taken from it are the losses, the learning rate and everything an evaluation
            logged (`eval_…`), except how long it took.
    """
    curves: dict[str, dict[str, list]] = {}
    for entry in log_history:
        for name, value in entry.items():
            if name not in CURVES and (not name.startswith("eval_") or name.endswith(("_runtime", "_per_second"))):
                continue
            if isinstance(value, Real) and "step" in entry:
                curve = curves.setdefault(name, {"step": [], "value": []})
                curve["step"].append(int(entry["step"]))
                curve["value"].append(float(value))
    return {"curves": {name: {key: _thinned(part) for key, part in curve.items()} for name, curve in curves.items()}}


def _thinned(values: list) -> list:
    if len(values) <= POINTS:
        return values
    return [values[round(i * (len(values) - 1) / (POINTS - 1))] for i in range(POINTS)]
