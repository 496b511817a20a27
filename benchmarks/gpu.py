"""What training costs on a GPU, and whether everything works there: five parts, at most six minutes in sum.

    python benchmarks/gpu.py                       # all parts, on the first CUDA device
    python benchmarks/gpu.py --parts steps large   # these only; the others' stored figures stay
    python benchmarks/gpu.py --toy                 # a dry run at toy sizes on the CPU; nothing is stored

It works from a copy of the repository without installing it, and downloads nothing. Each part runs in a process of
its own until its time limit and keeps what it has found by then; a part whose package is missing is skipped by name.
Stored in `benchmarks/results/gpu/<card>.json`.
"""

import argparse
import importlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

# Asked through the driver's management library, the number of devices leaves no trace that a fork could not bear.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder, installed or not

RESULTS = Path(__file__).parent / "results" / "gpu"
PARTS = {  # by name, with the seconds each may take
    "steps": 155,
    "runs": 80,
    "lora": 55,
    "fsdp": 30,
    "large": 25,
}
TOY_PATIENCE = 5  # a busy CPU takes longer than a GPU does
# Imported once, here; the parts are forks of this process.
PRELOADED = (
    "torch", "transformers.trainer", "transformers.models.vit.modeling_vit", "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama", "peft", "datasets", "hf_unlearn.methods.nabla_tau",
    "hf_unlearn.methods.salun", "gpu_parts.watch",
)  # fmt: skip


def probe(run) -> None:
    """Which card this is."""
    import torch

    if not torch.cuda.is_available():
        return
    card = torch.cuda.get_device_properties(0)
    torch.ones(1, device="cuda").sum().item()
    run.put("card", {"name": card.name, "memory_gb": round(card.total_memory / 2**30, 1)})


def find_card(scratch: Path) -> tuple[dict | None, str]:
    """The first device, `None` without one, and how processes must be started for it to answer in them."""
    from gpu_parts.runner import run_part

    for start in ("fork", "spawn"):
        found = run_part(probe, False, 60, scratch / f"probe_{start}", start)["found"]
        if "card" in found:
            return found["card"], start
    return None, "fork"


def preload() -> None:
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError as error:  # the part that needs it says so
            print(f"not imported: {name} ({error})", flush=True)


def store(path: Path, results: dict) -> None:
    """Whole or not at all, over what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="a dry run at toy sizes on the CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="these only")
    parser.add_argument("--output", type=Path, help=f"folder of the JSON (default: {RESULTS.name} below the results)")
    options = parser.parse_args(argv)
    preload()
    from gpu_parts.runner import run_part

    from hf_unlearn.report.evidence import environment

    with tempfile.TemporaryDirectory(prefix="hf-unlearn-gpu-") as scratch:
        card, start = ({"name": "toy"}, "fork") if options.toy else find_card(Path(scratch))
        if card is None:
            print("no CUDA device answers here; --toy tries everything at toy sizes on the CPU", file=sys.stderr)
            return 2
        output = options.output or (Path(scratch) / "results" if options.toy else RESULTS)
        path = output / f"{re.sub('[^a-z0-9]+', '_', card['name'].lower())}.json"
        results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"parts": {}}
        results |= {"card": card, "toy": options.toy}
        for name in options.parts:
            limit = PARTS[name] * (TOY_PATIENCE if options.toy else 1)
            print(f"{name} (at most {limit} seconds)", flush=True)
            part = getattr(importlib.import_module(f"gpu_parts.{name}"), name)
            found = run_part(part, options.toy, limit, Path(scratch) / name, start)
            found["environment"] = environment(seed=0, device=card["name"])
            results["parts"][name] = found
            store(path, results)
            print(f"  {found['outcome']}, {found['seconds']} seconds", flush=True)
    broken = [name for name in options.parts if results["parts"][name]["outcome"].startswith(("failed", "broke"))]
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
