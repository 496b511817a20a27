"""What can be refused before any work is done."""

import difflib
import importlib.util
from pathlib import Path

from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from hf_unlearn.errors import UserError
from hf_unlearn.hub.upload import check_can_push, check_repo_id
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.recipe import Recipe

TRACKER_PACKAGES = {
    "azure_ml": "azureml",
    "comet_ml": "comet_ml",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
BEST = ("validation_loss", "validation_accuracy")
NOT_NEGATIVE = {
    "data": ("split_seed",),
    "recipe": ("retrain", "original_seed", "original_warmup_steps", "original_weight_decay"),
    "trainer": ("seed", "data_seed", "dataloader_num_workers", "warmup_steps", "weight_decay"),
}
POSITIVE = {
    "data": ("max_length",),
    "lora": ("lora_r",),
    "recipe": ("original_num_train_epochs", "original_learning_rate", "original_batch_size"),
    "trainer": (
        "num_train_epochs",
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
    ),
}


def check(arguments: Arguments) -> None:
    """Raises `UserError` for an occupied output folder, a tracker that is not installed, numbers that make no sense,
    or no way to a model."""
    _check_output(arguments)
    _check_trackers(arguments.trainer.report_to or [])
    _check_numbers(arguments)
    _check_training(arguments.trainer)
    if arguments.trainer.push_to_hub and not arguments.run.dry_run:
        _check_push(arguments)
    if arguments.data.dataset_name is None:
        raise UserError("no --dataset_name; name a data set, or one of digits, docstrings, fictitious_authors")
    if arguments.model.model_name_or_path is None and not arguments.has_recipe:
        raise UserError("no model: give --model_name_or_path, or a recipe (--original_model or --original_model_type)")
    if arguments.recipe.retrain and not arguments.has_recipe:
        raise UserError(
            "--retrain needs the recipe of the original (--original_model or --original_model_type …); a twin that "
            "starts from the original's weights would have seen the forgotten rows"
        )
    if arguments.has_recipe:
        _check_recipe(arguments)
    given, base = arguments.model.model_name_or_path, arguments.recipe.original_model
    if given is not None and base is not None and _same(given, base):
        raise UserError("--original_model is the model that must forget; name the base it was fine-tuned from")


def _check_trackers(trackers: list[str]) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for tracker in trackers:
        if tracker not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UserError(f"--report_to {tracker} is unknown; there are {known}")
        package = TRACKER_PACKAGES.get(tracker)
        if package is not None and importlib.util.find_spec(package) is None:
            raise UserError(f"--report_to {tracker}: the package {package} is not installed; pip install {package}")


def _check_numbers(arguments: Arguments) -> None:
    for group, names in POSITIVE.items():
        for name in names:
            value = getattr(getattr(arguments, group), name)
            if value is not None and not value > 0:
                raise UserError(f"--{name} is {value}; give a number above 0")
    for group, names in NOT_NEGATIVE.items():
        for name in names:
            value = getattr(getattr(arguments, group), name)
            if value is not None and value < 0:
                raise UserError(f"--{name} is {value}; give 0 or more")


def _check_training(trainer) -> None:
    """What Trainer would refuse only once it has begun."""
    from transformers import Trainer

    if trainer.load_best_model_at_end and trainer.metric_for_best_model.removeprefix("eval_") not in BEST:
        raise UserError(f"--metric_for_best_model is {trainer.metric_for_best_model}; it is one of {', '.join(BEST)}")
    try:
        Trainer.get_optimizer_cls_and_kwargs(trainer)
    except ImportError as error:
        raise UserError(f"--optim {getattr(trainer.optim, 'value', trainer.optim)}: {error}") from None
    except ValueError:
        pass  # it asks for a model
    _check_scheduler(trainer.lr_scheduler_type, trainer.lr_scheduler_kwargs, "")


def _check_scheduler(name, options, prefix: str) -> None:
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    try:
        get_scheduler(name, optimizer, 0, 1, scheduler_specific_kwargs=options)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--{prefix}lr_scheduler_type {getattr(name, 'value', name)}: {reason}") from None


def _check_recipe(arguments: Arguments) -> None:
    from transformers import AutoConfig

    recipe = Recipe.from_arguments(arguments.recipe, arguments.model.dtype)
    _check_scheduler(recipe.lr_scheduler_type, None, "original_")
    cache = arguments.recipe.cache_dir
    if cache and Path(cache).exists() and not Path(cache).is_dir():
        raise UserError(f"--cache_dir {cache} is a file; name a folder")
    if recipe.model_type is None:
        return
    try:
        known = AutoConfig.for_model(recipe.model_type)
    except ValueError:
        close = difflib.get_close_matches(recipe.model_type, list(CONFIG_MAPPING_NAMES), n=1)
        hint = f"did you mean {close[0]}?" if close else "name an architecture of transformers, e.g. vit"
        raise UserError(f"--original_model_type {recipe.model_type} is unknown; {hint}") from None
    for key in recipe.config_values():
        if not hasattr(known, key):
            close = difflib.get_close_matches(key, list(known.to_dict()), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"--original_model_config: {recipe.model_type} has no '{key}'{hint}")


def _check_push(arguments: Arguments) -> None:
    trainer, options = arguments.trainer, arguments.lora
    check_repo_id(trainer.hub_model_id or Path(trainer.output_dir).resolve().name)
    check_can_push(trainer.hub_token)
    if options.use_peft and options.save_adapter and not options.push_adapter:
        raise UserError(
            "--push_to_hub with --save_adapter: whoever switches the adapter off has the forgotten rows back; leave "
            "out --save_adapter, or say --push_adapter"
        )


def _same(name: str, other: str) -> bool:
    """Whether two names mean the same model: one name, or two spellings of one folder."""
    return name == other or (Path(name).exists() and Path(other).exists() and Path(name).samefile(other))


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

    from hf_unlearn.trainers.base import METHOD_STATE_NAME

    newest = str(asked).lower() in ("last", "true")
    found = (get_last_checkpoint(str(output)) if output.is_dir() else None) if newest else asked
    needed = ("trainer_state.json", METHOD_STATE_NAME)
    if found is None or not all((Path(found) / name).is_file() for name in needed):
        raise UserError(f"--resume_from_checkpoint {asked}: no checkpoint there; name a checkpoint folder, or 'last'")
    return found
