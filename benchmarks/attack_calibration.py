"""Do the attacks' 95 % intervals hold, and do they find what is there?

A null of fresh rows each time, members and non-members from one distribution, and a planted signal of AUC 0.60.
`theory` is the width of an interval that knows the sampling error: in closed form for the threshold attacks and U-LiRA
(with Student's quantile, as its trials are models), else 2 · 1.96 · the spread of the figure around its own null.

    python benchmarks/attack_calibration.py                       # everything, about half an hour on one core
    python benchmarks/attack_calibration.py --attacks auc tpr     # some; results of the others are kept
    python benchmarks/attack_calibration.py --table
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
from scipy.stats import norm, t

from hf_unlearn.evaluation import attacks, classifier_attacks, lira

RESULTS = Path(__file__).parent / "results" / "attack_calibration"
PLANTED_AUC = 0.60
SHIFT = np.sqrt(2) * norm.ppf(PLANTED_AUC)  # between two normal distributions of spread 1
WIDTH = 2 * norm.ppf(0.975)
TARGETS = 8  # target models of U-LiRA


def two_sides(rng: np.random.Generator, rows: tuple[int, ...], shift: float) -> list[np.ndarray]:
    """Scores of members (first) and of the others: skewed as losses are, the order that of shifted normals."""
    return [-np.log1p(np.exp(-rng.normal(shift if i == 0 else 0.0, 1, size))) for i, size in enumerate(rows)]


def auc(rng, rows, shift):
    return attacks.auc(*two_sides(rng, rows, shift))


def balanced_accuracy(rng, rows, shift):
    return attacks.balanced_accuracy(*two_sides(rng, rows, shift), seed=int(rng.integers(2**31)))


def tpr(rng, rows, shift):
    return attacks.tpr_at_fpr(*two_sides(rng, rows, shift), fpr=0.01)


def logistic(rng, rows, shift):
    return classifier_attacks.logistic_attack(*two_sides(rng, rows, shift), seed=int(rng.integers(2**31)))


def svc(rng, rows, shift):
    """The probability of the label as SalUn has it; under the null forget, retain and test rows are all alike.

    What the fitted classifiers call unseen rows must be known well to say whether an interval holds it: test rows of a
    second class, which retain does not have and no draw trains on, are added to measure it.
    """
    (retain, test), (forget, fresh) = (
        two_sides(rng, sizes, shift) for sizes in ((rows[1], rows[1]), (rows[0], 10_000))
    )
    labels = {"retain_label": np.zeros(len(retain)), "test_label": np.repeat([0, 1], [len(test), len(fresh)])}
    features = (np.exp(side) for side in (forget, retain, np.concatenate([test, fresh])))
    return classifier_attacks.svc_efficacy(*features, **labels, seed=int(rng.integers(2**31)))


def u_lira(rng, rows, shift, targets=TARGETS, shadows=32, variance="pooled"):
    """`rows[0]` audited rows, half of them unlearned and half never seen in each model, at random; models have an
    error of their own. The shift is what remains in a row's own spread."""
    count = rows[0]

    def models(number):
        unlearned = np.argsort(rng.random((number, count)), axis=1) < count // 2
        level = rng.normal(0, 0.3, (number, 1))
        phi = hardness + level + rng.normal(0, 1, (number, count)) + shift * unlearned
        return lira.Models(phi, unlearned, ~unlearned)

    hardness = rng.normal(2, 3, count)
    scored = lira.u_lira(models(targets), models(shadows))
    return scored[variance]["auc"]


def u_lira_row(rng, rows, shift):
    return u_lira(rng, rows, shift, shadows=64, variance="row")


def auc_error(members: int, nonmembers: int) -> float:
    """Of an AUC where there is nothing to find (Mann and Whitney)."""
    return np.sqrt((members + nonmembers + 1) / (12 * members * nonmembers))


def auc_width(rows: tuple[int, int]) -> float:
    return WIDTH * auc_error(*rows)


def u_lira_width(rows: tuple[int, int]) -> float:
    return 2 * t.ppf(0.975, TARGETS - 1) * auc_error(rows[0] // 2, rows[0] // 2) / np.sqrt(TARGETS)


def accuracy_width(rows: tuple[int, int]) -> float:
    return WIDTH * np.sqrt(0.25 / rows[0] + 0.25 / rows[1]) / 2


def tpr_width(rows: tuple[int, int]) -> float:
    return WIDTH * np.sqrt(0.01 * 0.99 * (1 / rows[0] + 1 / rows[1]))


# name: (attack, rows of either side, draws, closed form of the width)
STUDIES: dict[str, tuple[Callable, tuple[int, int], int, Callable | None]] = {
    "auc": (auc, (300, 300), 1000, auc_width),
    "balanced_accuracy": (balanced_accuracy, (300, 300), 1000, accuracy_width),
    "tpr": (tpr, (2000, 4000), 1000, tpr_width),
    "logistic": (logistic, (300, 300), 1000, None),
    "svc": (svc, (300, 300), 1000, None),
    "u_lira_pooled": (u_lira, (300, 300), 1000, u_lira_width),
    "u_lira_row": (u_lira_row, (300, 300), 1000, u_lira_width),
}


def study(name: str, draws: int | None = None, seed: int = 0) -> dict:
    """Coverage, width and power of one attack's interval."""
    attack, rows, planned, closed_form = STUDIES[name]
    draws = draws or planned
    start = time.perf_counter()
    rng = np.random.default_rng([seed, list(STUDIES).index(name)])
    null = [attack(rng, rows, 0.0) for _ in range(draws)]
    planted = [attack(rng, rows, SHIFT) for _ in range(max(1, draws // 4))]
    deviation = np.array([found["value"] - found["null"] for found in null])
    theory = closed_form(rows) if closed_form else WIDTH * np.sqrt(np.mean(deviation**2))
    width = float(np.mean([high - low for low, high in (found["interval"] for found in null)]))
    return {
        "draws": draws,
        "rows": list(rows),
        "coverage": float(np.mean([inside(found) for found in null])),
        "mean_width": width,
        "theory": float(theory),
        "width_over_theory": width / float(theory),
        "mean_null": float(np.mean([found["value"] for found in null])),
        "mean_planted": float(np.mean([found["value"] for found in planted])),
        "power": float(np.mean([not inside(found) for found in planted])),
        "seconds": round(time.perf_counter() - start, 1),
    }


def inside(found: dict) -> bool:
    low, high = found["interval"]
    return low <= found["null"] <= high


def table() -> str:
    lines = ["| attack | rows | draws | coverage % | width / theory | power at AUC 0.60 % |", "| --- " * 6 + "|"]
    for name in STUDIES:
        path = RESULTS / f"{name}.json"
        if path.exists():
            r = json.loads(path.read_text())
            lines.append(
                f"| {name} | {r['rows'][0]} / {r['rows'][1]} | {r['draws']} | {100 * r['coverage']:.1f} "
                f"| {r['width_over_theory']:.2f} | {100 * r['power']:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--draws", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="only print what is stored")
    options = parser.parse_args()
    if not options.table:
        RESULTS.mkdir(parents=True, exist_ok=True)
        packages = {name: metadata.version(name) for name in ("numpy", "scipy", "scikit-learn")}
        where = {"seed": options.seed, "python": platform.python_version(), "packages": packages,
                 "platform": f"{platform.system()} {platform.machine()}"}  # fmt: skip
        for name in options.attacks:
            result = study(name, options.draws, options.seed) | where
            (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(table())


if __name__ == "__main__":
    main()
