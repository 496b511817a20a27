"""How close does an unlearned model come to retrained twins? Several seeds, averages and row by row.

    python benchmarks/quality.py --cases digits_10 digits_30 --seeds 0 1 2 3 4 --workers 2

Each case trains an original and four twins per seed with its recipe, runs every method on a copy of the original with
its defaults, and stores one file per case and seed in `benchmarks/results/quality/`. The table is made from all stored
files: gap = mean over seeds of |method − mean of the twins|, floor = the same for each twin against the others.
"""

import argparse
import copy
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(os.environ.get("HF_UNLEARN_QUALITY_RESULTS", Path(__file__).parent / "results" / "quality"))
TWINS = 4
RELEARN_STEPS = 200  # a class that is not back by then counts as much
RELEARN_RATE = 0.3  # of the recipe's peak: slow enough to tell models apart by steps
CLASSES = "3815964027"  # the class that seed s removes, and where three go the next two as well
TOPICS = ["logging", "xml", "asyncio", "unittest", "email", "urllib", "http", "importlib"]
METHODS: dict[str, list[str] | None] = {
    "do nothing": None,
    "fine-tune": ["--method", "fine_tune", "--per_device_train_batch_size", "16"],
    "∇τ": ["--method", "nabla_tau"],
    "∇τ held": ["--method", "nabla_tau", "--variant", "held"],
    "∇τ paper": ["--method", "nabla_tau", "--variant", "paper", "--per_device_train_batch_size", "64",
                 "--per_device_forget_batch_size", "64", "--learning_rate", "1e-3"],
    "SalUn": ["--method", "salun"],
    "random labels": ["--method", "salun", "--saliency", "1"],
    "SalUn LoRA": ["--method", "salun", "--use_peft", "true"],
    "SalUn paper": ["--method", "salun", "--variant", "paper"],
    "UNSIR": ["--method", "unsir"],
    "UNSIR LoRA": ["--method", "unsir", "--use_peft", "true"],
    "UNSIR paper": ["--method", "unsir", "--variant", "paper"],
}  # fmt: skip


def case_arguments(case: str, seed: int, folder: Path) -> list[str]:
    """The command line of a case."""
    shared = [
        "--seed",
        str(seed),
        "--original_seed",
        str(1000 * seed),
        "--retrain",
        str(TWINS),
        "--output_dir",
        "none",
    ]
    quickstart = ["--config", str(ROOT / "configs/quickstart.yaml")]
    if case.startswith("digits_") and case[7:].isdigit():
        return [*quickstart, "--forget_fraction", str(int(case[7:]) / 100), *shared]
    if case in ("digits_class", "digits_3_classes"):
        config = ["--config", str(ROOT / "configs/digits_remove_class.yaml")]
        return [*config, "--forget_classes", *removed(case, seed, CLASSES), *shared]
    if case in ("text_class", "text_3_classes"):
        config = strip_request(ROOT / "configs/text_nabla_tau.yaml", folder, keep="dataset_name")
        return ["--config", str(config), "--forget_classes", *removed(case, seed, TOPICS), *shared]
    if case == "digits_wrong_labels":
        write_wrong_labels(folder, seed)
        config = ["--config", str(strip_request(ROOT / "configs/quickstart.yaml", folder))]
        names = ["--dataset_name", str(folder / "data"), "--processor_name_or_path", str(folder / "processor")]
        return [*config, *names, "--task", "image_classification", "--forget_where", "annotator=b", *shared]
    if case == "text_10":
        return ["--config", str(ROOT / "configs/text_nabla_tau.yaml"), *shared]
    if case == "lm_10":
        return ["--config", str(ROOT / "configs/lm_nabla_tau.yaml"), *shared]
    raise SystemExit(f"unknown case {case}")


def removed(case: str, seed: int, classes) -> list[str]:
    """The classes that a case removes with a seed: one, or three."""
    return [classes[(seed + k) % len(classes)] for k in range(3 if "3" in case else 1)]


def write_wrong_labels(folder: Path, seed: int) -> None:
    """Digits whose tenth, the work of annotator b, carries wrong labels in training."""
    import datasets

    from hf_unlearn.data.sources import load_source

    source = load_source("digits", seed=1000 * seed)
    rng = np.random.default_rng([seed, 7])
    train, labels = source.train, np.array(source.train["label"])
    bad = rng.choice(len(train), len(train) // 10, replace=False)
    labels[bad] = (labels[bad] + rng.integers(1, 10, len(bad))) % 10
    annotator = np.where(np.isin(np.arange(len(train)), bad), "b", "a").tolist()
    feature = train.features["label"]
    train = train.remove_columns("label").add_column("label", labels.tolist()).cast_column("label", feature)
    parts = {"train": train.add_column("annotator", annotator), "validation": source.validation, "test": source.test}
    datasets.DatasetDict(parts).save_to_disk(folder / "data")
    source.make_processor().save_pretrained(folder / "processor")


def strip_request(config: Path, folder: Path, keep: str = "nothing") -> Path:
    """The config without its own request, and without its data set unless that is kept."""
    own = [key for key in ("forget_", "group_", "dataset_name") if key != keep]
    lines = [line for line in config.read_text().splitlines() if not line.startswith(tuple(own))]
    path = folder / "config.yaml"
    path.write_text("\n".join(lines))
    return path


def run_job(job: tuple[str, int, list[str]]) -> str:
    """One case with one seed: every method against the same twins."""
    case, seed, names = job
    import torch
    import transformers

    from hf_unlearn.evaluation.comparison import compare
    from hf_unlearn.report.evidence import environment, write_json
    from hf_unlearn.run import stages
    from hf_unlearn.run.parsing import parse_arguments
    from hf_unlearn.run.rows import prepare_data

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        base = case_arguments(case, seed, Path(scratch))
        arguments = parse_arguments(base)
        data = prepare_data(arguments)
        original = stages.get_original(arguments, data)
        twins = stages.make_twins(arguments, data)
        before = stages.score_model(arguments, data, original.model)
        twin_scores = [stages.score_model(arguments, data, twin.model) for twin in twins]
        retrain_examples = float(np.mean([twin.examples for twin in twins]))
        result = {"case": case, "seed": seed, "splits": data.splits.sizes(), "retrain_examples": retrain_examples}
        relearned = relearn_time(arguments, data, before)
        if relearned is not None:
            result["relearn_steps"] = {
                "original": relearned(original.model), "twins": [relearned(twin.model) for twin in twins]
            }  # fmt: skip
        result["twin_forget_loss"] = [float(s["forget"].loss.mean()) for s in twin_scores]
        result["methods"] = {}
        spent = 0.25 * retrain_examples  # unless ∇τ runs now
        order = sorted(names, key=lambda name: name == "fine-tune")  # last: it gets what ∇τ has spent
        for name in order:
            scores, examples, seconds, settings, again = before, 0, 0.0, None, None
            if METHODS[name] is not None:
                extra = list(METHODS[name])
                if name == "fine-tune":
                    extra += ["--num_train_epochs", f"{spent / len(data.splits.retain):.2f}"]
                here = parse_arguments([*base, *extra, "--output_dir", str(Path(scratch) / "out")])
                given = copy.copy(original)
                given.model = copy.deepcopy(original.model)
                trainer = stages.make_trainer(here, data, given)
                unlearning = stages.unlearn(here, data, trainer)
                scores = stages.score_model(here, data, unlearning.model)
                examples, seconds = unlearning.examples, unlearning.seconds
                settings = trainer.args.hyperparameters()
                again = relearned(trainer.model) if relearned is not None else None
            if name == "∇τ":
                spent = examples
            figures = compare(before, scores, twin_scores)
            result["methods"][name] = {
                "model": figures["models"]["unlearned"], "gap": figures["gap"], "difference": figures["difference"],
                "examples": examples, "share": examples / retrain_examples, "seconds": seconds, "settings": settings,
                "relearn_steps": again,
            }  # fmt: skip
            result["retrained"], result["floor"] = figures["models"]["retrained"], figures["floor"]
        result["environment"] = environment(seed=seed, device="cpu", threads=1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{case}_{seed}.json"
    if path.is_file():  # methods that were not run now stay as they are
        result["methods"] = json.loads(path.read_text())["methods"] | result["methods"]
    write_json(path, result)
    return f"{case} seed {seed}: {time.perf_counter() - start:.0f} s"


def relearn_time(arguments, data, before):
    """For removed classes: a function that says how many steps of fine-tuning bring a model's class back."""
    from hf_unlearn.evaluation.relearn import relearn

    if not data.splits.forgotten_classes:
        return None
    accuracy, rate = float(before["forget"].correct.mean()), RELEARN_RATE * arguments.recipe.original_learning_rate

    def steps(model) -> int | None:
        rows = data.splits.forget
        options = {"original_accuracy": accuracy, "learning_rate": rate, "max_steps": RELEARN_STEPS, "every": 2}
        return relearn(model, data.task, rows, **options).steps

    return steps


def table(case: str, seeds: list[int] | None = None, folder: Path = RESULTS) -> str:
    """Markdown: one case, methods down, figures across."""
    files = sorted(folder.glob(f"{case}_[0-9]*.json"))
    runs = [json.loads(path.read_text()) for path in files]
    runs = [run for run in runs if seeds is None or run["seed"] in seeds]
    if not runs:
        return f"### {case}\n\nno stored runs"

    def mean(values):
        values = [value for value in values if value is not None]
        return float(np.mean(values)) if values else math.nan

    keys = ("forget_accuracy", "membership", "retain_accuracy", "test_accuracy")
    head = "| | forget acc | MIA AUC | retain acc ± | test acc ± | forget loss ± | rms z | corrected | z > 2 % | z < −2 % | cost % |"  # noqa: E501
    lines = [f"### {case} (seeds {', '.join(str(run['seed']) for run in runs)}; {TWINS} twins each)", "", head]
    lines.append("|" + " --- |" * 11)

    def line(name, gaps, rows, share):
        figures = [f"{value:.2f}" for value in gaps]
        z = [mean(r["rms_z"] for r in rows), mean(r["level_corrected"]["rms_z"] for r in rows)]
        shares = [100 * mean(r[key] for r in rows) for key in ("remembered", "over_forgotten")]
        figures += [f"{value:.2f}" for value in z] + [f"{value:.1f}" for value in shares] + [share]
        return f"| {name} | " + " | ".join(figures) + " |"

    floor = [mean(run["floor"][key] for run in runs) for key in (*keys, "forget_loss")]
    lines.append(line("floor: twin to twins", floor, [run["retrained"]["rows"] for run in runs], "100"))
    for name in METHODS:
        found = [run["methods"][name] for run in runs if name in run["methods"]]
        if found:
            gaps = [mean(f["gap"][key] for f in found) for key in keys[:2]]
            gaps += [mean(f["difference"][key] for f in found) for key in (*keys[2:], "forget_loss")]
            cost = f"{100 * mean(f['share'] for f in found):.0f}"
            lines.append(line(name, gaps, [f["model"]["rows"] for f in found], cost))
    return "\n".join([*lines, "", *bars(runs, case)])


def bars(runs: list[dict], case: str) -> list[str]:
    """What the defaults reach, bar by bar."""
    lines = []
    for name, checks in (("∇τ", nabla_tau_bars), ("SalUn", salun_bars), ("UNSIR", unsir_bars)):
        chosen = [run for run in runs if name in run["methods"]]
        if chosen:
            ours = [run["methods"][name] for run in chosen]
            found = checks(chosen, ours, case)
            lines += [f"- {name} {'met' if ok else '**missed**'}: {text}" for text, ok in found]
    return lines


def average(values) -> float:
    values = list(values)
    return float(np.mean(values)) if values else math.nan


def average_bars(runs: list[dict], ours: list[dict], case: str) -> list[tuple[str, bool]]:
    """Forget accuracy and attack as near as 1.25 × floor + 0.5 points, retain and test no more than 1 point below."""
    checks = []
    for key, what in (("forget_accuracy", "forget accuracy"), ("membership", "MIA AUC")):
        gap = average(f["gap"][key] for f in ours)
        bar = 1.25 * average(run["floor"][key] for run in runs) + 0.5
        if not ("class" in case and key == "forget_accuracy"):
            checks.append((f"{what} gap {gap:.2f} ≤ {bar:.2f}", gap <= bar))
    for key in ("retain_accuracy", "test_accuracy"):
        value = average(f["difference"][key] for f in ours)
        checks.append((f"{key.split('_')[0]} accuracy {value:+.2f} ≥ −1", value >= -1))
    return checks


def row_bars(runs: list[dict], ours: list[dict]) -> list[tuple[str, bool]]:
    """Row by row: rms z at most 1.25 × floor, rows still remembered at most 3 points more than among twins."""
    checks = []
    for part, get in (("raw", lambda r: r), ("corrected", lambda r: r["level_corrected"])):
        z = average(get(f["model"]["rows"])["rms_z"] for f in ours)
        floor = average(get(r["retrained"]["rows"])["rms_z"] for r in runs)
        checks.append((f"rms z {part} {z:.2f} ≤ {1.25 * floor:.2f}", z <= 1.25 * floor))
        left = 100 * average(get(f["model"]["rows"])["remembered"] for f in ours)
        floor = 100 * average(get(r["retrained"]["rows"])["remembered"] for r in runs)
        checks.append((f"z > 2 {part} {left:.1f} % ≤ {floor + 3:.1f} %", left <= floor + 3))
    return checks


def nabla_tau_bars(runs: list[dict], ours: list[dict], case: str) -> list[tuple[str, bool]]:
    checks = average_bars(runs, ours, case) + row_bars(runs, ours)
    if case == "digits_class":
        accuracy = max(f["model"]["accuracy"]["forget"] for f in ours)
        checks.append((f"forget accuracy at most {100 * accuracy:.1f} % ≤ 1 %", accuracy <= 0.01))
        inside = [min(r["twin_forget_loss"]) - 1 <= f["model"]["loss"]["forget"] <= max(r["twin_forget_loss"]) + 1
                  for r, f in zip(runs, ours, strict=True)]  # fmt: skip
        checks.append(
            (f"loss on the class within the twins' range ± 1 nat in {sum(inside)} of {len(inside)}", all(inside))
        )
    cost = average(f["share"] for f in ours)
    return [*checks, (f"cost {100 * cost:.0f} % ≤ 25 %", cost <= 0.25)]


def salun_bars(runs: list[dict], ours: list[dict], case: str) -> list[tuple[str, bool]]:
    return average_bars(runs, ours, case) + row_bars(runs, ours)


def unsir_bars(runs: list[dict], ours: list[dict], case: str) -> list[tuple[str, bool]]:
    accuracy = max(f["model"]["accuracy"]["forget"] for f in ours)
    test, cost = average(f["difference"]["test_accuracy"] for f in ours), average(f["share"] for f in ours)
    capped = lambda steps: RELEARN_STEPS if steps is None else steps  # noqa: E731
    again = average(capped(f["relearn_steps"]) for f in ours)
    twins = average(capped(k) for run in runs for k in run["relearn_steps"]["twins"])
    words = f"steps to relearn, at most {RELEARN_STEPS}: {again:.0f} (half of the twins' {twins:.0f})"
    return [
        (words, again >= 0.5 * twins),
        (f"forget accuracy at most {100 * accuracy:.1f} % ≤ 2 %", accuracy <= 0.02),
        (f"test accuracy {test:+.2f} ≥ −2", test >= -2),
        (f"cost {100 * cost:.1f} % ≤ 10 %", cost <= 0.1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = ["digits_10", "digits_30", "digits_50", "digits_class", "digits_3_classes", "digits_wrong_labels"]
    cases += ["text_10", "text_class", "text_3_classes", "lm_10"]
    parser.add_argument("--cases", nargs="+", default=cases)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--results", type=Path, help="store the runs elsewhere")
    parser.add_argument("--table", action="store_true", help="only print the table of the stored runs")
    options = parser.parse_args()
    if options.results:
        os.environ["HF_UNLEARN_QUALITY_RESULTS"] = str(options.results)  # the workers read it
    if not options.table:
        os.environ["OMP_NUM_THREADS"] = "1"
        jobs = [(case, seed, options.methods) for case in options.cases for seed in options.seeds]
        with multiprocessing.get_context("spawn").Pool(options.workers, maxtasksperchild=1) as pool:
            for done in pool.imap_unordered(run_job, jobs):
                print(done, file=sys.stderr, flush=True)
    print("\n\n".join(table(case, folder=options.results or RESULTS) for case in options.cases))


if __name__ == "__main__":
    main()
