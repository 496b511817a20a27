"""What the scoring pass costs beside a plain forward pass over the same rows in the same batches, in one run.

    python benchmarks/evaluation_cost.py

"score" computes every per-example figure that the evidence needs, "score_tokens" those of every token as well, and
"metrics" what is computed from the arrays afterwards: comparison and threshold attacks. Not in it, as they train or
generate: the classifier attacks, U-LiRA, relearning, ROUGE. Processor time of one thread, rounds in turn, medians.
Stored in `benchmarks/results/evaluation_cost.json`.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "evaluation_cost.json"
BATCH = 64


def plain_forward(model, task, rows) -> None:
    """The forward pass of an evaluation loop that keeps the logits of the last batch only."""
    import torch
    from torch.utils.data import DataLoader

    model.eval()
    with torch.no_grad():
        for batch in DataLoader(rows, batch_size=BATCH, collate_fn=task.collate):
            task.predict(model, batch).loss.sum()


def figures(scores) -> None:
    """What is computed from the arrays: the comparison with two twins and the threshold attacks."""
    from hf_unlearn.evaluation.attack_comparison import compare_attacks
    from hf_unlearn.evaluation.comparison import compare

    splits = {name: scores for name in ("forget", "retain", "test", "nonmembers")}
    compare(splits, splits, [splits, splits])
    compare_attacks(splits, splits, [splits, splits])


def measure(kind: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time by what was done, one for each round."""
    from step_cost import build

    from hf_unlearn.data.rows import Rows
    from hf_unlearn.evaluation.scoring import score, score_tokens

    model, source, task = build(kind)
    rows = Rows(source, task)
    rows.__getitems__(range(len(rows)))  # encoded once, for all
    scores = score(model, task, rows, batch_size=BATCH)
    jobs = {
        "forward": lambda: plain_forward(model, task, rows),
        "score": lambda: score(model, task, rows, batch_size=BATCH),
        "metrics": lambda: figures(scores),
    }
    if not task.has_classes:
        jobs["score_tokens"] = lambda: score_tokens(model, task, rows, batch_size=BATCH)
    found = {name: [] for name in jobs}
    for round_ in range(rounds + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            if round_:  # the first is a warm-up
                found[name].append(time.process_time() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    import torch
    import transformers

    from hf_unlearn.report.evidence import environment

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    results = {"environment": environment(seed=0, device="cpu", threads=1), "rows": 128}
    print("| model | pass | seconds | beside a forward pass |\n| --- | --- | --- | --- |")
    for kind in ("vit", "llama"):
        found = measure(kind, options.rounds)
        for name, seconds in found.items():
            ratio = statistics.median(a / b for a, b in zip(seconds, found["forward"], strict=True))
            results[f"{kind} {name}"] = {"seconds": statistics.median(seconds), "ratio": ratio, "rounds": seconds}
            print(f"| {kind} | {name} | {statistics.median(seconds):.3f} | {ratio:.3f}× |", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
