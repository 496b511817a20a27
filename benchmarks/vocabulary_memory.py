"""What the losses of a step hold in memory beside a large vocabulary's logits and their gradient.

    python benchmarks/vocabulary_memory.py

One forward and backward of ∇τ's loss (row log-odds of the forget rows, mean loss of the retain rows) on a small Llama
with 49,152 words, and one scoring pass's figures of the same batch. `logits` is a backward pass from the sum of the
logits alone, which is what the model itself needs; `plain` writes the figures out over all rows at once; `chunked` is
the package's own. Peak memory is that of a fresh process each, over the process before the step, in copies of the
logits in float32. The figures are stored in `benchmarks/results/vocabulary_memory.json`.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "vocabulary_memory.json"
VOCABULARY, TOKENS = 49_152, 64  # supervised tokens of a row
FORGET, RETAIN = 4, 8
FIGURES = ("loss", "log_odds", "correct", "confidence", "entropy", "modified_entropy")
FORMS = ("logits", "plain", "chunked")


def build():
    """Logits of a batch, made by a model, and the labels and owners of its tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=4, intermediate_size=128, max_position_embeddings=TOKENS)  # fmt: skip
    rows = FORGET + RETAIN
    ids = torch.randint(VOCABULARY, (rows, TOKENS))
    labels = torch.randint(VOCABULARY, (rows * TOKENS,))
    return LlamaForCausalLM(config), ids, labels, torch.arange(rows).repeat_interleave(TOKENS)


def plain_figures(logits, labels, example, size: int) -> dict:
    """The figures written out over all rows at once."""
    import torch
    import torch.nn.functional as F

    def mean(values):
        return values.new_zeros(size).index_add(0, example, values) / TOKENS

    log_probs, label = F.log_softmax(logits, 1), labels[:, None]
    probs = log_probs.exp()
    loss = mean(F.cross_entropy(logits, labels, reduction="none"))
    top = probs.argmax(1, keepdim=True)
    others = probs.scatter(1, torch.cat([label, top], 1), 0.0)
    own, rest = probs.gather(1, label), others.sum(1, keepdim=True)
    terms = (1 - own) * log_probs.gather(1, label) + torch.where(top == label, 0.0, rest)
    return {
        "loss": loss,
        "log_odds": -torch.log(torch.expm1(loss)),
        "correct": mean((top.squeeze(1) == labels).float()),
        "confidence": mean(probs.amax(1)),
        "entropy": mean(-(probs * log_probs).sum(1)),
        "modified_entropy": mean(-terms.squeeze(1) - (others * torch.log1p(-others)).sum(1)),
    }


def step_loss(form: str, logits, labels, example):
    """∇τ's loss with a target of 0 for every row."""
    import torch
    import torch.nn.functional as F

    from hf_unlearn.tasks.predictions import Predictions

    if form == "logits":
        return logits.sum()
    if form == "chunked":
        forget, retain = Predictions(logits, labels, FORGET + RETAIN, example).split(FORGET)
        return forget.log_odds.square().mean() + retain.loss.mean()
    cut = FORGET * TOKENS
    forget, retain = (F.cross_entropy(logits[part], labels[part], reduction="none").view(-1, TOKENS).mean(1)
                      for part in (slice(0, cut), slice(cut, None)))  # fmt: skip
    return torch.log(torch.expm1(forget)).square().mean() + retain.mean()


def scored(form: str, logits, labels, example) -> list[float]:
    """The figures of a scoring pass."""
    from hf_unlearn.tasks.predictions import Predictions

    if form == "logits":
        return []
    size = FORGET + RETAIN
    if form == "plain":
        return [float(values.sum()) for values in plain_figures(logits, labels, example, size).values()]
    predictions = Predictions(logits, labels, size, example)
    return [float(getattr(predictions, name).sum()) for name in FIGURES]


def run(form: str, part: str) -> None:
    """Prints peak memory in MB over what the process had before, and seconds a step."""
    import torch

    torch.set_num_threads(1)
    model, ids, labels, example = build()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(2):
        start = time.perf_counter()
        if part == "step":
            logits = model(input_ids=ids, use_cache=False).logits.flatten(0, 1)
            step_loss(form, logits, labels, example).backward()
        else:
            with torch.no_grad():
                logits = model(input_ids=ids, use_cache=False).logits.flatten(0, 1)
                scored(form, logits, labels, example)
        del logits
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"memory_mb": (peak - before) / 1024, "seconds": min(times)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=["step", "score"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        return run(options.form, options.part)
    from hf_unlearn.report.evidence import environment

    copy = VOCABULARY * TOKENS * (FORGET + RETAIN) * 4 / 2**20
    results = {"logits_mb": copy, "environment": environment(seed=0, device="cpu", threads=1)}
    print("| part | form | peak, copies of the logits | beyond the model's own | seconds |\n|" + " --- |" * 5)
    for part in ("step", "score"):
        for form in FORMS:
            command = [sys.executable, __file__, "--form", form, "--part", part]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            row["copies"] = row["memory_mb"] / copy
            row["beyond"] = row["copies"] - results.get(f"{part} logits", row)["copies"]
            results[f"{part} {form}"] = row
            print(
                f"| {part} | {form} | {row['copies']:.2f} | {row['beyond']:.2f} | {row['seconds']:.2f} |", flush=True
            )
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
