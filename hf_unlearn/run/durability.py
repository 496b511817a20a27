"""`--stress` of a run: its models are disturbed once everything else is measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hf_unlearn.evaluation.protocols import PROTOCOLS
from hf_unlearn.evaluation.stress import StressTest, stress
from hf_unlearn.report.blocks import Evidence, Stress
from hf_unlearn.run import stages
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.loading import load_model, placed
from hf_unlearn.run.rows import Data
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.trainers.config import default_learning_rate


def add_stress(
    arguments: Arguments, data: Data, evidence: Evidence, unlearned: nn.Module, twins: Sequence[nn.Module]
) -> None:
    """With `--stress`: put the block `stress` into `evidence`. The original, which the trainer has changed, is read
    again."""
    if not arguments.run.stress:
        return
    models = {"original": _original_again(arguments, data), "unlearned": unlearned}
    evidence["stress"] = stress_models(
        arguments, data, models | {f"twin {k}": twin for k, twin in enumerate(twins, 1)}
    )


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
