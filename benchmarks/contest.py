"""Which method comes closest to retrained twins, at which cost? `hf-unlearn compare` on one case, stored.

    python benchmarks/contest.py --cases digits_10 digits_class --seeds 3
    python benchmarks/contest.py --cases banking77_random --data DIR --models DIR --methods nabla_tau salun scrub
    python benchmarks/contest.py --table

`digits_*` need nothing. `banking77_*` are those of `pretrained.py`: ten intents, 40 rows of each, a BERT of 22 M
weights and recipe r2; DIR has banking77/train.csv and test.csv, and minilm/. `fashion_*` are 3,000 images of
`fashion_mnist` (zalando-datasets/fashion_mnist on the Hub: a folder of its parquet files) and a small vision
transformer that is trained from scratch for ten epochs. `tofu` is slice 0 of `language_models.py`, eight authors of
eight questions, and its recipe with LoRA in mixed precision: a chat model of 135 M weights forgets two authors; DIR
has tofu/full.json, and smollm2/. Every method runs with its defaults, one original and four twins a seed (`tofu`:
three); another twin, doing nothing and fine-tuning stand beside. What is stored is the command's own `contest.json`.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import language_models
import numpy as np
import pretrained
import yaml

RESULTS = Path(__file__).parent / "results" / "contest"
ROOT = Path(__file__).resolve().parents[1]
TWINS = 4
REQUESTS = {
    "digits_10": {"forget_fraction": 0.1},
    "digits_class": {"forget_classes": [3]},
    "fashion_10": {"forget_fraction": 0.1},
    "fashion_class": {"forget_classes": [5]},
    "banking77_random": {"forget_fraction": 0.1, "group_column": "customer"},
    "banking77_class": {"forget_classes": ["pending_transfer"]},
    "banking77_planted": {"id_column": "row"},
    "tofu": {"forget_fraction": 0.25, "group_column": "author"},
}
WORDS = {
    "digits_10": "digits, a random tenth",
    "digits_class": "digits, one class",
    "fashion_10": "fashion_mnist, a random tenth",
    "fashion_class": "fashion_mnist, one class",
    "banking77_random": "pretrained BERT, a tenth of the rows, some customers",
    "banking77_class": "pretrained BERT, one intent",
    "banking77_planted": "pretrained BERT, a tenth with wrong labels",
    "tofu": "chat model, two of eight authors",
}
GAPS = {
    "gap_forget_accuracy": "forget accuracy", "gap_forget_loss": "forget loss", "gap_membership": "AUC",
    "rms_z": "rms z", "said_instead": "KL",
}  # fmt: skip
LANGUAGE = ("gap_forget_loss", "said_instead")  # figures that only language models have
LEVELS = {"retain_accuracy": "retain", "test_accuracy": "test"}


def write_banking77(folder: Path, data: Path, planted: bool) -> None:
    """`train.csv`, `validation.csv` and `test.csv` of the rows that `pretrained.py` has under seed 0; customers have
    four rows each. `planted`: a tenth gets a wrong label, and `forget.txt` names it."""
    names = pretrained.INTENTS["result"].split()
    rng = np.random.default_rng([0, 11])
    parts = pretrained.draw_rows(data, names, pretrained.TRAIN, rng)
    size = len(parts["train"])
    customers = rng.permutation(size) // pretrained.GROUP
    if planted:
        chosen = np.sort(rng.permutation(size)[: size // 10])
        for i in chosen:
            text, label = parts["train"][i]
            parts["train"][i] = (text, int((label + rng.integers(1, len(names))) % len(names)))
        (folder / "forget.txt").write_text("".join(f"{i}\n" for i in chosen))
    for part in ("train", "validation", "test"):
        with open(folder / f"{part}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["row", "customer", "text", "label"])
            for i, (text, label) in enumerate(parts[part]):
                writer.writerow([i, customers[i] if part == "train" else i, text, names[label]])


def write_tofu(folder: Path, data: Path) -> None:
    """`train.jsonl`, `validation.jsonl` and `test.jsonl` of slice 0 of `language_models.py`; authors are numbered."""
    which = language_models.Slice(0)
    rows, places = language_models.draw_rows(data, which)
    parts = {"train": sorted(places["forget"] + places["retain"])} | {p: places[p] for p in ("validation", "test")}
    for part, chosen in parts.items():
        lines = [json.dumps(rows[i] | {"author": i // which.rows}, ensure_ascii=False) for i in chosen]
        (folder / f"{part}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def files(folder: Path, kind: str) -> dict[str, str]:
    """The arguments that name what was written to the folder."""
    return {f"{part}_file": str(folder / f"{part}.{kind}") for part in ("train", "validation", "test")}


def settings(case: str, folder: Path, options) -> dict:
    """What the file for `hf-unlearn compare` says."""
    base = {"retrain": TWINS, "seed": 0, "use_cpu": True} | REQUESTS[case]
    if case == "tofu":
        write_tofu(folder, options.data / "tofu")
        recipe = {"model": str(options.models / "smollm2"), "bf16": True} | language_models.RECIPE
        recipe |= language_models.ADAPTER
        more = {"retrain": 3, "task": "causal_lm", "bf16": True, "original": recipe}
        return base | files(folder, "jsonl") | more
    if case.startswith("digits"):
        quickstart = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
        return base | {"dataset_name": "digits", "original": quickstart["original"]}
    if case.startswith("fashion"):
        quickstart = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
        shape = quickstart["original"]["model_config"] | {"image_size": 28, "patch_size": 7}
        recipe = quickstart["original"] | {"model_config": shape, "num_train_epochs": 10}
        where = {"dataset_name": str(options.data / "fashion_mnist"), "max_train_rows": 3000}
        return base | where | {"original": recipe}
    write_banking77(folder, options.data, planted=case.endswith("planted"))
    if case.endswith("planted"):
        base["forget_ids"] = str(folder / "forget.txt")
    epochs, rate = pretrained.RECIPES["r2"]
    return base | {
        **files(folder, "csv"),
        "task": "text_classification",
        "text_column": "text",
        "label_column": "label",
        "max_length": pretrained.MAX_LENGTH,
        "original": {
            "model": str(options.models / "minilm"),
            "num_train_epochs": epochs,
            "learning_rate": rate,
            "batch_size": 16,
        },
    }


def run(case: str, options) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output.resolve() / f"{case}_rows" if options.output else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        config, said = folder / "contest.yaml", settings(case, folder, options)
        config.write_text(yaml.safe_dump(said))
        output = options.output / case if options.output else folder / "contest"
        command = [sys.executable, "-m", "hf_unlearn.cli", "compare", "--config", str(config), "--output_dir",
                   str(output), "--seeds", str(options.seeds), "--methods", *options.methods]  # fmt: skip
        subprocess.run(command, check=True)
        found = json.loads((output / "contest.json").read_text())
        found["source"] = WORDS[case]  # instead of a folder of this machine
        if base := said["original"].get("model"):
            found["recipe"]["model"] = Path(base).name
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{case}.json").write_text(json.dumps(found, indent=1) + "\n")
        if options.output:
            shutil.copy(output / "contest.html", options.output / f"{case}.html")


def table(case: str, folder: Path = RESULTS) -> str:
    """Markdown, the closest row by row first: distances to the twins, of language models also in nats, accuracies less
    theirs (in points), cost; under how many seeds a method was told apart from the twins and lost utility. The twins'
    line is one against the rest."""
    found = json.loads((folder / f"{case}.json").read_text())
    seeds = len(found["seeds"])
    floor = found["floor"]
    gaps = [key for key in GAPS if found["task"] == "causal_lm" or key not in LANGUAGE]
    lines = [_row(["", *(GAPS[key] for key in gaps), *LEVELS.values(), "examples", "told apart", "damaged"])]
    lines.append(_row(["---"] * (len(gaps) + len(LEVELS) + 4)))
    lines.append(_row(["one twin to the others", *(_number(floor[key]) for key in gaps), "", "", "", "", ""]))
    done = [entry for entry in found["entries"] if entry["figures"]["rms_z"] is not None]
    for entry in sorted(done, key=lambda entry: entry["figures"]["rms_z"]["mean"]):
        figures, verdict = entry["figures"], entry["verdict"]
        name = f"`{entry['name']}`" if entry["kind"] in ("method", "tuned") else entry["name"]
        levels = [f"{figures[key]['mean'] - floor[key]['mean']:+.1f}" for key in LEVELS]
        cost = "" if figures["cost"] is None else f"{figures['cost']['mean']:.0f} %"
        judged = [f"{verdict[key]} of {seeds}" if verdict[key] else "" for key in ("told_apart", "damaged")]
        lines.append(_row([name, *(_number(figures[key]) for key in gaps), *levels, cost, *judged]))
    return "\n".join(lines)


def _number(figure: dict | None) -> str:
    return "" if figure is None else f"{figure['mean']:.1f}" if figure["mean"] >= 10 else f"{figure['mean']:.2f}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    if "--table" in sys.argv:
        return print(
            "\n\n".join(f"{WORDS[path.stem]}\n\n{table(path.stem)}" for path in sorted(RESULTS.glob("*.json")))
        )
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["digits_10", "digits_class"], choices=list(REQUESTS))
    parser.add_argument("--methods", nargs="+", default=["all"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="folder with banking77/, fashion_mnist/ and tofu/")
    parser.add_argument("--models", type=Path, help="folder with minilm/ and smollm2/")
    parser.add_argument("--output", type=Path, help="keep the runs here, so that a stopped contest goes on")
    options = parser.parse_args()
    options.data, options.models = (
        None if path is None else path.resolve() for path in (options.data, options.models)
    )
    for case in options.cases:
        if case.startswith(("banking77", "tofu")) and (options.data is None or options.models is None):
            parser.error(f"{case} needs --data and --models")
        if case.startswith("fashion") and options.data is None:
            parser.error(f"{case} needs --data")
        run(case, options)


if __name__ == "__main__":
    main()
