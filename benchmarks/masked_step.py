"""What a masked optimizer step costs beside a plain one, and beside the published procedure, in one run.

    python benchmarks/masked_step.py

20 million float32 weights in the shapes of a ViT-Base, half of them selected at random, one thread. A masked step is
`mask_gradients()` and `step()`. The published procedure multiplies int64 masks onto the gradients and puts the other
weights back from a copy after the step. The kinds of step alternate, so that a drift of the machine hits all alike;
times are the processor's, ratios are medians over the rounds. Memory is counted: bytes a weight that a kind holds
beside weights and gradients. The figures are stored in `benchmarks/results/masked_step.json`.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from hf_unlearn.report.evidence import environment
from hf_unlearn.saliency.apply import MaskedUpdates

RESULTS = Path(__file__).parent / "results" / "masked_step.json"
LAYER = [(768, 768), (768,)] * 4 + [(3072, 768), (3072,), (768, 3072), (768,)] + [(768,)] * 4
SHAPES = [(768, 768), (768,)] + LAYER * 3
CASES = {
    "AdamW": (torch.optim.AdamW, {"weight_decay": 0.0}),
    "AdamW, decay": (torch.optim.AdamW, {"weight_decay": 0.01}),
    "AdamW fused": (torch.optim.AdamW, {"weight_decay": 0.0, "fused": True}),
    "AdamW fused, decay": (torch.optim.AdamW, {"weight_decay": 0.01, "fused": True}),
    "SGD momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "SGD momentum, decay": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 5e-4}),
}


class Plain:
    """A model that is nothing but weights, and an optimizer step over them."""

    def __init__(self, kind: type[torch.optim.Optimizer], options: dict, masks: dict[str, torch.Tensor]):
        device = next(iter(masks.values())).device
        generator = torch.Generator(device).manual_seed(0)
        empty = {name: torch.empty(mask.shape, device=device) for name, mask in masks.items()}
        self.model = torch.nn.ParameterDict(empty)
        for parameter in self.model.values():
            torch.nn.init.normal_(parameter, std=0.02, generator=generator)
            parameter.grad = torch.empty_like(parameter).normal_(std=1e-3, generator=generator)
        self.optimizer = kind(self.model.parameters(), lr=1e-6, **options)
        self.masks = masks
        self.extra: list[torch.Tensor] = []  # what is kept beside the optimizer's own state
        self.prepare()

    def prepare(self) -> None:
        pass

    def step(self) -> None:
        self.optimizer.step()

    def bytes_per_weight(self) -> float:
        state = [t for values in self.optimizer.state.values() for t in values.values() if torch.is_tensor(t)]
        return sum(t.nbytes for t in state + self.extra) / sum(p.numel() for p in self.model.values())


class Masked(Plain):
    def prepare(self) -> None:
        self.lens = MaskedUpdates(self.masks, self.model)
        self.lens.attach(self.optimizer)
        self.extra = [mask.to(torch.int8) for mask in self.masks.values()]

    def step(self) -> None:
        self.lens.mask_gradients()
        self.optimizer.step()


class Published(Plain):
    @torch.no_grad()
    def prepare(self) -> None:
        self.whole = {name: mask.long() for name, mask in self.masks.items()}
        self.original = {name: p.detach().clone() for name, p in self.model.items()}
        self.extra = [*self.whole.values(), *self.original.values()]

    @torch.no_grad()
    def step(self) -> None:
        for name, parameter in self.model.items():
            parameter.grad *= self.whole[name]
        self.optimizer.step()
        for name, parameter in self.model.items():
            mask = self.whole[name]
            parameter.copy_(mask * parameter + (1 - mask) * self.original[name])


def timed(run: Plain) -> float:
    start = time.process_time()
    run.step()
    return 1e3 * (time.process_time() - start)


def measure(case: str, masks: dict[str, torch.Tensor], rounds: int) -> dict[str, float]:
    """Medians over the rounds, in ms and as ratios of neighbouring steps."""
    runs = {kind.__name__.lower(): kind(*CASES[case], masks) for kind in (Plain, Masked, Published)}
    for run in runs.values():
        run.step()
    times = {name: [] for name in runs}
    for round_ in range(rounds):
        for name, run in runs.items():
            if name != "published" or round_ < 2:
                times[name].append(timed(run))
    row = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    for name in ("masked", "published"):
        ratios = [a / b for a, b in zip(times[name], times["plain"], strict=False)]
        row |= {f"{name}_ratio": statistics.median(ratios), f"{name}_ratios": ratios}
    return row | {f"{name}_bytes_per_weight": run.bytes_per_weight() for name, run in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--share", type=float, default=0.5, help="of the weights that are selected")
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    masks = {f"w{i}": torch.rand(shape, generator=generator) < options.share for i, shape in enumerate(SHAPES)}
    weights = sum(mask.numel() for mask in masks.values())
    results = {"weights": weights, "share": options.share, "environment": environment(seed=0, device="cpu", threads=1)}
    print(f"{weights / 1e6:.1f} M weights, {options.share:.0%} selected\n")
    print("| optimizer | plain | masked | published | bytes a weight: plain | masked | published |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        row = results[case] = measure(case, masks, options.rounds)
        low, high = min(row["masked_ratios"]), max(row["masked_ratios"])
        masked = f"{row['masked_ratio']:.2f}× ({low:.2f}–{high:.2f})"
        held = " | ".join(f"{row[f'{kind}_bytes_per_weight']:.0f}" for kind in ("plain", "masked", "published"))
        print(f"| {case} | {row['plain_ms']:.0f} ms | {masked} | {row['published_ratio']:.1f}× | {held} |")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
