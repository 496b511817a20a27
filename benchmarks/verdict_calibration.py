"""How often is one more twin told apart from the others, and how often is doing nothing?

Twins are judged as if they were unlearned models: simulated ones, and those of `verdict_models.py`, each against
random draws of the others. False alarms are those of the whole verdict: any figure told apart.

    python benchmarks/verdict_calibration.py            # a few minutes on one core, models included
    python benchmarks/verdict_calibration.py --cases digits_class   # these only; the others' stored figures stay
    python benchmarks/verdict_calibration.py --table
"""

import argparse
import itertools
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
from verdict_models import NETWORKS, RECIPES, ensemble

from hf_unlearn.evaluation.comparison import ModelScores
from hf_unlearn.evaluation.judged_figures import judge_model
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.report.verdict import OPEN, TOLD, WITHIN, outcomes

RESULTS = Path(__file__).parent / "results" / "verdict_calibration.json"
TWINS = (2, 4, 8)
CLASS_ROWS = {"retain": (5, 2, 300), "test": (5, 2, 300), "nonmembers": (-6, 1, 200)}  # mean, spread, rows
CLASSES = (100, 500, 2_000)  # rows of a removed class
SIMULATED, REPEATS = 100, 2  # cases of each kind; draws of twins for every real twin that is judged


def simulated(seed: int, twins: int, level: float) -> tuple[ModelScores, list[ModelScores]]:
    """One model and its twins: rows of their own difficulty and noise, and a level that all rows of a model share."""
    rng = np.random.default_rng(seed)
    difficulty = {"forget": rng.normal(2, 2, 100), "retain": rng.normal(6, 2, 400), "test": rng.normal(2, 2, 300)}
    noise = {role: rng.gamma(2, 0.35, len(mean)) for role, mean in difficulty.items()}
    models = [drawn(rng, difficulty, noise, dict.fromkeys(difficulty, level)) for _ in range(1 + twins)]
    models = [model | {"nonmembers": model["test"]} for model in models]
    return models[0], models[1:]


def removed_class(seed: int, twins: int, rows: int) -> tuple[ModelScores, list[ModelScores]]:
    """One model and its twins, none of which ever saw a class of so many rows: what these have in common differs from
    model to model by more than single rows do, also for the class's rows among the unseen ones."""
    rng = np.random.default_rng([seed, rows])
    difficulty = {role: rng.normal(*of) for role, of in CLASS_ROWS.items()} | {"forget": rng.normal(-6, 1, rows)}
    level = dict.fromkeys(("forget", "nonmembers"), 1.0)
    noise = {role: 0.5 if role in level else 0.3 for role in difficulty}
    models = [drawn(rng, difficulty, noise, level) for _ in range(1 + twins)]
    return models[0], models[1:]


def drawn(
    rng: np.random.Generator,
    difficulty: Mapping[str, np.ndarray],
    noise: Mapping[str, np.ndarray | float],
    level: Mapping[str, float],
) -> ModelScores:
    """One model's scores by role: log-odds of `difficulty`, `(rows,)`, with an error of `noise` standard deviations of
    each row's own and one that rows of a model have in common, of `level` (0 where a role is not named)."""
    shared, scores = rng.normal(), {}
    for role, mean in difficulty.items():
        phi = mean + level.get(role, 0.0) * shared + noise[role] * rng.normal(size=len(mean))
        loss = np.logaddexp(0, -phi)
        scores[role] = SplitScores(loss, phi, (phi > 0) * 1.0, np.exp(-loss), loss)
    return scores


def found(scores: ModelScores, twins: list[ModelScores]) -> list[str]:
    """The outcome of each figure."""
    return [outcome.found for outcome in outcomes({"judged": {"unlearned": judge_model(scores, twins)}})]


def summary(every: list[list[str]]) -> dict[str, float | int]:
    """Share of cases told apart, and of figures within the margin and not settled."""
    flat = [outcome for outcomes_ in every for outcome in outcomes_]
    return {
        "cases": len(every),
        "told_apart": float(np.mean([TOLD in outcomes_ for outcomes_ in every])),
        "figures_within": flat.count(WITHIN) / len(flat),
        "figures_open": flat.count(OPEN) / len(flat),
    }


def judge_case(case: str, count: int) -> dict[str, dict]:
    """Each twin of a case, and doing nothing, against draws of the other twins."""
    originals, twins = ensemble(case)
    rng, null, nothing = np.random.default_rng([count, 7]), [], []
    for place, judged in enumerate(twins):
        for repeat in range(REPEATS):
            others = rng.choice(np.delete(np.arange(len(twins)), place), count, replace=False)
            drawn = [twins[i] for i in others]
            null.append(found(judged, drawn))
            if repeat == 0:
                nothing.append(found(originals[place % len(originals)], drawn))
    return {"one more twin": summary(null), "do nothing": summary(nothing)}


def run(cases: list[str] | None) -> dict:
    """Everything, or with `cases` those, put beside what is stored of the others."""
    results: dict = {"simulated": {}, "real": {}} if cases is None else json.loads(RESULTS.read_text())
    if cases is None:
        for level in (0.0, 0.1, 0.3):
            for count in TWINS:
                every = [found(*simulated(1000 * count + seed, count, level)) for seed in range(SIMULATED)]
                results["simulated"][f"level {level}, {count} twins"] = summary(every)
        for rows, count in itertools.product(CLASSES, TWINS):
            every = [found(*removed_class(1000 * count + seed, count, rows)) for seed in range(SIMULATED)]
            results["simulated"][f"a class of {rows:,} rows, {count} twins"] = summary(every)
    for case in NETWORKS if cases is None else cases:
        for count in TWINS:
            if count < len(ensemble(case)[1]):
                results["real"][f"{case}, {count} twins"] = judge_case(case, count)
    versions = {name: metadata.version(name) for name in ("numpy", "scikit-learn")}
    return results | {"environment": {"python": platform.python_version(), **versions}}


def table(results: dict) -> str:
    lines = ["| case | one more twin told apart (%) | do nothing told apart (%) |", "| --- | ---: | ---: |"]
    for name, block in results["simulated"].items():
        lines.append(f"| simulated, {name} | {100 * block['told_apart']:.1f} of {block['cases']} | – |")
    for name, block in results["real"].items():
        cells = [f"{100 * part['told_apart']:.1f} of {part['cases']}" for part in block.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for count in TWINS:
        for kind in ("simulated", "real"):
            blocks = [b for name, b in results[kind].items() if name.endswith(f" {count} twins")]
            null = [block.get("one more twin", block) for block in blocks]
            cases = sum(block["cases"] for block in null)
            share = sum(block["told_apart"] * block["cases"] for block in null) / cases
            lines.append(f"| all {kind}, {count} twins | {100 * share:.1f} of {cases} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="the table of the stored results")
    parser.add_argument("--cases", nargs="+", choices=[*NETWORKS, *RECIPES], help="these only (default: all networks)")
    options = parser.parse_args()
    if not options.table:
        RESULTS.write_text(json.dumps(run(options.cases), indent=1) + "\n")
    print(table(json.loads(RESULTS.read_text())))
