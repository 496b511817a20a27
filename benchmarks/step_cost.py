"""What a step of a method costs beside a plain `transformers.Trainer` step over as many examples, in one run; and a
masked step beside the same one without a mask.

    python benchmarks/step_cost.py

Both train the same model on the same rows; steps alternate in blocks, so that a drift of the machine hits both. Peak
memory is that of a fresh process each. Accumulation 1, AdamW, float32, one thread. The figures are stored in
`benchmarks/results/step_cost.json`.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "step_cost.json"
EXAMPLES, FORGET = 24, 8  # per step: 16 retain and 8 forget rows, or 24 plain ones
PAIRS = [("plain", "rows"), ("plain", "held"), ("plain", "salun"), ("rows", "rows masked")]


def build(kind: str):
    """Model, rows and task of a realistic shape."""
    import datasets
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    from hf_unlearn.tasks import get_task

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    if kind == "vit":
        config = ViTConfig(hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768,
                           image_size=64, patch_size=8, num_labels=10)  # fmt: skip
        processor = ViTImageProcessorPil(do_resize=False)
        names = [str(i) for i in range(10)]
        task = get_task("image_classification")(processor, {"image": "image", "label": "label"}, label_names=names)
        images = rng.integers(0, 255, (128, 64, 64, 3), dtype=np.uint8)
        rows = {"image": list(images), "label": [i % 10 for i in range(128)]}
        features = datasets.Features(
            {"image": datasets.Array3D((64, 64, 3), "uint8"), "label": datasets.Value("int64")}
        )
        return ViTForImageClassification(config), datasets.Dataset.from_dict(rows, features), task
    from hf_unlearn.data.sources import load_source

    source = load_source("fictitious_authors")
    tokenizer = source.make_processor()
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=192, num_hidden_layers=6, num_attention_heads=6,
                         num_key_value_heads=6, intermediate_size=512, max_position_embeddings=128,
                         pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    task = get_task("causal_lm")(tokenizer, source.columns)
    model = LlamaForCausalLM(config)
    task.prepare_model(model)
    return model, source.train.select(range(128)), task


def make_trainer(kind: str, method: str, scratch: str, steps: int):
    """A plain Trainer, the ∇τ trainer with one of its schedules, masked or not, or SalUn, over the same rows."""
    import step_setup

    model, source, task = build(kind)
    trainer = step_setup.make_trainer(
        method, model, source, task, scratch, examples=EXAMPLES, forget=FORGET, steps=steps, use_cpu=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    if method == "plain":
        return trainer
    import torch

    def prepared():  # the steps are measured here; what comes before them is counted in examples by quality.py
        state = {"targets": torch.full((32,), -1.0), "spread": torch.tensor(2.0), "tau": torch.tensor(5.0)}
        if not task.has_classes:
            counts = [int((f["labels"] != -100).sum()) for f in trainer.splits.forget.__getitems__(range(32))]
            state["token_start"] = torch.tensor([0, *counts]).cumsum(0)
            state["token_targets"] = torch.full((sum(counts),), -1.0)
        return state

    trainer.prepare = prepared
    trainer._measure_targets = lambda: None
    return trainer


def timed_steps(kind: str, method: str, steps: int) -> list[float]:
    """Seconds of each step but the first five."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Notes when each step ends."""

        def __init__(self):
            self.ends = []

        def on_step_end(self, *args, **kwargs):
            self.ends.append(time.perf_counter())

    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(kind, method, scratch, steps)
        trainer.add_callback(clock)
        trainer.train()
    return [b - a for a, b in zip(clock.ends[4:], clock.ends[5:], strict=False)]


def measure_memory(kind: str, method: str) -> float:
    """Peak memory in MB of a fresh process that trains for a few steps, over the process before its first step."""
    command = [sys.executable, __file__, "--kind", kind, "--method", method]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--kind", choices=["vit", "llama"], help=argparse.SUPPRESS)
    parser.add_argument("--method", default="plain", help=argparse.SUPPRESS)
    options = parser.parse_args()
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    if options.kind:
        timed_steps(options.kind, options.method, 12)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    from hf_unlearn.report.evidence import environment

    results = {"examples_per_step": EXAMPLES, "environment": environment(seed=0, device="cpu", threads=1)}
    print("| model | step | beside | its step | step | time | memory |\n|" + " --- |" * 7)
    for kind in ("vit", "llama"):
        memory = {method: measure_memory(kind, method) for method in dict.fromkeys(m for pair in PAIRS for m in pair)}
        for base, method in PAIRS:
            ratios, before, ours = [], [], []
            for round_ in range(options.rounds + 1):
                pair = {m: statistics.median(timed_steps(kind, m, options.steps)) for m in (base, method)}
                if round_ == 0:
                    continue  # a warm-up
                before.append(pair[base])
                ours.append(pair[method])
                ratios.append(pair[method] / pair[base])
            row = {
                "beside": base, "base_ms": 1e3 * statistics.median(before), "step_ms": 1e3 * statistics.median(ours),
                "time_ratio": statistics.median(ratios), "time_ratios": ratios, "memory_mb": memory[method],
                "memory_ratio": memory[method] / memory[base],
            }  # fmt: skip
            results[f"{kind} {method}"] = row
            spread = f"{row['time_ratio']:.3f}× ({min(ratios):.3f}–{max(ratios):.3f})"
            steps = f"{row['base_ms']:.1f} ms | {row['step_ms']:.1f} ms"
            print(f"| {kind} | {method} | {base} | {steps} | {spread} | {row['memory_ratio']:.3f}× |", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
