"""What can be refused before any work is done."""

import importlib.util
from pathlib import Path

from hf_unlearn.arguments import Arguments
from hf_unlearn.errors import UserError
from hf_unlearn.recipe import Recipe

TRACKER_PACKAGES = {
    "azure_ml": "azureml",
    "comet_ml": "comet_ml",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}


def check(arguments: Arguments) -> None:
    """Raises `UserError` for an occupied output folder, a tracker that is not installed, or no way to a model."""
    _check_output(arguments)
    for tracker in arguments.trainer.report_to or []:
        package = TRACKER_PACKAGES.get(tracker)
        if package is not None and importlib.util.find_spec(package) is None:
            raise UserError(f"--report_to {tracker}: the package {package} is not installed; pip install {package}")
    if arguments.data.dataset_name is None:
        raise UserError("no --dataset_name; name a data set, or one of digits, docstrings, fictitious_authors")
    if arguments.model.model_name_or_path is None and not arguments.has_recipe:
        raise UserError("no model: give --model_name_or_path, or a recipe (--original_model or --original_model_type)")
    if arguments.recipe.retrain < 0:
        raise UserError(f"--retrain is {arguments.recipe.retrain}; give a number of twins, or 0 for none")
    if arguments.recipe.retrain and not arguments.has_recipe:
        raise UserError(
            "--retrain needs the recipe of the original (--original_model or --original_model_type …); a twin that "
            "starts from the original's weights would have seen the forgotten rows"
        )
    if arguments.has_recipe:
        Recipe.from_arguments(arguments.recipe, arguments.model.dtype)
    given, base = arguments.model.model_name_or_path, arguments.recipe.original_model
    if arguments.recipe.retrain and given is not None and given == base:
        raise UserError("--original_model is the model that must forget; name the base it was fine-tuned from")


def _check_output(arguments: Arguments) -> None:
    trainer, output = arguments.trainer, Path(arguments.trainer.output_dir)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output_dir {output} is a file; name a folder")
    if trainer.resume_from_checkpoint is not None:
        trainer.resume_from_checkpoint = _find_checkpoint(trainer.resume_from_checkpoint, output)
    elif not arguments.run.dry_run and output.is_dir() and any(output.iterdir()):
        raise UserError(f"--output_dir {output} is not empty; name a new folder, or --resume_from_checkpoint last")


def _find_checkpoint(asked: str, output: Path) -> str:
    from transformers.trainer_utils import get_last_checkpoint

    newest = str(asked).lower() in ("last", "true")
    found = (get_last_checkpoint(str(output)) if output.is_dir() else None) if newest else asked
    if found is None or not (Path(found) / "trainer_state.json").is_file():
        raise UserError(f"--resume_from_checkpoint {asked}: no checkpoint there; name a checkpoint-N folder, or 'last'")
    return found
