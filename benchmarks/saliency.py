"""What choosing the salient weights costs: the radix select beside the published procedure, in one run.

    python benchmarks/saliency.py

The published procedure joins all saliencies, sorts twice (positions, then the rank of every weight) and writes int64
masks. Both keep half of the weights of a ViT-S/16 and a ViT-B/16: half-normal values with heavy tails, one thread,
float32. Each measurement is a fresh process; the two take turns, so that a drift of the machine hits both. Times are
processor time, which on one thread is the clock's on an idle machine (that is stored too). Extra peak memory is the
process's peak over what it held when the saliencies were there, the masks included. Figures are stored in
`benchmarks/results/saliency/selection.json`.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "saliency" / "selection.json"
WIDTHS = {"ViT-S/16": 384, "ViT-B/16": 768}
ROUNDS = {"ViT-S/16": 3, "ViT-B/16": 1}
SHARE = 0.5
FIGURES = ("seconds", "cpu_seconds", "extra_mb")
BARS = {"time": 20, "memory": 8}  # at least so many times less of each than the published procedure


def shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Parameters of a ViT with patches of 16 pixels, 12 blocks and 1,000 classes."""
    found = {
        "class_token": (1, 1, width),
        "positions": (1, 197, width),
        "patches.weight": (width, 3, 16, 16),
        "patches.bias": (width,),
    }
    for block in range(12):
        for layer in ("q", "k", "v", "o"):
            found |= {f"{block}.{layer}.weight": (width, width), f"{block}.{layer}.bias": (width,)}
        found |= {f"{block}.fc1.weight": (4 * width, width), f"{block}.fc1.bias": (4 * width,)}
        found |= {f"{block}.fc2.weight": (width, 4 * width), f"{block}.fc2.bias": (width,)}
        for norm in ("norm1", "norm2"):
            found |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
    found |= {"norm.weight": (width,), "norm.bias": (width,)}
    return found | {"head.weight": (1000, width), "head.bias": (1000,)}


def saliencies(sizes: dict[str, tuple[int, ...]], seed: int, device: str = "cpu"):
    """Made in place: what is measured afterwards is not hidden below a peak of this."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    return {n: torch.empty(s, device=device).normal_(generator=generator).abs_().pow_(3) for n, s in sizes.items()}


def published(scores, share: float):
    """Join, sort, sort again for the ranks, and an int64 mask per tensor."""
    import torch

    joined = torch.cat([-value.reshape(-1) for value in scores.values()])
    positions = torch.argsort(joined)
    ranks = torch.argsort(positions)
    limit, start, masks = int(len(joined) * share), 0, {}
    for name, value in scores.items():
        mine = ranks[start : start + value.numel()].reshape(value.shape)
        mask = torch.zeros_like(mine)
        mask[mine < limit] = 1
        masks[name] = mask
        start += value.numel()
    return masks


def radix(scores, share: float):
    """The package's selection."""
    from hf_unlearn.saliency.selection import select_top

    return select_top(scores, share=share)[0]


METHODS = {"published": published, "radix": radix}


def measure(method: str, width: int, seed: int) -> None:
    """In a process of its own: print times, extra peak memory in MB, the number kept and the smallest kept."""
    import torch

    torch.set_num_threads(1)
    select = METHODS[method]
    select(saliencies({"small": (1000,)}, seed), SHARE)  # code that is loaded on first use is no cost of a selection
    scores = saliencies(shapes(width), seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu_start = time.perf_counter(), time.process_time()
    masks = select(scores, SHARE)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = sum(int(mask.sum()) for mask in masks.values())
    smallest = min(float(scores[name][mask.bool()].min()) for name, mask in masks.items() if mask.any())
    figures = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "extra_mb": (peak - before) / 1024,
        "kept": kept,
        "smallest": smallest,
    }
    print(json.dumps(figures | {"weights": sum(value.numel() for value in scores.values())}))


def in_a_process(method: str, model: str, seed: int) -> dict:
    command = [sys.executable, __file__, "--method", method, "--model", model, "--seed", str(seed)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def compare(model: str, rounds: int, seed: int) -> dict:
    """Both procedures on the same values, `rounds` times in turn. Stops if they do not keep the same."""
    runs = {method: [] for method in METHODS}
    for _ in range(rounds):
        for method in ("radix", "published", "radix"):
            runs[method].append(in_a_process(method, model, seed))
    first, second = (runs[method][0] for method in METHODS)
    if (first["kept"], first["smallest"]) != (second["kept"], second["smallest"]):
        raise SystemExit(f"{model}: the two procedures keep different weights")
    result = {"weights": first["weights"], "kept": first["kept"], "rounds": rounds}
    for method, found in runs.items():
        result[method] = {key: statistics.median(run[key] for run in found) for key in FIGURES}
        result[method]["all_cpu_seconds"] = [run["cpu_seconds"] for run in found]
    for name, key in (("time", "cpu_seconds"), ("memory", "extra_mb")):
        result[f"{name}_ratio"] = result["published"][key] / result["radix"][key]
        result[f"{name}_bar_met"] = result[f"{name}_ratio"] >= BARS[name]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=WIDTHS, help="this one only; nothing is stored")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        measure(options.method, WIDTHS[options.model], options.seed)
        return
    from hf_unlearn.report.evidence import environment

    results = {"share": SHARE, "environment": environment(seed=options.seed, device="cpu", threads=1)}
    print("| model | weights | published | radix select | faster | extra memory | less |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for model in [options.model] if options.model else WIDTHS:
        row = results[model] = compare(model, ROUNDS[model], options.seed)
        old, new = row["published"], row["radix"]
        print(
            f"| {model} | {row['weights'] / 1e6:.1f} M | {old['cpu_seconds']:.2f} s | {new['cpu_seconds']:.3f} s "
            f"| {row['time_ratio']:.0f}× | {old['extra_mb']:.0f} → {new['extra_mb']:.0f} MB "
            f"| {row['memory_ratio']:.1f}× |",
            flush=True,
        )
    if not options.model:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
