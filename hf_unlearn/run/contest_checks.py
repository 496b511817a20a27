"""What of a contest can be refused, or whom it passes over, before anything is trained."""

import os
import tempfile

from hf_unlearn.errors import UserError
from hf_unlearn.models.weights import copied
from hf_unlearn.run import stages
from hf_unlearn.run.checks import check
from hf_unlearn.run.contest_cost import ContestCost
from hf_unlearn.run.contest_plan import STRIDE, ContestPlan
from hf_unlearn.run.recipe import Trained
from hf_unlearn.run.rows import Data
from hf_unlearn.trainers import handover


def check_numbers(plan: ContestPlan, seeds: int, tune: int) -> None:
    """Raises `UserError` for seeds, twins and searches that make no contest, and for several processes."""
    base = plan.base
    check(base, goes_on=True)
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}; give 1 or more")
    if tune < 0 or tune == 1:
        raise UserError(f"--tune is {tune}; give 2 or more rates to choose from, or leave it out")
    if not base.has_recipe:
        raise UserError(
            "compare retrains its twins, which takes the recipe of the original (--original_model or "
            "--original_model_type …)"
        )
    if seeds > 1 and base.model.model_name_or_path is not None:
        raise UserError(
            f"--seeds {seeds} takes an original for each seed, and --model_name_or_path is one: leave it out, so that "
            "the recipe makes them, or say --seeds 1"
        )
    twins = base.recipe.retrain
    if twins < 2:
        raise UserError(
            f"--retrain is {twins}; a contest is decided by the distance to twins beside that between them: give 2 or "
            "more, better 4"
        )
    if twins > STRIDE - 2:
        raise UserError(f"--retrain is {twins}; {STRIDE - 2} is the most that a seed has room for")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("compare runs in one process; start it without a launcher")


def settle_contestants(plan: ContestPlan, everybody: bool, data: Data) -> ContestCost:
    """Try who can take part: each trainer is made once around the untrained or the given model. Returns what they
    would read in a dry run, and how long a row takes.

    Changes `plan`. Raises `UserError` for a method that cannot and was named, or has a block of arguments; with
    `everybody` any other is passed over.
    """
    handover.check_room(stages.cache_folder(plan.base), "cache_dir", data.loaded)
    cost = ContestCost()
    for name in list(plan.names):
        try:
            _rehearse(plan, name, data, cost)
        except UserError as error:
            if not everybody or name in plan.blocks:
                raise
            plan.names.remove(name)
            plan.passed_over[name] = str(error).replace("`", "")
    if not plan.names:
        raise UserError("no method serves these rows: " + next(iter(plan.passed_over.values())))
    return cost


def _rehearse(plan: ContestPlan, name: str, data: Data, cost: ContestCost) -> None:
    with tempfile.TemporaryDirectory(prefix="hf-unlearn-") as scratch:
        arguments = plan.arguments(name, 0)
        arguments.trainer.output_dir, arguments.trainer.report_to = scratch, []
        trainer = stages.make_trainer(arguments, data, Trained(copied(data.loaded)))
        trainer.plan()
        for lens in trainer.active_lenses:
            lens.plan()
        if plan.base.run.dry_run:
            cost.add(name, trainer)
