"""Does what was forgotten come back sooner than a retrained twin learns it? On the pretrained BERT of `pretrained.py`.

    python benchmarks/durability.py --models DIR --data DIR --methods "∇τ" SalUn fine-tune

A tenth of the rows, of some customers, recipe r2. Every method's model, its original and its twins are fine-tuned on
kept rows, on unrelated ones, on a few of the forgotten and on rows related to them, and then rounded to 8 and 4 bits
([`hf_unlearn.evaluation.stress`]). A line is a disturbance: forget accuracy of the unlearned model beside the twins'
mean, and the lowest and highest twin. One file a seed in `results/durability/`, where methods that ran before stay;
`--table` prints them.
"""

import argparse
import copy
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pretrained

RESULTS = Path(__file__).parent / "results" / "durability"
METHODS = {
    "∇τ": {"method": "nabla_tau"},
    "SalUn": {"method": "salun"},
    "∇τ LoRA": {"method": "nabla_tau", "lora": True},
    "fine-tune": {"method": "fine_tune", "num_train_epochs": 2.0},
    "NPO": {"method": "npo", "num_train_epochs": 1.0, "learning_rate": 1e-4},
}
WEIGHTS = {"as_saved": "as saved", "int8": "8 bits", "nf4": "4 bits"}


def run(options, seed: int) -> dict:
    import torch

    from hf_unlearn.evaluation.protocols import PROTOCOLS
    from hf_unlearn.evaluation.stress import StressTest
    from hf_unlearn.models import lora
    from hf_unlearn.report.evidence import environment

    torch.set_num_threads(1)
    case = pretrained.Case(options, "random", "r2", seed)
    (original, _), trained = case.models(options.twins)
    how = {"learning_rate": case.recipe.learning_rate, "protocol": PROTOCOLS["ours"], "seed": seed, "batch_size": 64}
    test = StressTest(("original", original.model), case.task, case.splits, **how)
    beside = {"original": test.measure(original.model, "original")}
    others = {f"twin {k}": test.measure(twin.model, f"twin {k}") for k, (twin, _) in enumerate(trained, 1)}
    result = {"seed": seed, "splits": case.splits.sizes(), "twins": len(others), "methods": {}}
    for name in options.methods:
        trainer = case.trainer(copy.deepcopy(original.model), **METHODS[name])
        trainer.train()
        model = trainer.accelerator.unwrap_model(trainer.model)
        model = lora.merge(model) if lora.is_peft(model) else model
        result["methods"][name] = test.block(beside | {"unlearned": test.measure(model, name)} | others)
        print(f"seed {seed} {name}", flush=True)
    result["environment"] = environment(seed=seed, device="cpu", threads=1)
    return result


def table(folder: Path = RESULTS) -> str:
    """Markdown: a disturbance a line, a method a column; means over the seeds, in percent. Tuned models are shown as
    saved: rounded, they are as they were but for a point or two."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("random_r2_*.json"))]
    names = list(dict.fromkeys(name for run in runs for name in run["methods"]))
    lines = [_row(["", "twins (lowest to highest)", "original", *names])]
    lines.append(_row(["---"] * (len(names) + 3)))
    kinds = list(runs[0]["methods"][names[0]]["cells"]["as_saved"])
    shown = [("untouched", weights) for weights in WEIGHTS] + [(kind, "as_saved") for kind in kinds[1:]]
    for kind, weights in shown:
        found = {n: [r["methods"][n]["cells"][weights][kind] for r in runs if n in r["methods"]] for n in names}
        first = [cells["forget_accuracy"] for cells in found[names[0]]]
        low, high = min(c["twins"]["lowest"] for c in first), max(c["twins"]["highest"] for c in first)
        twins = f"{_mean(c['twins']['mean'] for c in first)} ({100 * low:.0f} to {100 * high:.0f})"
        others = [_mean(c["forget_accuracy"]["unlearned"] for c in found[name]) for name in names]
        words = WEIGHTS[weights] if kind == "untouched" else f"tuned on {kind.replace('_', ' ')}"
        lines.append(_row([words, twins, _mean(c["original"] for c in first), *others]))
    return "\n".join(lines)


def _mean(shares: Iterable[float]) -> str:
    return f"{100 * np.mean(list(shares)):.1f}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    if "--table" in sys.argv:
        return print(table())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="where originals and twins are kept")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--twins", type=int, default=4)
    options = parser.parse_args()
    options.set, options.rows_per_intent, options.forget_rows = "result", pretrained.TRAIN, None
    os.environ["OMP_NUM_THREADS"] = "1"
    for seed in options.seeds:
        result = run(options, seed)
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"random_r2_{seed}.json"
        if path.is_file():
            stored = json.loads(path.read_text())
            if stored["twins"] == result["twins"]:
                result["methods"] = stored["methods"] | result["methods"]
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
