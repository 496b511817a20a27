"""What a request of 100 rows costs where ever more is kept: examples, processor time and peak memory by stage.

    python benchmarks/scaling.py                     # 10,000 and 100,000 kept rows
    python benchmarks/scaling.py --rows 1000000      # a million: minutes and 5 GB; the other sizes' figures stay

Short texts of ten classes and a small BERT with a base (random weights: what a run costs does not depend on what they
know, but for how long it is prolonged), with 5,000 validation and 5,000 test rows at every size: fewer of either would
be read whole, more in samples. Each size runs in a process of its own on one thread. Stages:

- `prepare`: encoding and checking every row, roles, digests: grows with the rows, once;
- `targets`: the check of validation rows, the probe and the proxy on the kept rows;
- `steps`: of the unlearning, with what measures the targets anew;
- `score`: the original and the unlearned model, on samples of their rows or with `--score_all` on every one (which is
  not stored).

Written to `benchmarks/results/scaling.json`. `growth` is the largest size's figure over the smallest's, without
`prepare`; `--check` runs the sizes that are given, compares examples with the stored ones, which must be equal, and
processor time by its stored growth, within a factor of 1.5.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "scaling.json"
REQUEST, UNSEEN, CLASSES, WORDS = 100, 5000, 10, 2000
GROWING = ("targets", "steps", "score")  # what should follow the request
FACTOR = 1.5


def texts(count: int, seed: int) -> tuple[list[str], list[int]]:
    """Short texts whose words tell their class, now and then."""
    import numpy as np

    rng = np.random.default_rng(seed)
    labels, sizes = rng.integers(0, CLASSES, count), rng.integers(4, 13, count)
    flat = rng.integers(0, WORDS, sizes.sum())
    told = rng.random(sizes.sum()) < 0.2
    flat = np.where(told, np.repeat(labels, sizes), flat)
    words = np.array([f"w{i}" for i in range(WORDS)])[flat]
    ends = np.cumsum(sizes)
    return [" ".join(words[end - size : end]) for size, end in zip(sizes, ends, strict=True)], labels.tolist()


def source_of(rows: int):
    import datasets

    from hf_unlearn.data.sources import Source

    def part(count: int, seed: int):
        features = datasets.Features({"text": datasets.Value("string"), "label": datasets.Value("int64")})
        found, labels = texts(count, seed)
        return datasets.Dataset.from_dict({"text": found, "label": labels}, features)

    return Source("short texts", part(rows + REQUEST, 0), part(UNSEEN, 1), part(UNSEEN, 2))


class Stages:
    """Processor seconds, examples and the peak of resident memory in MB, by stage."""

    def __init__(self):
        self.found: dict[str, dict[str, float]] = {}
        self._begin()

    def _begin(self) -> None:
        self.start = time.process_time()
        if sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text("5")

    def end(self, stage: str, examples: int = 0) -> None:
        """End a stage, and begin the next."""
        seconds = time.process_time() - self.start
        self.found[stage] = {"seconds": round(seconds, 2), "examples": examples, "peak_mb": round(_peak())}
        self._begin()


def _peak() -> float:
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def measure(rows: int, score_all: bool) -> dict[str, Any]:
    """One size, in this process."""
    import numpy as np
    import torch
    from transformers import BertConfig, BertForSequenceClassification, TrainerCallback

    from hf_unlearn.data.builtin.vocabulary import train_tokenizer
    from hf_unlearn.data.prepare import prepare
    from hf_unlearn.data.request import ForgetRequest
    from hf_unlearn.data.scored_rows import scored_rows
    from hf_unlearn.methods import get_method
    from hf_unlearn.tasks import get_task
    from hf_unlearn.trainers.config import KnownRecipe
    from hf_unlearn.trainers.handover import score_model

    torch.manual_seed(0)
    source = source_of(rows)
    words = [" ".join(f"w{i}" for i in range(WORDS))]
    tokenizer = train_tokenizer(words * 2, vocab_size=2500, max_length=32, decoder_only=False)
    names = [str(i) for i in range(CLASSES)]
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=128, max_position_embeddings=32, num_labels=CLASSES)  # fmt: skip
    model, task_class = BertForSequenceClassification(config), get_task("text_classification")
    stages = Stages()
    request = ForgetRequest(rows=np.arange(REQUEST))
    data = prepare(
        source, request, task_class, seed=0, split_seed=0, trains_original=False, label2id=None,
        make_task=lambda columns, labels: task_class(tokenizer, columns, label_names=names),
        settle_model=lambda task: task.prepare_model(model),
    )  # fmt: skip
    data.measure_digest()
    data.division()
    stages.end("prepare")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)

        def start(seed: int):
            return BertForSequenceClassification.from_pretrained(folder)

        method = get_method("nabla_tau")
        args = method.config_class(
            output_dir=folder, use_cpu=True, disable_tqdm=True, logging_strategy="no", score_all=score_all,
            learning_rate=1e-5,
        )  # fmt: skip
        recipe = KnownRecipe(start, epochs=3.0, learning_rate=5e-5, pretrained=True)

        class Marks(TrainerCallback):
            def on_train_begin(self, *args, **kwargs):
                stages.end("targets", int(trainer.method_state["side_examples"]))

        trainer = method(model, args, data.splits, data.task, recipe=recipe, quiet=True, callbacks=[Marks()])
        planned = trainer.rows_of_steps() + trainer.rows_beside_steps()
        trainer.train()
        stages.end("steps", trainer.examples - stages.found["targets"]["examples"])
        for _ in range(2):  # the original costs as much
            score_model(trainer)
        splits = scored_rows(data.splits, args.seed, every=score_all)
        scored = len(splits.forget) + len(splits.retain) + len(splits.test)
        stages.end("score", 2 * scored)
    steps = trainer.state.global_step
    return {"rows": rows, "steps": steps, "planned_examples": planned, "stages": stages.found}


def in_own_process(rows: int, score_all: bool = False) -> dict[str, Any]:
    command = [sys.executable, __file__, "--only", str(rows), *(["--score_all"] if score_all else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def growth(sizes: list[dict[str, Any]]) -> dict[str, float]:
    """The largest size over the smallest, without what prepares the rows."""

    def total(size: dict[str, Any], figure: str) -> float:
        return sum(size["stages"][stage][figure] for stage in GROWING)

    first, last = sizes[0], sizes[-1]
    return {figure: round(total(last, figure) / total(first, figure), 3) for figure in ("examples", "seconds")}


def table(sizes: list[dict[str, Any]]) -> str:
    lines = ["| kept rows | stage | examples | CPU seconds | peak MB |", "| --- | --- | ---: | ---: | ---: |"]
    for size in sizes:
        for stage, found in size["stages"].items():
            figures = f"{found['examples']:,} | {found['seconds']:.1f} | {found['peak_mb']:,}"
            lines.append(f"| {size['rows']:,} | {stage} | {figures} |")
    return "\n".join(lines)


def check(sizes: list[dict[str, Any]], stored: dict[str, Any]) -> list[str]:
    """What is not as it is stored, a line each."""
    known = {size["rows"]: size for size in stored["sizes"]}
    wrong = [] if any(size["rows"] in known for size in sizes) else ["nothing is stored of these sizes"]
    for size in sizes:
        if size["rows"] not in known:
            continue
        before = known[size["rows"]]["stages"]
        wrong += [
            f"{size['rows']:,} rows, {stage}: {size['stages'][stage]['examples']:,} examples for "
            f"{before[stage]['examples']:,}"
            for stage in GROWING
            if size["stages"][stage]["examples"] != before[stage]["examples"]
        ]
    same = [known[size["rows"]] for size in sizes if size["rows"] in known]
    if len(same) > 1 and growth(sizes)["seconds"] > FACTOR * growth(same)["seconds"]:
        wrong.append(f"processor time grows {growth(sizes)['seconds']} times, stored is {growth(same)['seconds']}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--check", action="store_true", help="compare with what is stored; store nothing")
    parser.add_argument("--score_all", action="store_true", help="score every row; store nothing")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        import torch
        import transformers

        torch.set_num_threads(1)
        transformers.logging.set_verbosity_error()
        return print(json.dumps(measure(options.only, options.score_all)))
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"sizes": []}
    sizes = []
    for rows in sorted(options.rows):
        sizes.append(in_own_process(rows, options.score_all))
        print(table(sizes[-1:]), flush=True)
        if not (options.check or options.score_all):
            store(sizes, stored["sizes"])
    if options.check:
        wrong = check(sizes, stored)
        print("\n".join(wrong) or "as stored")
        raise SystemExit(bool(wrong))
    print(f"without `prepare` the largest takes {growth(sizes)} times the smallest")


def store(sizes: list[dict[str, Any]], before: list[dict[str, Any]]) -> None:
    """Write what was measured in the place of what is stored of the same sizes."""
    from hf_unlearn.report.evidence import environment

    merged = {size["rows"]: size for size in [*before, *sizes]}
    every = [merged[rows] for rows in sorted(merged)]
    results = {
        "request": REQUEST, "sizes": every, "growth": growth(every),
        "environment": environment(seed=0, device="cpu", threads=1),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
