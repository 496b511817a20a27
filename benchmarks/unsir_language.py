"""Can a language model forget an author of whom only the name is read? Two zero-glance definitions, against twins.

    python benchmarks/unsir_language.py                     # every trial, seeds 100 and 101, about 10 minutes
    python benchmarks/unsir_language.py --trials "b rows"   # some; results of the others are kept
    python benchmarks/unsir_language.py --table

From the forgotten rows the trials read the authors' names and nothing else; the scores read all rows.

- a: UNSIR as it stands, the name's tokens being the label: noise in the places of a prompt on which the original is
  most wrong about the name, impairing (descent on noise → name), repairing on the rest.
- b: the questions that retain rows ask about their authors, asked about the forgotten ones, and answered by the
  original itself. These rows stand in for the forgotten ones; what impairs differs from trial to trial, repairing
  follows.

"damage alone" is a at the published rates without its noise: retain rows only.
"b rows, unasked" leaves out the questions in the very words that the forgotten rows have. To do so the script looks at
them, so it is a test of b, not a method.
"""

import argparse
import copy
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from quality import case_arguments

from hf_unlearn.data.rows import Rows
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.evaluation.comparison import compare
from hf_unlearn.evaluation.generation import generate
from hf_unlearn.methods.fine_tune import FineTuneConfig, FineTuneTrainer
from hf_unlearn.models import noise
from hf_unlearn.report.evidence import environment, write_json
from hf_unlearn.run import stages
from hf_unlearn.run.parsing import parse_arguments
from hf_unlearn.run.rows import prepare_data
from hf_unlearn.tasks.base import Task
from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.random_labels import draws, uniform_labels
from hf_unlearn.trainers.schedule import Phase

RESULTS = Path(__file__).parent / "results" / "unsir_language"
CASE, GROUP = "lm_10", "author"
RATE = 0.35  # of the recipe's peak, as in UNSIR
NOISE_PER_NAME, NOISE_STEPS, NOISE_RATE, PENALTY = 8, 40, 0.1, 1e-4  # as in UNSIR
IMPAIR_STEPS, REPAIR_STEPS, BATCH = 20, 100, 16  # as in UNSIR


# What may be read.


def forgotten_names(splits: UnlearningSplits) -> list[str]:
    """All that is read of the forgotten rows: one column."""
    rows = splits.forget
    return sorted(set(rows.source.select_columns([GROUP])[rows.indices][GROUP]))


def known_rows(splits: UnlearningSplits, task: Task) -> list[dict[str, str]]:
    """Retain rows as templates, `{name}` in the author's place, each question once, with its longest answer."""
    rows = splits.retain
    raw = rows.source[rows.indices]
    found: dict[str, str] = {}
    for question, answer, name in zip(
        raw[task.columns["question"]], raw[task.columns["answer"]], raw[GROUP], strict=True
    ):
        if name in question:
            question, answer = (text.replace(name, "{name}") for text in (question, answer))
            found[question] = max(found.get(question, ""), answer, key=len)
    return [{"question": question, "answer": answer} for question, answer in sorted(found.items())]


def made_rows(rows: list[dict[str, str]], task: Task) -> Rows:
    import datasets

    return Rows(datasets.Dataset.from_list(rows), task)


# b: the original's own answers.


def surrogate_rows(model: torch.nn.Module, task: Task, splits: UnlearningSplits) -> list[dict[str, str]]:
    """Every template about every forgotten name, answered greedily by the original."""
    asked = [
        {key: text.replace("{name}", name) for key, text in template.items()} | {GROUP: name}
        for name in forgotten_names(splits)
        for template in known_rows(splits, task)
    ]
    found = generate(model, task, made_rows(asked, task))
    return [row | {"answer": answer.strip()} for row, answer in zip(asked, found, strict=True) if answer.strip()]


def surrogate_quality(rows: list[dict[str, str]], task: Task, splits: UnlearningSplits) -> dict[str, float]:
    """How much of the real rows the surrogate holds. Reads the forgotten rows, as scores do."""
    forget = splits.forget
    raw = forget.source[forget.indices]
    real = dict(zip(raw[task.columns["question"]], raw[task.columns["answer"]], strict=True))
    same, total, whole, other = 0, 0, [], []
    for row in rows:
        if row["question"] in real:
            ours, theirs = (task.processor(text)["input_ids"] for text in (row["answer"], real[row["question"]]))
            same, total = same + sum(a == b for a, b in zip(ours, theirs, strict=False)), total + len(theirs)
            whole.append(row["answer"] == real[row["question"]])
        else:
            other.append(row["answer"] in real.values())
    return {
        "rows": len(rows),
        "real_questions_asked": len(whole) / len(real),
        "tokens_equal": same / max(total, 1),
        "answers_equal": float(np.mean(whole)),
        "answers_equal_in_other_words": float(np.mean(other)) if other else None,
    }


# a: a soft prompt on which the model is wrong about the name.


@dataclass
class SoftPrompts:
    """Noise in the places of prompts whose answer is a name.

    Args:
        features: rows as the task encodes them; the name's tokens are their labels.
        values: `(rows, places, dim)`, in the model's units.
        gained: the model's loss on the name, in nats: with random noise, and with what it became.
    """

    features: list[dict[str, torch.Tensor]]
    values: torch.Tensor
    gained: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.features)

    def __getitems__(self, batch):
        return [self.features[i] for i in batch]


def prompt_places(batch: dict[str, torch.Tensor], task: Task) -> torch.Tensor:
    """`(rows, seq)` bool: the prompt's tokens but for special ones; the name itself stays."""
    return noise.free_places(batch, task.processor) & ((batch["labels"] >= 0).cumsum(1) == 0)


def soft_prompts(model: torch.nn.Module, task: Task, splits: UnlearningSplits, seed: int) -> SoftPrompts:
    """UNSIR's noise: 40 steps of Adam on z, with embeddings μ + σ·z, that raise the loss on the name."""
    rng = np.random.default_rng([seed, 3])
    raw = splits.retain.source[rng.choice(splits.retain.indices, NOISE_PER_NAME * len(forgotten_names(splits)))]
    names = np.repeat(forgotten_names(splits), NOISE_PER_NAME).tolist()
    features = made_rows(
        [{"question": q, "answer": n} for q, n in zip(raw[task.columns["question"]], names, strict=True)], task
    ).__getitems__(range(len(names)))
    for row in features:
        row["labels"][-1] = -100  # the end token is no part of the name
    batch = task.collate(features)
    places = prompt_places(batch, task)
    model.eval()
    with torch.no_grad(), noise.captured(model, noise.EMBEDDINGS) as seen:
        task.predict(model, batch)
    real = seen.pop()[places]
    mean, std = real.mean(0), real.std(0)
    shape = (len(names), int(places.sum(1).max()), real.shape[1])
    z = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    optimizer, losses = torch.optim.Adam([z], lr=NOISE_RATE), []
    for _ in range(NOISE_STEPS):
        with noise.injected(model, noise.EMBEDDINGS, mean + std * z, places):
            loss = task.predict(model, batch).loss.mean()
        (z.grad,) = torch.autograd.grad(PENALTY * noise.PUBLISHED_SIZE * z.square().mean() - loss, z)
        optimizer.step()
        losses.append(float(loss.detach()))
    return SoftPrompts(features, (mean + std * z).detach(), {"random": losses[0], "learned": losses[-1]})


# Impair and repair.


class Impair(UnlearningTrainer):
    """UNSIR's impairing: L = CE(stand-ins) + L_r at a constant rate, retain rows beside.

    Soft prompts are learned as they are labelled; rows of text get tokens drawn alike in place of their answers.
    """

    config_class = UnlearningConfig
    method = "impair"

    def phases(self) -> list[Phase]:
        rate = self.args.learning_rate
        return [Phase("impair", self.args.max_steps, learning_rate=rate)]

    def _run(self, model, batch, only_forget=False):
        size, rows = batch["forget_size"], self.splits.forget
        if not size or not isinstance(rows, SoftPrompts):
            return super()._run(model, batch, only_forget)
        places = prompt_places(batch["inputs"], self.task)[:size]
        with noise.injected(model, noise.EMBEDDINGS, rows.values[batch["index"][:size]], places):
            return super()._run(model, batch, only_forget)

    def unlearning_loss(self, forget=None, retain=None) -> torch.Tensor:
        loss = forget.loss
        if not isinstance(self.splits.forget, SoftPrompts):
            loss = forget.loss_for(uniform_labels(forget, draws(forget, self.args.seed, self.state.global_step)))
        return forget.mean(loss) + retain.mean(retain.loss)


class Trial:
    """One seed: the original, its twins, and what every trial works on."""

    def __init__(self, seed: int, scratch: Path):
        self.seed, self.scratch = seed, scratch
        self.base = case_arguments(CASE, seed, scratch)
        self.arguments = parse_arguments(self.base)
        self.data = prepare_data(self.arguments)
        self.original = stages.get_original(self.arguments, self.data)
        twins = stages.make_twins(self.arguments, self.data)
        self.retrain_examples = float(np.mean([twin.examples for twin in twins]))
        self.twins = [self.score(twin.model) for twin in twins]
        self.before = self.score(self.original.model)
        self.surrogate = surrogate_rows(self.original.model, self.data.task, self.data.splits)
        self.quality = surrogate_quality(self.surrogate, self.data.task, self.data.splits)

    def score(self, model: torch.nn.Module):
        return stages.score_model(self.arguments, self.data, model)

    def copy(self) -> torch.nn.Module:
        return copy.deepcopy(self.original.model)

    def splits(self, stand_in) -> UnlearningSplits:
        return dataclasses.replace(self.data.splits, forget=stand_in)

    def figures(self, model: torch.nn.Module, examples: int) -> dict:
        found = compare(self.before, self.score(model), self.twins)
        return {
            "model": found["models"]["unlearned"], "gap": found["gap"], "difference": found["difference"],
            "examples": examples, "share": examples / self.retrain_examples,
        }  # fmt: skip

    def unasked(self) -> list[dict[str, str]]:
        forget = self.data.splits.forget
        real = set(forget.source[forget.indices][self.data.task.columns["question"]])
        return [row for row in self.surrogate if row["question"] not in real]

    # Trials: each gives its figures after impairing and after repairing.

    def soft_prompt(self, rate: float | None = None, repair_rate: float | None = None) -> dict[str, dict]:
        model = self.copy()
        prompts = soft_prompts(model, self.data.task, self.data.splits, self.seed)
        read = len(prompts) * (NOISE_STEPS + 1)
        found = self.impair(model, prompts, IMPAIR_STEPS, rate, repair_rate, read)
        return found | {"loss_on_name": prompts.gained}

    def damage(self, rate: float, repair_rate: float) -> dict[str, dict]:
        config = FineTuneConfig(**self.options(IMPAIR_STEPS, rate), lr_scheduler_type="constant")
        trainer = FineTuneTrainer(self.copy(), config, self.data.splits, self.data.task, quiet=True)
        trainer.train()
        return self.repair(trainer.model, trainer.examples, repair_rate)

    def random_tokens(self, steps: int) -> dict[str, dict]:
        return self.impair(self.copy(), made_rows(self.surrogate, self.data.task), steps, read=len(self.surrogate))

    def impair(self, model, stand_in, steps, rate=None, repair_rate=None, read=0) -> dict[str, dict]:
        """`read`: examples that making the stand-ins has cost."""
        trainer = Impair(
            model, UnlearningConfig(**self.options(steps, rate)), self.splits(stand_in), self.data.task, quiet=True
        )
        trainer.train()
        return self.repair(trainer.model, trainer.examples + read, repair_rate)

    def repair(self, model: torch.nn.Module, examples: int, rate: float | None = None) -> dict[str, dict]:
        impaired = self.figures(model, examples)
        config = FineTuneConfig(**self.options(REPAIR_STEPS, rate))
        trainer = FineTuneTrainer(model, config, self.data.splits, self.data.task, quiet=True)
        trainer.train()
        return {"impaired": impaired, "repaired": self.figures(trainer.model, examples + trainer.examples)}

    def options(self, steps: int, rate: float | None) -> dict:
        return {
            "output_dir": str(self.scratch / "out"), "seed": self.seed, "report_to": "none", "use_cpu": True,
            "max_steps": steps, "learning_rate": rate or RATE * self.arguments.recipe.original_learning_rate,
            "per_device_train_batch_size": BATCH, "per_device_forget_batch_size": BATCH,
        }  # fmt: skip

    def method(self, *options: str, rows: list[dict[str, str]] | None = None, real: bool = False) -> dict[str, dict]:
        """A method that reads forgotten rows: the stand-ins in their place, or the `real` ones as a yardstick."""
        rows = self.surrogate if rows is None else rows
        arguments = parse_arguments([*self.base, *options, "--output_dir", str(self.scratch / "out")])
        splits = self.data.splits if real else self.splits(made_rows(rows, self.data.task))
        given = copy.copy(self.original)
        given.model = self.copy()
        trainer = stages.make_trainer(arguments, dataclasses.replace(self.data, splits=splits), given)
        trainer.train()
        if real:
            return {"impaired": self.figures(trainer.model, trainer.examples)}
        return self.repair(trainer.model, trainer.examples + len(self.surrogate))


HELD = ["--method", "nabla_tau", "--variant", "held"]
ROWS = ["--method", "nabla_tau"]
PAPER = ["--method", "nabla_tau", "--variant", "paper", "--per_device_train_batch_size", "64",
         "--per_device_forget_batch_size", "64", "--learning_rate", "1e-3"]  # fmt: skip
TRIALS: dict[str, Callable[[Trial], dict[str, dict]]] = {
    "do nothing": lambda t: {"impaired": t.figures(t.original.model, 0)},
    "a": lambda t: t.soft_prompt(),
    "a, published rates": lambda t: t.soft_prompt(0.02, 0.01),
    "damage alone": lambda t: t.damage(0.02, 0.01),
    "b random tokens": lambda t: t.random_tokens(IMPAIR_STEPS),
    "b random tokens, 5 × steps": lambda t: t.random_tokens(5 * IMPAIR_STEPS),
    "b held": lambda t: t.method(*HELD),
    "b paper": lambda t: t.method(*PAPER),
    "b rows": lambda t: t.method(*ROWS),
    "b rows, unasked": lambda t: t.method(*ROWS, rows=t.unasked()),
    "real rows, paper": lambda t: t.method(*PAPER, real=True),
    "real rows, rows": lambda t: t.method(*ROWS, real=True),
}


def run(seed: int, names: list[str]) -> None:
    """The trials of one seed, stored as they end."""
    path = RESULTS / f"{seed}.json"
    with tempfile.TemporaryDirectory() as scratch:
        trial = Trial(seed, Path(scratch))
        twins = compare(trial.before, None, trial.twins)
        result = {"case": CASE, "seed": seed, "splits": trial.data.splits.sizes(), "surrogate": trial.quality,
                  "retrain_examples": trial.retrain_examples, "retrained": twins["models"]["retrained"],
                  "floor": twins["floor"], "trials": {}}  # fmt: skip
        if path.is_file():
            result["trials"] = json.loads(path.read_text())["trials"]
        result["environment"] = environment(seed=seed, device="cpu", threads=torch.get_num_threads())
        for name in names:
            start = time.perf_counter()
            result["trials"][name] = TRIALS[name](trial)
            write_json(path, result)
            print(f"seed {seed}, {name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def table() -> str:
    """Markdown: signed means over seeds of model − mean of the twins."""
    runs = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    if not runs:
        return "no stored runs"

    def mean(values) -> float:
        return float(np.mean(list(values)))

    head = "| trial | forget acc | MIA AUC | forget loss | retain acc | test acc | rms z | gap closed % | cost % |"
    keys = ("forget_accuracy", "membership", "forget_loss", "retain_accuracy", "test_accuracy")
    seeds = ", ".join(str(run["seed"]) for run in runs)
    lines = [f"Model − mean of the twins (seeds {seeds})", "", head, "|" + " --- |" * 9]
    floor = [f"±{mean(run['floor'][key] for run in runs):.2f}" for key in keys]
    z = mean(run["retrained"]["rows"]["rms_z"] for run in runs)
    lines.append(f"| floor: twin to twins | {' | '.join(floor)} | {z:.2f} | | 100 |")
    for name in TRIALS:
        for stage in ("impaired", "repaired"):
            here = [run for run in runs if stage in run["trials"].get(name, {})]
            if not here:
                continue
            found = [run["trials"][name][stage] for run in here]
            cells = [f"{mean(f['difference'][key] for f in found):+.2f}" for key in keys]
            left = mean(
                f["gap"]["forget_accuracy"] / run["trials"]["do nothing"]["impaired"]["gap"]["forget_accuracy"]
                for f, run in zip(found, here, strict=True)
            )
            cells += [f"{mean(f['model']['rows']['rms_z'] for f in found):.2f}", f"{100 * (1 - left):.0f}"]
            title = f"{name}: {stage}" if "repaired" in here[0]["trials"][name] else name
            lines.append(f"| {title} | {' | '.join(cells)} | {100 * mean(f['share'] for f in found):.0f} |")
    bar = mean(1.25 * run["floor"]["forget_accuracy"] + 2 for run in runs)
    asked = [run["surrogate"] for run in runs]
    lines += [
        "",
        f"Bar: forget accuracy within {bar:.2f} points, or 80 % of the gap closed, and test accuracy within 2.",
    ]
    lines.append(
        f"Surrogate of b: {100 * mean(s['tokens_equal'] for s in asked):.1f} % of the real answers' tokens and "
        f"{100 * mean(s['answers_equal'] for s in asked):.1f} % of the answers where the question is the real one "
        f"(for {100 * mean(s['real_questions_asked'] for s in asked):.0f} % of the real rows); asked in other words, "
        f"{100 * mean(s['answers_equal_in_other_words'] for s in asked):.1f} % are a real answer about that author."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101])
    parser.add_argument("--trials", nargs="+", choices=list(TRIALS), default=list(TRIALS))
    parser.add_argument("--table", action="store_true", help="only print what is stored")
    options = parser.parse_args()
    if not options.table:
        torch.set_num_threads(1)
        for seed in options.seeds:
            run(seed, options.trials)
    print(table())


if __name__ == "__main__":
    main()
