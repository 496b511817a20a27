"""The tables of README and pages, made from what is stored in `results/`.

    python benchmarks/tables.py            # print them
    python benchmarks/tables.py --write    # put each where a page has `<!-- table: NAME -->`

A test compares what the pages show with what is stored.
"""

import argparse
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
PAGES = ("README.md", "docs/measured.md", "docs/contest.md", "docs/diffusion.md")
SIGNED = ("retain acc", "test loss")
LANGUAGE_FIGURES = ("forget loss", "forget acc", "retain acc", "test loss", "AUC", "ES")
TO_TWINS = ("rms φ", "KL")  # distances by themselves
SHORT = {"learning_rate": "rate", "known": "base known", "lora": "LoRA rank"}
BATCHES = ("per_device_train_batch_size", "per_device_forget_batch_size", "num_train_epochs")  # ∇τ's own steps


def language_models(*patterns: str) -> str:
    """Distances to the mean of the twins of the same file, averaged over files, those marked ± with their signs; the
    second line is that of a twin to the mean of the others. A slice may have several files, of models in another
    precision or trained another time: the first pattern's speaks for original and twins."""
    folder = RESULTS / "language_models"
    runs = [json.loads(path.read_text()) for pattern in patterns for path in sorted(folder.glob(pattern))]
    slices = str(len({run["slice"]["seed"] for run in runs}))
    head = ["", *(f"{key} ±" if key in SIGNED else key for key in LANGUAGE_FIGURES), *TO_TWINS, "slices"]
    lines = [_row(head), _row(["---"] * len(head))]
    names = list(dict.fromkeys(name for run in runs for name in run["lines"] if not name.startswith("twin")))
    of_twins = [[line for name, line in run["lines"].items() if name.startswith("twin")] for run in runs]
    means = [{key: np.mean([twin[key] for twin in twins]) for key in LANGUAGE_FIGURES} for twins in of_twins]
    # A slice of several files counts once, by the one that the first pattern finds.
    once = list({run["slice"]["seed"]: place for place, run in reversed(list(enumerate(runs)))}.values())
    mean = [f"{np.mean([means[place][key] for place in once]):.2f}" for key in LANGUAGE_FIGURES]
    lines.append(_row(["twins", *mean, *[""] * len(TO_TWINS), slices]))
    floor = [
        f"{np.mean([_to_the_others([twin[key] for twin in of_twins[place]]) for place in once]):.2f}"
        for key in LANGUAGE_FIGURES
    ]
    between = [twin for place in once for twin in of_twins[place]]
    lines.append(_row(["one twin to the others", *floor, *_to_twins(between), slices]))
    for name in names:
        places = once if name == "original" else range(len(runs))
        found = [(runs[place]["lines"][name], means[place]) for place in places if name in runs[place]["lines"]]
        away = [_distance([line[key] - value[key] for line, value in found], key) for key in LANGUAGE_FIGURES]
        lines.append(_row([_name(name), *away, *_to_twins([line for line, _ in found]), str(len(found))]))
    return "\n".join(lines)


def _to_the_others(twins: list[float]) -> float:
    """Mean distance of a twin to the mean of the others."""
    total, count = sum(twins), len(twins)
    return float(np.mean([abs(twin - (total - twin) / (count - 1)) for twin in twins]))


def _to_twins(lines: list[dict]) -> list[str]:
    """Their mean over these; a dash where not all were measured."""
    known = [[line[key] for line in lines if key in line] for key in TO_TWINS]
    return [f"{np.mean(each):.2f}" if len(each) == len(lines) else "–" for each in known]


def _distance(differences: list[float], key: str) -> str:
    return f"{np.mean(differences):+.2f}" if key in SIGNED else f"{np.mean(np.abs(differences)):.2f}"


def _name(run: str) -> str:
    method, _, given = run.partition(":")
    if method == "original":
        return method
    values = [item.split("=") for item in given.split(",") if item and item.split("=")[0] not in BATCHES]
    more = ", ".join("base unknown" if key == "known" else f"{SHORT.get(key, key)} {value}" for key, value in values)
    return f"`{method}`" + (f", {more}" if more else "")


def pretrained() -> str:
    """The pretrained BERT: see `pretrained.py`."""
    from pretrained import table

    return table()


def pretrained_pooled() -> str:
    """The pretrained BERT over all cases of a recipe."""
    from pretrained import pooled_table

    return pooled_table()


def shares() -> str:
    """The pretrained BERT forgets few rows, or half of them: see `pretrained.py`."""
    from pretrained import shares_table

    return shares_table()


def varied() -> str:
    """∇τ on the BERT with a default multiplied: see `pretrained.py`."""
    from pretrained import varied_table

    return varied_table()


SCRATCH = {
    "digits_10": "digits, a random 10 %",
    "digits_30": "digits, a random 30 %",
    "digits_50": "digits, a random 50 %",
    "digits_class": "digits, one class",
    "digits_3_classes": "digits, three classes",
    "digits_wrong_labels": "digits, 10 % with wrong labels",
    "text_10": "text classifier, 10 %",
    "text_class": "text classifier, one class",
    "text_3_classes": "text classifier, three classes",
    "lm_10": "language model, 10 % of the authors",
}
METHODS = {"∇τ": "nabla_tau", "SalUn": "salun", "UNSIR": "unsir"}


def from_scratch(methods: tuple[str, ...]) -> str:
    """Small models trained from scratch: see `quality.py`. Doing nothing → the method (a twin to the others)."""
    gaps = {"forget_accuracy": "forget accuracy gap", "membership": "membership AUC gap"}
    head = ["case", "method", *gaps.values(), "test accuracy", "rms z of forgotten rows", "examples", "seeds"]
    lines = [_row(head), _row(["---"] * len(head))]
    for case, words in SCRATCH.items():
        paths = sorted((RESULTS / "quality").glob(f"{case}_[0-9].json"))
        every = [json.loads(path.read_text()) for path in paths]
        for name in methods:
            runs = [run for run in every if name in run["methods"]]
            if not runs:
                continue
            done, nothing = ([run["methods"][which] for run in runs] for which in (name, "do nothing"))
            cells = []
            for key in gaps:
                before, after = (np.mean([m["gap"][key] for m in of]) for of in (nothing, done))
                cells.append(f"{before:.1f} → {after:.1f} ({np.mean([run['floor'][key] for run in runs]):.1f})")
            z = [np.mean([m["model"]["rows"]["rms_z"] for m in of]) for of in (nothing, done)]
            floor = np.mean([run["retrained"]["rows"]["rms_z"] for run in runs])
            cells += [f"{np.mean([m['difference']['test_accuracy'] for m in done]):+.1f}"]
            cells += [f"{z[0]:.2f} → {z[1]:.2f} ({floor:.2f})", f"{100 * np.mean([m['share'] for m in done]):.0f} %"]
            lines.append(_row([words, f"`{METHODS[name]}`", *cells, str(len(runs))]))
            words = ""
    return "\n".join(lines)


def contest(case: str) -> str:
    """All methods on one case: see `contest.py`."""
    from contest import table

    return table(case)


def durability() -> str:
    """What fine-tuning and rounding bring back: see `durability.py`."""
    from durability import table

    return table()


def relearned() -> str:
    """What fine-tuning on a quarter of the forgotten rows brings back of the others: see `language_models.py`."""
    from language_models import relearned as table

    return table()


def drawn_digits(model: str) -> str:
    """Diffusion models that draw digits: see `drawn_digits.py`."""
    from drawn_digits import table

    return table(model)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


CONTESTS = [path.stem for path in sorted((RESULTS / "contest").glob("*.json"))]
TABLES: dict[str, Callable[[], str]] = {
    "chat model": lambda: language_models("12x10_[0-9].json", "12x10_float32_[0-9].json"),
    "chat model, LoRA": lambda: language_models(
        "12x10_lora_[0-9].json", "12x10_lora_float32_[0-9].json", "12x10_lora_other_[0-9].json"
    ),
    "pretrained BERT": pretrained,
    "from scratch": lambda: from_scratch(("∇τ", "SalUn", "UNSIR")),
    "varied": varied,
    "pretrained BERT, pooled": pretrained_pooled,
    "shares": shares,
    "durability": durability,
    "relearned": relearned,
    "drawn digits": lambda: drawn_digits("pixels"),
    "digits from prompts": lambda: drawn_digits("prompts"),
    "digits, rows": lambda: drawn_digits("rows"),
    **{f"contest {case}": partial(contest, case) for case in CONTESTS},
}


def place(text: str, name: str, table: str) -> str:
    """`text` with the table under its marker replaced."""
    marker = f"<!-- table: {name} -->"
    return re.sub(re.escape(marker) + r"\n\n(?:\|.*\n)*\n?", lambda _: f"{marker}\n\n{table}\n\n", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into the pages")
    options = parser.parse_args()
    for name, make in TABLES.items():
        print(f"{name}\n\n{make()}\n")
    for page in PAGES if options.write else ():
        path = ROOT / page
        text = path.read_text()
        for name, make in TABLES.items():
            text = place(text, name, make())
        path.write_text(text)


if __name__ == "__main__":
    main()
