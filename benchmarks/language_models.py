"""How close does an unlearned chat model come to retrained twins, on TOFU? Averages, rows, tokens and answers.

    python benchmarks/language_models.py --model MODEL --data TOFU --seeds 0 1 --runs nabla_tau npo

A slice of TOFU is drawn by a seed: some authors are trained on, the first of them are forgotten, and others are held
out of everything, for validation and for test. The recipe makes an original and its twins once and keeps them; every
run starts from a copy of the original. One file a slice is stored in `benchmarks/results/language_models/`. The greedy
answers that `--answers` shows stay on the screen.

    python benchmarks/language_models.py --model MODEL --data TOFU --runs nabla_tau salun npo --relearn

also fine-tunes every model, all its weights, on a quarter of the forgotten rows at the recipe's rate: the loss of the
other three quarters after 1 to 20 steps, beside the twins'. `--relearned` prints what is stored.
"""

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "language_models"
AUTHOR_ROWS = 20  # TOFU's rows lie author by author
HELD_OUT = 3  # authors for validation, and as many for test
RECIPE = {"num_train_epochs": 5, "learning_rate": 3e-4, "batch_size": 8}
LORA_RATE, LORA_RANK = 2e-3, 16
ADAPTER = {"use_peft": True, "lora_r": LORA_RANK, "lora_alpha": 2 * LORA_RANK, "learning_rate": LORA_RATE}
RELEARN_MARKS = (1, 2, 5, 10, 20)  # steps on a quarter of the forgotten rows
FIGURES = (
    "forget loss", "forget acc", "retain acc", "test loss", "AUC", "ES", "rms φ", "KL", "steps", "examples", "CPU s",
)  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """Which part of TOFU, how deep a model, how many twins."""

    seed: int
    authors: int = 8
    rows: int = 8
    forgotten: int = 2
    layers: int | None = None
    twins: int = 2
    lora: bool = False
    bf16: bool = False

    @property
    def name(self) -> str:
        depth = f"_{self.layers}layers" if self.layers else ""
        kind = "_lora" if self.lora else ""
        precision = "" if self.bf16 else "_float32"
        return f"{self.authors}x{self.rows}{depth}{kind}{precision}_{self.seed}"


def draw_rows(path: Path, which: Slice) -> tuple[list[dict], dict[str, list[int]]]:
    """The slice's questions and answers, the shortest of each author, and the places of each role in it."""
    full = [json.loads(line) for line in (path / "full.json").read_text().splitlines() if line.strip()]
    authors = len(full) // AUTHOR_ROWS
    count = which.authors + 2 * HELD_OUT
    chosen = np.random.default_rng(which.seed).permutation(authors)[:count]
    rows, places = [], {name: [] for name in ("forget", "retain", "validation", "test")}
    for k, author in enumerate(chosen):
        own = full[author * AUTHOR_ROWS : (author + 1) * AUTHOR_ROWS]
        own = sorted(own, key=lambda row: len(row["question"]) + len(row["answer"]))[: which.rows]
        bounds = (which.forgotten, which.authors, which.authors + HELD_OUT, count)
        role = list(places)[int(np.searchsorted(bounds, k, side="right"))]
        places[role] += range(len(rows), len(rows) + len(own))
        rows += own
    return rows, places


class Bench:
    """The models of a slice, and what is measured of any model beside them."""

    def __init__(self, which: Slice, model: str, data: Path, template: str | None):
        import datasets

        from hf_unlearn.data.rows import Rows
        from hf_unlearn.data.splits import UnlearningSplits
        from hf_unlearn.tasks.causal_lm import CausalLM

        self.which = which
        rows, places = draw_rows(data, which)
        columns = {"question": "question", "answer": "answer"}
        self.task = CausalLM(CausalLM.load_processor(model), columns, prompt_template=template)
        every = Rows(datasets.Dataset.from_list(rows), self.task)
        self.text = rows
        self.splits = UnlearningSplits(
            forget=every.at(places["forget"]),
            retain=every.at(places["retain"]),
            validation_tau=every.at(places["validation"]),
            validation_stop=every.at([]),
            test=every.at(places["test"]),
        )
        self.everything = every.at(places["forget"] + places["retain"])
        self.recipe = self._recipe(model)

    def _recipe(self, model: str):
        from hf_unlearn.run.recipe import Recipe, default_cache_dir

        if self.which.layers is not None:
            model = shallow(model, self.which.layers, default_cache_dir() / f"{Path(model).name}_{self.which.layers}")
        precision = {"bf16": True} if self.which.bf16 else {}
        return Recipe(model=model, **(RECIPE | (ADAPTER if self.which.lora else {}) | precision))

    def train(self, rows, seed: int):
        """A model that the recipe makes of these rows, or made of them before."""
        from hf_unlearn.run.recipe import train_recipe

        return train_recipe(self.recipe, self.task, rows, seed).model

    def original(self):
        return self.train(self.everything, 1000 * self.which.seed)

    def twins(self) -> list:
        return [self.train(self.splits.retain, 1000 * self.which.seed + 1 + k) for k in range(self.which.twins)]

    def known(self):
        """What a method may know of the recipe."""
        from hf_unlearn.trainers.config import KnownRecipe

        return KnownRecipe(
            start=lambda seed: self.recipe.build_model(self.task, seed),
            epochs=self.recipe.num_train_epochs,
            learning_rate=self.recipe.learning_rate,
            adapter=self.recipe.use_peft,
        )

    def score(self, model) -> dict:
        from hf_unlearn.evaluation.scoring import score_tokens

        names = ("forget", "retain", "validation_tau", "test")
        return {name: score_tokens(model, self.task, getattr(self.splits, name), batch_size=16) for name in names}

    def said(self, model):
        """What the model says in the places of all forgotten tokens."""
        from hf_unlearn.evaluation.said import Listener
        from hf_unlearn.evaluation.scoring import collect

        listener = Listener(most=sys.maxsize)
        collect(model, self.task, self.splits.forget, {}, hear=listener.hear, batch_size=8)
        return listener.said()

    def relearned(self, model) -> list[float]:
        """Loss in nats of three quarters of the forgotten rows, before and while `model` is fine-tuned on the rest."""
        from hf_unlearn.evaluation.relearn import fine_tuned_copy
        from hf_unlearn.evaluation.scoring import score

        places = np.arange(len(self.splits.forget))
        few, others = (self.splits.forget.select(places[part]) for part in (places % 4 == 0, places % 4 > 0))
        losses = [score(model, self.task, others, batch_size=16).loss.mean()]

        def watch(step: int, tuned) -> None:
            if step in RELEARN_MARKS:
                losses.append(score(tuned, self.task, others, batch_size=16).loss.mean())

        how = {"learning_rate": RECIPE["learning_rate"], "batch_size": RECIPE["batch_size"]}
        fine_tuned_copy(model, self.task, few, steps=RELEARN_MARKS[-1], seed=self.which.seed, watch=watch, **how)
        return [float(loss) for loss in losses]

    def answers(self, model, most: int = 4) -> list[str]:
        from hf_unlearn.evaluation.generation import generate

        return generate(model, self.task, self.splits.forget.select(range(most)), max_new_tokens=40)


def shallow(model: str, layers: int, folder: Path) -> str:
    """A stand-in for sweeps: the first layers of the model, saved once."""
    from transformers import AutoModelForCausalLM

    if not (folder / "config.json").is_file():
        AutoModelForCausalLM.from_pretrained(model, num_hidden_layers=layers, dtype="float32").save_pretrained(folder)
    return str(folder)


def distance(said, twins: list) -> dict[str, float]:
    """`KL`: mean over the forgotten tokens and these twins of KL(twin‖model), in nats: all words count, not the true
    one alone."""
    from hf_unlearn.evaluation.said_instead import divergence

    return {"KL": float(divergence(twins, said).mean())}


def figures(scores: dict, twins: list[dict]) -> dict[str, float]:
    """One line of the table; `rms φ` is the distance of the forget rows' log-odds to the mean of these twins."""
    from hf_unlearn.evaluation.attacks import auc
    from hf_unlearn.evaluation.language_metrics import extraction_strength

    (forget, tokens), (retain, _), (test, _) = (scores[name] for name in ("forget", "retain", "test"))
    mean = np.mean([twin["forget"][0].log_odds for twin in twins], axis=0)
    return {
        "forget loss": forget.loss.mean(),
        "forget acc": 100 * forget.correct.mean(),
        "retain acc": 100 * retain.correct.mean(),
        "test loss": test.loss.mean(),
        "AUC": 100 * auc(-forget.loss, -test.loss)["value"],
        "ES": extraction_strength(tokens).mean(),
        "rms φ": float(np.sqrt(np.mean((forget.log_odds - mean) ** 2))),
    }


def unlearn(bench: Bench, original, run: str) -> tuple[object, dict, float, dict]:
    """What `METHOD[:argument=value,…]` makes of a copy of the original: model, steps and examples, CPU s, settings.

    Beside the method's own arguments: `lora=RANK`, and `known=false` for a method that is told nothing of the recipe.
    """
    import torch

    from hf_unlearn.methods import get_method
    from hf_unlearn.models.lora import add_lora

    name, _, given = run.partition(":")
    values = {key: parse(value) for key, _, value in (item.partition("=") for item in given.split(",") if item)}
    method = get_method(name)
    rank, recipe = values.pop("lora", None), bench.known() if values.pop("known", True) else None
    seed = values.get("seed", bench.which.seed)
    model = copy.deepcopy(original)
    if rank:
        model = add_lora(model, r=rank, alpha=2 * rank, dropout=0.0, task_type=bench.task.peft_task_type)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        values = {"per_device_eval_batch_size": 16, "seed": seed} | values
        if bench.which.bf16:
            values |= {"bf16": True, "use_cpu": not torch.cuda.is_available()}
        args = method.config_class(output_dir=folder, report_to="none", disable_tqdm=True, **values)
        trainer = method(model, args, bench.splits, bench.task, quiet=True, recipe=recipe)
        trainer.train()
    read = {"steps": trainer.state.global_step, "examples": trainer.examples}
    return trainer.model, read, time.process_time() - start, trainer.args.hyperparameters()


def parse(value: str):
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def study(bench: Bench, options: argparse.Namespace, keep: Callable[[dict], None]) -> None:
    """Every run beside the original and the twins; `keep` is given what is known after each."""
    import torch

    from hf_unlearn.report.evidence import environment

    twins = bench.twins()
    twin_scores, twins_said = ([of(twin) for twin in twins] for of in (bench.score, bench.said))
    original = bench.original()
    lines = {"original": figures(bench.score(original), twin_scores) | distance(bench.said(original), twins_said)}
    for k, scores in enumerate(twin_scores):
        others = [i for i in range(len(twins)) if i != k] or [k]
        apart = distance(twins_said[k], [twins_said[i] for i in others])
        lines[f"twin {k + 1}"] = figures(scores, [twin_scores[i] for i in others]) | apart
    curves = known_curves(lines, bench.which.name) if options.relearn else {}
    if options.relearn and not curves:
        curves = {f"twin {k + 1}": bench.relearned(twin) for k, twin in enumerate(twins)}
        curves["original"] = bench.relearned(original)
    report_curves(curves)
    if options.answers:
        show("true", [bench.text[i]["answer"] for i in bench.splits.forget.indices[:4]])
        show("twin", bench.answers(twins[0]))
    del twins
    report(lines)
    lora = {"learning_rate": LORA_RATE, "lora_r": LORA_RANK} if bench.which.lora else {}
    result = {
        "slice": bench.which.__dict__,
        "template": bench.task.prompt_template,
        "recipe": RECIPE | lora | ({"bf16": True} if bench.which.bf16 else {}),
        "lines": lines,
        "relearned": curves,
        "settings": {},
        "environment": environment(seed=bench.which.seed, device="cpu", threads=torch.get_num_threads()),
    }
    for run in options.runs:
        model, read, seconds, result["settings"][run] = unlearn(bench, original, run)
        told = figures(bench.score(model), twin_scores) | distance(bench.said(model), twins_said)
        lines[run] = told | read | {"CPU s": seconds}
        report({run: lines[run]})
        if options.relearn:
            curves[run] = bench.relearned(merged(model))
            report_curves({run: curves[run]})
        keep(result)
        if options.answers:
            show(run, bench.answers(model))


def store(result: dict, name: str) -> None:
    """Lines and settings of earlier runs on the slice stay beside these."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    if path.is_file():
        stored = json.loads(path.read_text())
        result = result | {
            key: stored[key] | result[key] for key in ("lines", "settings", "relearned") if key in stored
        }
    path.write_text(json.dumps(result, indent=1, default=float) + "\n")


def known_curves(lines: dict[str, dict], name: str) -> dict[str, list[float]]:
    """The stored curves of original and twins where every one of their figures is the one that is stored: it is the
    same models, then. Nothing otherwise."""
    path = RESULTS / f"{name}.json"
    stored = json.loads(path.read_text()) if path.is_file() else {}
    curves = stored.get("relearned") or {}
    same = all(line == stored.get("lines", {}).get(model) and model in curves for model, line in lines.items())
    return {model: curves[model] for model in lines} if same else {}


def merged(model):
    """The model without an adapter of its own: its weights are what is published."""
    from hf_unlearn.models import lora

    return lora.merge(model) if lora.is_peft(model) else model


def relearned(folder: Path = RESULTS) -> str:
    """Markdown: a model a line, loss of the other forgotten rows in nats after so many steps; all slices."""
    steps = ["untouched", "1 step", *(f"{step} steps" for step in RELEARN_MARKS[1:])]
    lines = [_row(["slice", "", *steps]), _row(["---"] * (2 + len(steps)))]
    for path in sorted(folder.glob("*.json")):
        curves = json.loads(path.read_text()).get("relearned") or {}
        twins = np.array([curve for name, curve in curves.items() if name.startswith("twin")])
        name = path.stem
        if len(twins):
            pairs = zip(twins.min(0), twins.max(0), strict=True)
            lines.append(_row([name, "twins", *(f"{low:.2f}–{high:.2f}" for low, high in pairs)]))
        for run, curve in curves.items():
            if not run.startswith("twin"):
                lines.append(_row(["", run.partition(":")[0], *(f"{loss:.2f}" for loss in curve)]))
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def report_curves(curves: dict[str, list[float]]) -> None:
    for name, curve in curves.items():
        print(f"relearned {name}: " + " ".join(f"{loss:.2f}" for loss in curve), flush=True)


def show(name: str, answers: list[str]) -> None:
    print(f"answers of {name}:", *(f"\n  {answer!r}" for answer in answers), flush=True)


def report(lines: dict[str, dict]) -> None:
    for name, line in lines.items():
        print(
            f"| {name} | " + " | ".join(f"{line[key]:.3g}" if key in line else "" for key in FIGURES) + " |",
            flush=True,
        )


def main() -> int:
    if "--relearned" in sys.argv:
        print(relearned())
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a causal language model: a folder, or a name on the Hub")
    parser.add_argument("--data", type=Path, required=True, help="folder with TOFU's full.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one slice each")
    parser.add_argument("--layers", type=int, help="a stand-in of so many layers")
    parser.add_argument("--authors", type=int, default=8)
    parser.add_argument("--rows", type=int, default=8, help="of each author")
    parser.add_argument("--twins", type=int, default=2)
    parser.add_argument("--lora", action="store_true", help="original and twins are LoRA fine-tunes")
    parser.add_argument("--bf16", action="store_true", help="everything is trained in mixed precision")
    parser.add_argument("--template", help="prompt template, or 'chat'")
    parser.add_argument("--runs", nargs="*", default=["nabla_tau", "npo"], help="METHOD[:argument=value,…]")
    parser.add_argument("--only_make", action="store_true", help="train original and twins, and score nothing")
    parser.add_argument("--relearn", action="store_true", help="fine-tune each model on a quarter of the forget rows")
    parser.add_argument("--answers", action="store_true", help="show greedy answers to forget questions")
    parser.add_argument("--store", action="store_true", help="keep the figures")
    options = parser.parse_args()

    import torch
    import transformers

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    transformers.logging.set_verbosity_error()
    for seed in options.seeds:
        size = {"authors": options.authors, "rows": options.rows, "layers": options.layers}
        which = Slice(seed, **size, twins=options.twins, lora=options.lora, bf16=options.bf16)
        bench = Bench(which, options.model, options.data, options.template)
        if options.only_make:
            bench.original(), bench.twins()
            continue
        print(f"slice {which.name}: {bench.splits}\n| | " + " | ".join(FIGURES) + " |", flush=True)
        keep = partial(store, name=which.name) if options.store else lambda result: None
        study(bench, options, keep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
