"""One seed of a contest: one original, one set of twins, and every contestant on a copy of that original."""

import copy
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from hf_unlearn.errors import NonFiniteLossError, RowError, UserError
from hf_unlearn.evaluation import account
from hf_unlearn.evaluation.answers import ORIGINAL, UNLEARNED
from hf_unlearn.evaluation.comparison import ModelScores
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.evaluation.stress import Measured, StressTest
from hf_unlearn.evaluation.tuning import rate_factors, validation_distance
from hf_unlearn.methods import get_method
from hf_unlearn.models.weights import copied
from hf_unlearn.report.contest import NOTHING, TUNED, TWIN
from hf_unlearn.report.contest_blocks import ContestRun, Tried
from hf_unlearn.run import results, stages
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.contest_folder import Run, contest_block
from hf_unlearn.run.contest_plan import Contestant, ContestPlan
from hf_unlearn.run.durability import stress_test
from hf_unlearn.run.loading import get_recipe, placed
from hf_unlearn.run.recipe import Trained
from hf_unlearn.run.rows import Data
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.edit import EditTrainer


@dataclass
class Candidate:
    """A contestant's model with one learning rate."""

    trainer: UnlearningTrainer
    unlearning: stages.Unlearning
    tried: Tried | None


def entry_names(contestants: list[Contestant], tune: int) -> list[str]:
    """Who is judged under every seed, in the order of their running."""
    names = [NOTHING]
    for contestant in contestants:
        names.append(contestant.name)
        if tune and can_be_tuned(contestant):
            names.append(contestant.name + TUNED)
    return [*names, TWIN]


def can_be_tuned(contestant: Contestant) -> bool:
    """Whether a learning rate matters: methods that edit the weights have none."""
    return not issubclass(get_method(contestant.method), EditTrainer)


class ContestSeed:
    """Models of one seed, made when they are asked for, and the runs on them.

    Args:
        plan: of the contest.
        k: number of the seed.
        data: its rows.
        tune: rates of the search; 0 searches none.
        step: called with a name around everything that takes long, as a context manager.
    """

    def __init__(self, plan: ContestPlan, k: int, data: Data, tune: int, step: Callable[[str], Any]):
        self.plan, self.k, self.data, self.tune, self.step = plan, k, data, tune, step
        self.arguments = plan.arguments(plan.names[0], k)
        self.original: Trained | None = None
        self.trainer: UnlearningTrainer | None = None
        self.start = 0.0
        self.stress: StressTest | None = None
        self.disturbed: dict[str, Measured] = {}  # by model; of contestants the last one

    def prepare(self) -> None:
        """The original, the twins and one more, and their scores; of the twins only these are kept."""
        arguments, data = self.arguments, self.data
        with self.step("original"):
            self.original = stages.get_original(arguments, data)
            stages.look_for_near_duplicates(arguments, data, self.original)
            self.before = stages.score_model(arguments, data, self.original.model, ORIGINAL)
            self.unseen_before = self._score(self.original.model, "validation_stop") if self.tune else None
            self._settle_stress(self.original.model)
            if not getattr(unwrap(self.original.model), "is_quantized", False):
                self.original.model.to("cpu")  # so that a peak is that of the copy which is trained
        data.model = None
        count = arguments.recipe.retrain
        self.twins: list[Trained] = []
        for j in range(1, count + 2):
            with self.step("twin"):
                title = f"retraining twin {j} of {count}" if j <= count else "retraining another twin, as a contestant"
                twin = stages.train_by_recipe(arguments, data, data.splits.retain, arguments.twin_seed(j), title)
                name = f"twin {j} of {count}" if j <= count else TWIN
                twin.scores = stages.score_model(arguments, data, twin.model, name)
                self._disturb(name, twin.model)
                self.twins.append(replace(twin, model=torch.nn.Identity()))
        self.another = self.twins.pop()
        if data.answers is not None:
            self.another_answers = data.answers.of(TWIN)
            data.answers.drop(TWIN)  # it is no twin of the others

    def _settle_stress(self, original: torch.nn.Module) -> None:
        """With `--stress`: how models are disturbed, and what the original then is."""
        if self.arguments.run.stress:
            self.stress = stress_test(self.arguments, self.data, original)
            self._disturb(ORIGINAL, original)

    def _disturb(self, name: str, model: torch.nn.Module) -> None:
        if self.stress is not None:
            self.disturbed[name] = self.stress.measure(placed(model, self.arguments.trainer.device), name)

    def _with_stress(self, evidence: Run, unlearned: str) -> Run:
        """The evidence with the block `stress`, in which a model that was disturbed under this name is judged."""
        if self.stress is None:
            return evidence
        twins = [name for name in self.disturbed if name not in (ORIGINAL, UNLEARNED, TWIN)]
        measured = {"original": self.disturbed[ORIGINAL], "unlearned": self.disturbed[unlearned]}
        measured |= {f"twin {k}": self.disturbed[name] for k, name in enumerate(twins, 1)}
        return {**evidence, "stress": self.stress.block(measured)}

    def run(self, entry: str, default: Run | None) -> Run:
        """The evidence of an entry, or why there is none. `default`: of a search, the run with the method's rate."""
        with self.step(entry):
            if entry in (NOTHING, TWIN):
                return self._beside(entry)
            contestant = self.plan.contestant(entry.removesuffix(TUNED))
            try:
                if entry.endswith(TUNED):
                    return self._search(contestant, default)
                return self._default(contestant)
            except RowError:  # it names a row
                raise
            except (NonFiniteLossError, UserError) as error:
                broken = [self._broken()] if self.tune and isinstance(error, NonFiniteLossError) else []
                return {"entry": entry, "seed": self.k, "tried": broken, "failed": str(error).replace("`", "")}

    def _beside(self, entry: str) -> Run:
        """What no method made: the original as it is, and one more twin."""
        original, another = self._original, self.another
        twin = entry == TWIN
        seconds, examples, _ = results.retraining_cost(self.arguments, self.data, original, self.twins)
        if self.data.answers is not None:
            self.data.answers.put(UNLEARNED, self.another_answers if twin else self.data.answers.of(ORIGINAL))
        evidence = account.make_evidence(
            self._scored(another.scores if twin else self.before),
            method={"name": entry, "paper": None, "hyperparameters": None},
            task=self.data.task.name,
            units=self.data.task.units(),
            model=account.describe_model(original.model, trained=False),
            data=self.data.describe(publish=self.arguments.request.publish_request),
            seeds=results.seeds(self.arguments),
            recipe=get_recipe(self.arguments).describe() if self.arguments.has_recipe else None,
            device=self.arguments.trainer.device,
            cost={
                "original_seconds": original.seconds,
                "unlearn_seconds": another.seconds if twin else 0.0,
                "unlearn_examples": another.examples if twin else 0,
                "retrain_seconds": seconds,
                "retrain_examples": examples,
            },
            notes=self.data.report.notes,
        )
        found: Run = dict(evidence)
        if self.data.answers is not None:
            found[self.data.answers.key] = self.data.answers.block()
        return self._finished(self._with_stress(found, TWIN if twin else ORIGINAL), entry, [])

    def _default(self, contestant: Contestant) -> Run:
        with self._trained(contestant, None) as candidate:
            tried = [] if candidate.tried is None else [candidate.tried]
            return self._finished(self._evidence(candidate), contestant.name, tried)

    def _search(self, contestant: Contestant, default: Run | None) -> Run:
        """The rate that validation rows say is best, at the cost of all that were tried. Neither test rows nor twins
        choose. The run with the default is not made twice."""
        entry = contestant.name + TUNED
        known = contest_block(default)["tried"] if default is not None else []
        rate = known[0]["learning_rate"] if known else None
        rate = self._own_rate(contestant) if rate is None else rate
        tried: list[Tried] = []
        best, found = float("inf"), None
        for factor in rate_factors(self.tune):
            if factor == 1 and known:
                run, attempt = copy.deepcopy(default), known[0]
            else:
                run, attempt = self._attempt(contestant, rate * factor, best)
            tried.append(attempt)
            if run is not None and attempt["distance"] is not None and attempt["distance"] < best:
                best, found = attempt["distance"], run
        if found is None:
            raise UserError("no learning rate of the search gave a model")
        found["cost"]["unlearn_examples"] = sum(each["examples"] for each in tried)
        found["cost"]["unlearn_seconds"] = sum(each["seconds"] for each in tried)
        return self._finished(found, entry, tried)

    def _attempt(self, contestant: Contestant, rate: float, best: float) -> tuple[Run | None, Tried]:
        """One candidate of a search; its evidence is made only where validation rows prefer it to all before it."""
        try:
            with self._trained(contestant, rate) as candidate:
                tried = candidate.tried
                assert tried is not None
                better = tried["distance"] is not None and tried["distance"] < best
                return self._evidence(candidate) if better else None, tried
        except NonFiniteLossError:
            return None, self._broken()

    @contextmanager
    def _trained(self, contestant: Contestant, rate: float | None) -> Iterator[Candidate]:
        """A candidate, trained in a folder that goes afterwards; valued on validation rows where there is a search."""
        with tempfile.TemporaryDirectory(prefix="hf-unlearn-") as scratch:
            arguments = self._own_arguments(contestant, scratch, rate)
            self.trainer, self.start = None, time.perf_counter()
            self.trainer = trainer = self._trainer(arguments)
            unlearning = stages.unlearn(arguments, self.data, trainer)
            yield Candidate(trainer, unlearning, self._value(trainer, unlearning) if self.tune else None)
        self.trainer = None
        gc.collect()  # trainers hold themselves in rings, and with them their models

    def _broken(self) -> Tried:
        """What a training took that broke down."""
        trainer, seconds = self.trainer, time.perf_counter() - self.start
        rate, examples = (None, 0) if trainer is None else (float(trainer.args.learning_rate), trainer.examples)
        return {"learning_rate": rate, "distance": None, "examples": examples, "seconds": seconds}

    def _own_rate(self, contestant: Contestant) -> float:
        """The rate that a method settles on by itself."""
        with tempfile.TemporaryDirectory(prefix="hf-unlearn-") as scratch:
            return float(self._trainer(self._own_arguments(contestant, scratch, None)).args.learning_rate)

    def _own_arguments(self, contestant: Contestant, scratch: str, rate: float | None) -> Arguments:
        arguments = self.plan.arguments(contestant.name, self.k)
        arguments.trainer.output_dir, arguments.trainer.report_to = scratch, []
        if rate is not None:
            arguments.trainer.learning_rate = rate
        return arguments

    def _trainer(self, arguments: Arguments) -> UnlearningTrainer:
        """The method's trainer around a copy of the original."""
        original = replace(self._original, model=copied(self._original.model))
        return stages.make_trainer(arguments, self.data, original)

    def _value(self, trainer: UnlearningTrainer, unlearning: stages.Unlearning) -> Tried:
        """What a search sees of a candidate: forget and validation rows."""
        start = time.perf_counter()
        forget, unseen = (self._score(unlearning.model, role) for role in ("forget", "validation_stop"))
        assert self.unseen_before is not None
        removes = bool(self.data.splits.forgotten_classes)
        distance = validation_distance(forget, unseen, self.unseen_before, removes_classes=removes)
        return {
            "learning_rate": float(trainer.args.learning_rate),
            "distance": distance if distance < float("inf") else None,
            "examples": unlearning.examples + len(forget) + len(unseen),
            "seconds": unlearning.seconds + time.perf_counter() - start,
        }

    def _score(self, model: torch.nn.Module, role: str) -> SplitScores:
        args, rows = self.arguments.trainer, getattr(self.data.splits, role)
        return score(placed(model, args.device), self.data.task, rows, batch_size=args.per_device_eval_batch_size)

    def _evidence(self, candidate: Candidate) -> Run:
        trainer, unlearning = candidate.trainer, candidate.unlearning
        if not torch.cuda.is_available():  # of the whole process, and of everything that ran in it before
            unlearning = replace(unlearning, peak_memory_mb=None)
        after = stages.score_model(self.arguments, self.data, unlearning.model, UNLEARNED)
        self._disturb(UNLEARNED, unlearning.model)
        evidence = results.make_evidence(
            self.arguments, self.data, self._original, trainer, unlearning, self.twins, self._scored(after)
        )
        return self._with_stress(dict(evidence), UNLEARNED)

    def _finished(self, evidence: Run, entry: str, tried: list[Tried]) -> Run:
        block: ContestRun = {"entry": entry, "seed": self.k, "tried": tried, "failed": None}
        return {**evidence, "contest": block}

    def _scored(self, unlearned: ModelScores | None) -> account.Scored:
        assert unlearned is not None
        twins = [twin.scores for twin in self.twins if twin.scores is not None]
        return account.Scored(self.before, unlearned, twins)

    @property
    def _original(self) -> Trained:
        assert self.original is not None
        return self.original
