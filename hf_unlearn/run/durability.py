"""`--stress` of a run: its models are disturbed once everything else is measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from hf_unlearn.evaluation.durability import NO_TWINS
from hf_unlearn.evaluation.protocols import PROTOCOLS
from hf_unlearn.evaluation.stress import Measured, StressTest, stress
from hf_unlearn.report.blocks import Evidence, Stress
from hf_unlearn.run import stages
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.loading import load_model, placed
from hf_unlearn.run.rows import Data
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.trainers.config import default_learning_rate


@dataclass
class Disturbed:
    """The models of a run under `--stress`, one after the other; none is kept. Without `test` nothing happens."""

    arguments: Arguments
    test: StressTest | None = None
    measured: dict[str, Measured] = field(default_factory=dict)

    def measure(self, name: str, model: nn.Module) -> None:
        """Disturb a model: `original`, `unlearned`, or any other name for a twin."""
        if self.test is None:
            return
        asked = self.arguments.recipe
        count = len(NO_TWINS) + asked.retrain + len(asked.reference_model or [])
        title = f"{name} ({len(self.measured) + 1} of {count})"
        self.measured[name] = self.test.measure(placed(model, self.arguments.trainer.device), title)

    @property
    def twin(self) -> Callable[[nn.Module], None] | None:
        """What measures one more twin."""
        if self.test is None:
            return None
        return lambda model: self.measure(f"twin {len(self.measured) - len(NO_TWINS) + 1}", model)

    def add_to(self, evidence: Evidence) -> None:
        """Put the block `stress` into `evidence`."""
        if self.test is not None:
            evidence["stress"] = self.test.block(self.measured)


def disturb(arguments: Arguments, data: Data, unlearned: nn.Module) -> Disturbed:
    """With `--stress`: the original, which the trainer has changed and is read again, and the unlearned model."""
    if not arguments.run.stress:
        return Disturbed(arguments)
    original = _original_again(arguments, data)
    found = Disturbed(arguments, stress_test(arguments, data, original))
    found.measure("original", original)
    found.measure("unlearned", unlearned)
    return found


def stress_models(arguments: Arguments, data: Data, models: Mapping[str, nn.Module]) -> Stress:
    """The evidence block `stress`. Under our own protocol models are fine-tuned, all their weights, at the recipe's
    rate, or without a recipe at one that their width sets, or at what of it the original survives."""
    placed_models = {name: placed(model, arguments.trainer.device) for name, model in models.items()}
    return stress(placed_models, data.task, data.splits, **_options(arguments, models["unlearned"]))


def stress_test(arguments: Arguments, data: Data, original: nn.Module) -> StressTest:
    """The same for models that are measured one by one; its rate is that which the original survives."""
    original = placed(original, arguments.trainer.device)
    return StressTest(("original", original), data.task, data.splits, **_options(arguments, original))


def _options(arguments: Arguments, model: nn.Module) -> dict[str, Any]:
    rate = arguments.recipe.original_learning_rate if arguments.has_recipe else None
    return {
        "learning_rate": rate or default_learning_rate(unwrap(model)),
        "protocol": PROTOCOLS[arguments.run.stress_protocol],
        "seed": arguments.trainer.seed,
        "batch_size": arguments.trainer.per_device_eval_batch_size,
    }


def _original_again(arguments: Arguments, data: Data) -> nn.Module:
    name = arguments.model.model_name_or_path
    return load_model(arguments, data.task, name) if name is not None else stages.get_original(arguments, data).model
