"""Unlearning on a pretrained BERT that was fine-tuned for a few epochs: distance to retrained twins, case by case.

    python benchmarks/pretrained.py --models DIR --data DIR --seeds 0 1 2

DIR/minilm is a BERT of 22 M weights, DIR/banking77 has train.csv and test.csv (text, category; PolyAI/banking77 on
the Hub). Ten confusable intents, 40 training rows of each. Recipes: r1, 3 epochs at 1e-4; r2, 8 epochs at 3e-4; batch
16. Cases: `random`, a tenth in groups of four rows, as of customers; `class`, one intent; `planted`, a tenth with
wrong labels. Beside the twins one more is scored as if it were a method: a bar that it misses is a bad bar. The
intents of `--set dev` served to choose the defaults. What a request costs where much is kept:

    python benchmarks/pretrained.py --models DIR --data DIR --cases random --set wide --rows_per_intent 100 \\
        --forget_rows 40

has 2,200 rows of 22 intents, and `--set broad` 4,900 rows of all 49 intents that have enough. What a user who sets
the rate or the batch by a factor of two gets:

    python benchmarks/pretrained.py --models DIR --data DIR --recipes r2 --cases random planted --methods varied

What is forgotten may be a few rows or half of them:

    python benchmarks/pretrained.py --models DIR --data DIR --recipes r2 --cases random --seeds 0 --forget_rows 200 \
        --methods "do nothing" "∇τ" SalUn "∇τ LoRA"

A second base, beside a BERT that was trained to embed sentences and so favours a probe: DIR/smollm2 is a chat model of
135 M weights (Llama), here under a fresh classification head and in bfloat16:

    python benchmarks/pretrained.py --models DIR --data DIR --base smollm2 --recipes r1 --cases random --seeds 0 \
        --twins 3

`--table` prints what is stored.
"""

import argparse
import collections
import copy
import csv
import dataclasses
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "pretrained"
INTENTS = {
    "dev": "declined_cash_withdrawal cash_withdrawal_not_recognised pending_cash_withdrawal "
    "wrong_amount_of_cash_received cash_withdrawal_charge card_payment_not_recognised card_payment_fee_charged "
    "declined_card_payment reverted_card_payment? pending_card_payment",
    "result": "transfer_not_received_by_recipient pending_transfer failed_transfer declined_transfer cancel_transfer "
    "transfer_timing transfer_fee_charged balance_not_updated_after_bank_transfer beneficiary_not_allowed "
    "transfer_into_account",
    "wide": "Refund_not_showing_up activate_my_card apple_pay_or_google_pay automatic_top_up "
    "balance_not_updated_after_bank_transfer balance_not_updated_after_cheque_or_cash_deposit "
    "beneficiary_not_allowed cancel_transfer card_about_to_expire card_arrival card_linking "
    "card_payment_wrong_exchange_rate country_support declined_transfer "
    "direct_debit_payment_not_recognised extra_charge_on_statement failed_transfer fiat_currency_support "
    "getting_spare_card pending_top_up pending_transfer request_refund",
    "broad": "",  # all that have rows enough
}
RECIPES = {"r1": (3.0, 1e-4), "r2": (8.0, 3e-4)}
BASES = {"minilm": {}, "smollm2": {"bf16": True}}  # arguments of recipe and methods; bfloat16 halves the time
CASES = ("random", "class", "planted")
WORDS = {"random": "a tenth, some customers", "class": "one intent", "planted": "a tenth, wrong labels"}
TRAIN, VALIDATION, TEST, GROUP = 40, 20, 30, 4  # rows of an intent; rows of a customer
MAX_LENGTH = 24  # tokens; longer than nine rows in ten
METHODS = {
    "do nothing": None,
    "∇τ": {"method": "nabla_tau"},
    "∇τ oracle": {"method": "nabla_tau"},  # with the twins' own figures as targets: how much is the targets' fault?
    "SalUn": {"method": "salun"},
    "fine-tune": {"method": "fine_tune"},
    "∇τ LoRA": {"method": "nabla_tau", "lora": True},
    "SalUn LoRA": {"method": "salun", "lora": True},
    "UNSIR": {"method": "unsir"},
    "∇τ other rows": {"method": "nabla_tau", "others": True},  # kept rows gone: public texts that the model labels
}
POOLED = ("another twin", "do nothing", "∇τ", "SalUn", "∇τ LoRA")  # in tables over cases and shares
VARIED = {  # ∇τ with one of its defaults multiplied
    "∇τ": {},
    "rate × ½": {"learning_rate": 0.5},
    "rate × 2": {"learning_rate": 2.0},
    "batch × ½": {"per_device_train_batch_size": 0.5},
    "batch × 2": {"per_device_train_batch_size": 2},
}


def read(path: Path, intents: list[str]) -> dict[str, list[str]]:
    found = {name: [] for name in intents}
    with open(path, encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["category"] in found:
                found[row["category"]].append(row["text"])
    return found


def rich_intents(data: Path, least: int) -> list[str]:
    """Intents with at least so many training rows, by name."""
    with open(data / "banking77" / "train.csv", encoding="utf-8") as file:
        count = collections.Counter(row["category"] for row in csv.DictReader(file))
    return sorted(name for name, rows in count.items() if rows >= least)


def draw_rows(data: Path, names: list[str], per: int, rng: np.random.Generator) -> dict[str, list[tuple[str, int]]]:
    """Texts and intents, by number, in their roles: `per` training rows of each intent, and `others` that are left."""
    train, test = (read(data / "banking77" / f"{part}.csv", names) for part in ("train", "test"))
    rows: dict[str, list[tuple[str, int]]] = {"train": [], "validation": [], "test": [], "others": []}
    for label, name in enumerate(names):
        order = rng.permutation(len(train[name]))
        rows["train"] += [(train[name][i], label) for i in order[:per]]
        rows["validation"] += [(train[name][i], label) for i in order[per : per + VALIDATION]]
        rows["test"] += [(test[name][i], label) for i in rng.permutation(len(test[name]))[:TEST]]
        rows["others"] += [(train[name][i], label) for i in order[per + VALIDATION :]]
    return rows


class Case:
    """One request on one recipe and seed: rows in their roles, the original and the twins."""

    def __init__(self, options, kind: str, recipe: str, seed: int):
        import datasets

        from hf_unlearn.data.rows import Rows
        from hf_unlearn.data.splits import UnlearningSplits
        from hf_unlearn.run.recipe import Recipe
        from hf_unlearn.tasks import get_task

        self.kind, self.seed, self.options = kind, seed, options
        names = INTENTS[options.set].split() or rich_intents(options.data, options.rows_per_intent + VALIDATION)
        rng = np.random.default_rng([seed, 11])
        rows = draw_rows(options.data, names, options.rows_per_intent, rng)
        size = len(rows["train"])
        forget = self.request(rng, rows, size, len(names))
        parts = [*rows["train"], *rows["validation"], *rows["test"]]
        drawn = np.random.default_rng([seed, 12]).permutation(len(rows["others"]))[: size - len(forget)]
        self.others = [rows["others"][i][0] for i in drawn]  # texts alone: nobody has labelled them
        data = datasets.Dataset.from_dict({"text": [t for t, _ in parts], "label": [label for _, label in parts]})
        model = str(options.models / options.base)
        task_class = get_task("text_classification")
        self.task = task_class(
            task_class.load_processor(model),
            {"text": "text", "label": "label"},
            label_names=names,
            max_length=MAX_LENGTH,
        )
        retain = np.setdiff1d(np.arange(size), forget)
        unseen = np.arange(size, len(parts))
        validation, test = unseen[: len(rows["validation"])], unseen[len(rows["validation"]) :]
        gone, removed = (), None
        labels = np.array([label for _, label in parts])
        if kind == "class":
            gone = (int(labels[forget[0]]),)
            removed = test[labels[test] == gone[0]]
            test, validation = test[labels[test] != gone[0]], validation[labels[validation] != gone[0]]
        validation = rng.permutation(validation)
        half = len(validation) // 2
        made = lambda which: Rows(data, self.task, which)  # noqa: E731
        self.splits = UnlearningSplits(
            made(forget), made(retain), made(validation[:half]), made(validation[half:]), made(test),
            None if removed is None else made(removed), gone,
        )  # fmt: skip
        self.all = made(np.arange(size))
        epochs, rate = RECIPES[recipe]
        more = BASES[options.base]
        self.recipe = Recipe(model=model, num_train_epochs=epochs, learning_rate=rate, batch_size=16, **more)

    def request(self, rng, rows, size: int, classes: int) -> np.ndarray:
        """Places of the forget rows; for `planted` their labels are made wrong first."""
        if self.kind == "class":
            label = self.seed % classes
            return np.array([i for i, (_, given) in enumerate(rows["train"]) if given == label])
        groups = rng.permutation(size).reshape(-1, GROUP)
        asked = self.options.forget_rows or size // 10
        forget = np.sort(groups[: max(1, asked // GROUP)].ravel())
        if self.kind == "planted":
            for i in forget:
                text, label = rows["train"][i]
                rows["train"][i] = (text, int((label + rng.integers(1, classes)) % classes))
        return forget

    def with_other_rows(self, model):
        """The splits, with texts that the model never saw in place of the retain rows, labelled by itself."""
        import datasets

        from hf_unlearn.data.rows import Rows
        from hf_unlearn.evaluation.scoring import collect
        from hf_unlearn.trainers.row_targets import class_log_odds

        def made(texts: list[str], labels: list[int]) -> Rows:
            return Rows(datasets.Dataset.from_dict({"text": texts, "label": labels}), self.task, np.arange(len(texts)))

        rows = made(self.others, [0] * len(self.others))
        said = collect(model, self.task, rows, {"log_odds": class_log_odds}, batch_size=64)["log_odds"].argmax(1)
        kept = ~np.isin(said, self.splits.forgotten_classes)
        texts = [text for text, keep in zip(self.others, kept, strict=True) if keep]
        return dataclasses.replace(self.splits, retain=made(texts, said[kept].tolist()))

    def train(self, rows, seed: int, title: str):
        from hf_unlearn.run.recipe import train_recipe

        start = time.process_time()
        trained = train_recipe(
            self.recipe, self.task, rows, seed, cache_dir=self.options.cache, title=title, use_cpu=True
        )
        return trained, time.process_time() - start

    def models(self, twins: int):
        """The original, and `twins` twins with their CPU seconds (`None` from the cache)."""
        original = self.train(self.all, 1000 + self.seed, "original")
        return original, [self.train(self.splits.retain, 2000 + 10 * self.seed + k, f"twin {k}") for k in range(twins)]

    def score(self, model):
        from hf_unlearn.evaluation.scoring import score_splits

        return score_splits(model, self.task, self.splits, ("forget", "retain", "test", "nonmembers"), batch_size=64)

    def trainer(
        self, model, method: str, lora: bool = False, known: bool = True, others: bool = False, times=None, **config
    ):
        """`times`: factors of arguments that the method sets itself."""
        from hf_unlearn.methods import get_method
        from hf_unlearn.models.lora import add_lora
        from hf_unlearn.trainers.config import KnownRecipe

        kind = get_method(method)
        splits = self.with_other_rows(model) if others else self.splits
        if lora:
            model = add_lora(model, r=8, alpha=16, dropout=0.0, task_type=self.task.peft_task_type)
        shared = {
            "output_dir": str(Path(tempfile.gettempdir()) / "unlearned"),
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": "none",
            "seed": self.seed,
            **BASES[self.options.base],
        }
        args = kind.config_class(**shared | config)
        start = lambda seed: self.recipe.build_model(self.task, seed)  # noqa: E731
        recipe = KnownRecipe(start, self.recipe.num_train_epochs, self.recipe.learning_rate) if known else None
        for key, factor in (times or {}).items():
            usual = kind(copy.deepcopy(model), copy.deepcopy(args), splits, self.task, quiet=True, recipe=recipe).args
            value = getattr(usual, key) * factor
            config[key] = int(value) if isinstance(getattr(usual, key), int) else value
        args = kind.config_class(**shared | config) if times else args
        return kind(model=model, args=args, splits=splits, task=self.task, quiet=True, recipe=recipe)


def figures(scores, twins) -> dict:
    from hf_unlearn.evaluation.comparison import compare

    found = compare(None, scores, twins)
    model = found["models"]["unlearned"]
    return {
        "accuracy": model["accuracy"], "loss": model["loss"], "auc": model["membership"]["loss_auc"],
        "gap": found["gap"], "difference": found["difference"], "rows": model["rows"],
        "floor": found["floor"], "floor_rows": found["models"]["retrained"]["rows"],
    }  # fmt: skip


def line(name: str, f: dict, more: str = "") -> str:
    a = f["accuracy"]
    z, c, loss = f["rows"]["rms_z"], f["rows"]["level_corrected"]["rms_z"], f["loss"]
    accuracies = f"f {100 * a['forget']:5.1f} r {100 * a['retain']:5.1f} t {100 * a['test']:5.1f}"
    rows = f"auc {100 * f['auc']:5.1f} z {z:5.2f} c {c:5.2f} loss {loss['forget']:5.2f}/{loss['test']:5.2f}"
    return f"{name:24s} {accuracies} {rows} {more}"


def run(options, kind: str, recipe: str, seed: int) -> dict:
    import torch

    from hf_unlearn.report.evidence import environment
    from hf_unlearn.trainers.target_sources import Oracle

    torch.set_num_threads(1)
    case = Case(options, kind, recipe, seed)
    (original, _), trained = case.models(options.twins + 1)
    twins = [case.score(twin.model) for twin, _ in trained]
    last, twins = twins[-1], twins[:-1]
    result = {"case": kind, "recipe": recipe, "set": options.set, "base": options.base, "seed": seed}
    result["splits"] = case.splits.sizes()
    result["retrain"] = {"examples": trained[0][0].examples, "cpu_seconds": [c for (t, c) in trained if not t.cached]}
    result["twins"] = [figures(t, twins) for t in twins]
    result["methods"] = {"another twin": figures(last, twins)}
    mean = [np.mean([100 * t["accuracy"][k] for t in result["twins"]]) for k in ("forget", "retain", "test")]
    auc = np.mean([100 * t["auc"] for t in result["twins"]])
    floor = result["twins"][0]["floor_rows"]
    print(
        f"## {options.base} {kind} {recipe} {options.set} seed {seed}: "
        f"twins f {mean[0]:.1f} r {mean[1]:.1f} t {mean[2]:.1f} auc {auc:.1f} "
        f"floor z {floor['rms_z']:.2f} c {floor['level_corrected']['rms_z']:.2f}",
        flush=True,
    )
    print(line("another twin", result["methods"]["another twin"]), flush=True)
    for name in options.methods:
        start, steps, examples = time.process_time(), 0, 0
        model = copy.deepcopy(original.model)
        chosen = {"method": "nabla_tau", "times": VARIED[name]} if name in VARIED else METHODS[name]
        if chosen is not None:
            trainer = case.trainer(model, **chosen)
            if name.endswith("oracle"):
                trainer.source = Oracle([twin.model for twin, _ in trained[:-1]])
            trainer.train()
            model, steps, examples = (
                trainer.accelerator.unwrap_model(trainer.model),
                trainer.state.global_step,
                trainer.examples,
            )
        cpu = time.process_time() - start
        found = figures(case.score(model), twins)
        found |= {"steps": steps, "examples": examples, "cpu_seconds": cpu}
        result["methods"][name] = found
        share = 100 * examples / trained[0][0].examples
        print(line(name, found, f"steps {steps} examples {share:.0f} % cpu {cpu:.0f} s"), flush=True)
    result["environment"] = environment(seed=seed, device="cpu", threads=1)
    return result


def table(folder: Path = RESULTS) -> str:
    """Markdown: one line a case, method and recipe; means over the seeds. `rms z` in units of one more twin's."""
    lines = [
        "| forgotten, recipe | | forget | AUC | retain | test | rms z | examples, CPU |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for intents, recipe, case in itertools.product(("result", "wide", "broad", "smollm2_result"), RECIPES, CASES):
        paths = sorted(folder.glob(f"{intents}_{case}_{recipe}_*.json"))
        found = [json.loads(path.read_text()) for path in paths]
        if not found:
            continue
        twins = [twin for run in found for twin in run["twins"]]
        varied = VARIED.keys() - {"∇τ"}
        seeds = "seed" if len(found) == 1 else "seeds"
        sizes = found[0]["splits"]
        words = WORDS[case] if intents.endswith("result") else f"{sizes['forget']} rows, {sizes['retain']:,} kept"
        whose = ", the chat model" if intents.startswith("smollm2") else ""
        name = f"{words}, {recipe}{whose} ({seeds} {', '.join(str(run['seed']) for run in found)})"
        lines.append(f"| {name} | twins | {_cells(twins)} | | 100 % |")
        for name in list(dict.fromkeys(name for run in found for name in run["methods"] if name not in varied)):
            pairs = [(run["methods"][name], run) for run in found if name in run["methods"]]
            of = [method for method, _ in pairs]
            z = np.mean([m["rows"]["rms_z"] / m["floor_rows"]["rms_z"] for m in of])
            cost = "" if name in ("another twin", "do nothing") else _cost(pairs)
            lines.append(f"| | {name} | {_cells(of)} | {z:.2f} | {cost} |")
    return "\n".join(lines)


def pooled_table(folder: Path = RESULTS) -> str:
    """Markdown: means of the distances to the twins over all cases and seeds of a recipe, test accuracy with its sign,
    in points; `rms z` in units of one more twin's."""
    lines = ["| recipe | | forget | AUC | test ± | rms z | examples | runs |", f"|{' --- |' * 8}"]
    for recipe, (epochs, rate) in RECIPES.items():
        runs = [json.loads(path.read_text()) for path in sorted(folder.glob(f"result_*_{recipe}_{TRAIN}_*.json"))]
        words = f"{epochs:g} epochs at {rate:.0e}".replace("e-0", "e-")
        for name in POOLED:
            methods = [(run["methods"][name], run) for run in runs]
            forget, auc, test, z = np.transpose([_distances(*pair) for pair in methods])
            shown = f"{abs(forget).mean():.1f} | {abs(auc).mean():.1f} | {test.mean():+.1f} | {z.mean():.2f}"
            cost = _cost(methods) if "examples" in methods[0][0] else ""
            lines.append(f"| {words} | {name} | {shown} | {cost} | {len(runs)} |")
            words = ""
    return "\n".join(lines)


def varied_table(folder: Path = RESULTS) -> str:
    """Markdown: gaps to the twins' means in points, rms z in units of one more twin's, for each run that has them."""
    lines = ["| | | forget | AUC | test | rms z |", "| --- | --- | --- | --- | --- | --- |"]
    for path in sorted(folder.glob("result_*_r2_*.json")):
        run = json.loads(path.read_text())
        if not VARIED.keys() <= run["methods"].keys():
            continue
        words = f"{WORDS[run['case']]}, seed {run['seed']}"
        for name in ("another twin", *VARIED):
            lines.append(f"| {words} | {name} | {' | '.join(_away(run['methods'][name], run))} |")
            words = ""
    return "\n".join(lines)


def shares_table(folder: Path = RESULTS) -> str:
    """Markdown: what is forgotten, from a hundredth to half of the rows; columns as in [`varied_table`]."""
    paths = [*folder.glob("share*_random_r2_*.json"), folder / f"result_random_r2_{TRAIN}_0.json"]
    runs = [json.loads(path.read_text()) for path in paths]
    lines = ["| forgotten | | forget | AUC | test | rms z | examples |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for run in sorted(runs, key=lambda run: (run["splits"]["forget"], run["seed"])):
        share = run["splits"]["forget"] / (run["splits"]["forget"] + run["splits"]["retain"])
        words = f"{100 * share:.0f} %"
        for name in POOLED:
            method = run["methods"][name]
            cost = f"{100 * method['examples'] / run['retrain']['examples']:.0f} %" if "examples" in method else ""
            lines.append(f"| {words} | {name} | {' | '.join(_away(method, run))} | {cost} |")
            words = ""
    return "\n".join(lines)


def _away(method: dict, run: dict) -> list[str]:
    """[`_distances`] as they are shown."""
    *points, z = _distances(method, run)
    return [*(f"{x:+.1f}" for x in points), f"{z:.2f}"]


def _distances(method: dict, run: dict) -> tuple[float, float, float, float]:
    """Forget accuracy, AUC and test accuracy less the twins' means in points, and rms z in one more twin's."""
    twins = run["twins"]
    forget, test = (
        method["accuracy"][key] - np.mean([twin["accuracy"][key] for twin in twins]) for key in ("forget", "test")
    )
    auc = method["auc"] - np.mean([twin["auc"] for twin in twins])
    return 100 * forget, 100 * auc, 100 * test, method["rows"]["rms_z"] / method["floor_rows"]["rms_z"]


def _cost(pairs: list[tuple[dict, dict]]) -> str:
    """Mean share of the examples of a retraining, and where its CPU time was taken, of that."""
    share = np.mean([method["examples"] / run["retrain"]["examples"] for method, run in pairs])
    times = [
        m["cpu_seconds"] / np.mean(run["retrain"]["cpu_seconds"]) for m, run in pairs if run["retrain"]["cpu_seconds"]
    ]
    return f"{100 * share:.0f} %" + (f", {100 * np.mean(times):.0f} %" if len(times) == len(pairs) else "")


def _cells(found: list[dict]) -> str:
    """Mean forget accuracy, membership AUC, retain and test accuracy, in percent."""
    accuracy = lambda key: f"{100 * np.mean([f['accuracy'][key] for f in found]):.1f}"  # noqa: E731
    auc = f"{100 * np.mean([f['auc'] for f in found]):.1f}"
    return " | ".join([accuracy("forget"), auc, accuracy("retain"), accuracy("test")])


def main() -> None:
    if "--table" in sys.argv:
        print(table(), varied_table(), shares_table(), sep="\n\n")
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="where originals and twins are kept")
    parser.add_argument("--base", choices=list(BASES), default="minilm")
    parser.add_argument("--set", choices=list(INTENTS), default="result")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, "varied"])
    parser.add_argument("--rows_per_intent", type=int, default=TRAIN)
    parser.add_argument("--forget_rows", type=int, help="of random and planted; a tenth unless it is given")
    parser.add_argument("--twins", type=int, default=4, help="one more is scored as if it were a method")
    options = parser.parse_args()
    if options.twins < 3:
        parser.error("--twins: how far one twin is from the others takes three at least")
    options.methods = [name for each in options.methods for name in (VARIED if each == "varied" else [each])]
    os.environ["OMP_NUM_THREADS"] = "1"
    for seed in options.seeds:
        for recipe in options.recipes:
            for kind in options.cases:
                result = run(options, kind, recipe, seed)
                RESULTS.mkdir(parents=True, exist_ok=True)
                which = options.set if options.base == "minilm" else f"{options.base}_{options.set}"
                if options.forget_rows and options.set == "result":
                    which = f"share{options.forget_rows}"
                path = RESULTS / f"{which}_{kind}_{recipe}_{options.rows_per_intent}_{seed}.json"
                if path.is_file():
                    earlier = json.loads(path.read_text())
                    result["methods"] = earlier["methods"] | result["methods"]
                    result["retrain"]["cpu_seconds"] = (
                        result["retrain"]["cpu_seconds"] or earlier["retrain"]["cpu_seconds"]
                    )
                path.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
