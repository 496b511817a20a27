"""What can be refused before any work is done."""

import difflib
import importlib.util
import os
import tempfile
from dataclasses import fields
from pathlib import Path

from accelerate.utils import DistributedType
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from hf_unlearn.data import tofu
from hf_unlearn.data.given import NO_RETAIN
from hf_unlearn.errors import UserError
from hf_unlearn.hub.upload import check_can_push, check_repo_id
from hf_unlearn.models import lora
from hf_unlearn.models.places import check_place
from hf_unlearn.run.arguments import Arguments, LoraArguments
from hf_unlearn.run.check_options import check_optimizer, check_recomputing, check_scheduler, check_times
from hf_unlearn.run.in_force import check_sharding
from hf_unlearn.run.loading import complete_recipe
from hf_unlearn.run.recipe import Recipe
from hf_unlearn.run.recipe_cache import default_cache_dir
from hf_unlearn.saliency.mask import check_file
from hf_unlearn.tasks import get_task
from hf_unlearn.trainers.resuming import checkpoints, find_checkpoint

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
BLOCKS = "num_hidden_layers"
OF_THE_DATA = ("num_labels", "id2label", "label2id")
LORA_DEFAULTS = {f.name: f.default for f in fields(LoraArguments)}


def check(arguments: Arguments, *, goes_on: bool = False) -> None:
    """Raises `UserError` for an occupied output folder, a tracker that is not installed, numbers that make no sense,
    or no way to a model. `goes_on`: the command goes on in the folder by itself, so that it may hold something."""
    if arguments.data.task:
        get_task(arguments.data.task).check_installed()
    complete_recipe(arguments)
    _check_loading(arguments)
    _check_launch(arguments.trainer)
    _check_output(arguments, goes_on)
    _check_trackers(arguments.trainer.report_to or [])
    _check_without_effect(arguments)
    _check_training(arguments.trainer)
    if arguments.trainer.push_to_hub and not arguments.run.dry_run:
        _check_push(arguments)
    _check_data(arguments)
    if arguments.model.model_name_or_path is None and not arguments.has_recipe:
        raise UserError("no model: give --model_name_or_path, or a recipe (--original_model or --original_model_type)")
    if arguments.recipe.retrain and not arguments.has_recipe:
        raise UserError(
            "--retrain needs the recipe of the original (--original_model or --original_model_type …); a twin that "
            "starts from the original's weights would have seen the forgotten rows"
        )
    if arguments.has_recipe:
        _check_recipe(arguments)
    for name in (
        arguments.model.model_name_or_path,
        arguments.model.processor_name_or_path,
        arguments.model.base_model,
        arguments.recipe.original_model,
        *(arguments.recipe.reference_model or []),
    ):
        if name:
            check_place(name)
    if arguments.model.base_model and (arguments.has_recipe or arguments.model.model_name_or_path is None):
        raise UserError("--base_model goes with --model_name_or_path; in a recipe the base is --original_model")
    given = arguments.model.model_name_or_path
    base = arguments.recipe.original_model or arguments.model.base_model
    references = arguments.recipe.reference_model or []
    if any(_same(one, other) for k, one in enumerate(references) for other in references[:k]):
        raise UserError("--reference_model names one model twice; name each once: two retrainings differ by chance")
    for reference in references:
        if given is not None and _same(given, reference):
            raise UserError("--reference_model is the model that must forget; name models that never saw the rows")
    if given is not None and base is not None and _same(given, base):
        argument = "--original_model" if arguments.has_recipe else "--base_model"
        raise UserError(f"{argument} is the model that must forget; name the base it was fine-tuned from")


def _check_trackers(trackers: list[str]) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for tracker in trackers:
        if tracker not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UserError(f"--report_to {tracker} is unknown; there are {known}")
        package = TRACKER_PACKAGES.get(tracker)
        if package is not None and importlib.util.find_spec(package) is None:
            raise UserError(f"--report_to {tracker}: the package {package} is not installed; pip install {package}")


def _check_without_effect(arguments: Arguments) -> None:
    """Arguments that would be accepted and ignored."""
    request, options, recipe = arguments.request, arguments.lora, arguments.recipe
    if request.id_column is not None and request.forget_ids is None:
        raise UserError("--id_column is the column of --forget_ids; name the file of ids too, or leave it out")
    if not options.use_peft:
        for name in ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save"):
            if getattr(options, name) != LORA_DEFAULTS[name]:
                raise UserError(f"--{name} shapes an adapter that --use_peft adds; add that, or leave it out")
    if not recipe.original_use_peft:
        for name in ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"):
            if getattr(recipe, f"original_{name}") != LORA_DEFAULTS[name]:
                raise UserError(
                    f"--original_{name} shapes an adapter that --original_use_peft adds; add that, or leave it out"
                )
    if arguments.model.model_revision not in (None, "main") and arguments.model.model_name_or_path is None:
        raise UserError("--model_revision is that of --model_name_or_path; name the model too, or leave it out")
    if options.lora_dropout and arguments.trainer.disable_dropout is not False:
        raise UserError("--lora_dropout is without effect while --disable_dropout is on; switch it off, or leave both")
    if options.save_adapter and not options.use_peft and arguments.model.model_name_or_path is None:
        raise UserError("--save_adapter: there is no adapter; add one with --use_peft")
    trainer = arguments.trainer
    for name in ("hub_model_id", "hub_private_repo", "hub_revision"):
        if getattr(trainer, name, None) is not None and not trainer.push_to_hub:
            raise UserError(f"--{name} is about what --push_to_hub pushes; add that, or leave it out")
    if options.push_adapter and not (trainer.push_to_hub and options.save_adapter):
        raise UserError("--push_adapter goes with --push_to_hub and --save_adapter; add them, or leave it out")
    if arguments.run.stress and arguments.quantized:
        raise UserError(f"--stress trains copies of the models; leave it out with --{arguments.quantized}")
    protocol = arguments.run.stress_protocol
    if protocol != "ours" and not arguments.run.stress:
        raise UserError(f"--stress_protocol {protocol} goes with --stress; add that, or leave it out")
    if arguments.twin_seed(recipe.retrain) >= 2**32:
        raise UserError(f"--original_seed {recipe.original_seed} leaves no seeds for {recipe.retrain} twins; lower it")


def _check_data(arguments: Arguments) -> None:
    data = arguments.data
    _check_files_apart(arguments)
    _check_prompts(arguments)
    if data.label_columns and data.label_column:
        raise UserError("--label_columns takes the place of --label_column; name labels in one of the two ways")
    if arguments.request.forget_prompt and not (data.dataset_name or data.train_file):
        raise UserError(f"--forget_prompt: {NO_RETAIN} (--train_file, --dataset_name)")
    if data.dataset_name is None and data.train_file is None and data.retain_file is None:
        raise UserError("no --dataset_name and no --train_file; name a data set or a file (hf-unlearn init writes a "
                        "run.yaml to fill in), or one of digits, docstrings, fictitious_authors")  # fmt: skip
    if data.dataset_name is not None and data.train_file is not None:
        raise UserError("--train_file takes the place of --dataset_name; name one of them")
    rows_file = data.train_file or data.retain_file
    for name in ("validation_file", "test_file"):
        if getattr(data, name) is not None and rows_file is None:
            raise UserError(f"--{name} goes with --train_file; name splits of a data set with --{name[:-5]}_split")
    for name in ("dataset_config_name", "validation_split", "test_split"):
        if getattr(data, name) is not None and rows_file is not None:
            raise UserError(f"--{name} is for --dataset_name; files have no splits")
    forget_split = arguments.request.forget_split
    if forget_split is not None and forget_split not in tofu.FORGET_SPLITS:
        raise UserError(f"--forget_split is '{forget_split}'; TOFU has {', '.join(tofu.FORGET_SPLITS)}")
    for other in ("forget_dataset", "forget_file", "forget_prompt"):
        if forget_split is not None and getattr(arguments.request, other) is not None:
            raise UserError(f"2 forget requests: --forget_split and --{other}; give exactly one of them")
    if forget_split is not None and data.dataset_name is None:
        raise UserError("--forget_split is TOFU's: say --dataset_name tofu, or name a folder of its files")
    if data.dataset_name == tofu.NAME and data.dataset_config_name is not None:
        raise UserError("--dataset_config_name: --dataset_name tofu reads the files it needs; leave it out")
    if data.max_train_rows is not None and arguments.model.model_name_or_path is not None:
        raise UserError(
            "--max_train_rows is for an original that the recipe trains; this model has seen all of its rows"
        )


def _check_files_apart(arguments: Arguments) -> None:
    """`--forget_file` and `--retain_file` together are all training rows."""
    files = {"forget_file": arguments.request.forget_file, "retain_file": arguments.data.retain_file}
    given = {name: path for name, path in files.items() if path is not None}
    if not given:
        return
    for name, path in files.items():
        if path is None and name == "retain_file" and (rows := _named_rows(arguments)):
            raise UserError(
                f"--forget_file goes with --retain_file, which holds all other rows; for rows that are among those of "
                f"--{rows} it is --forget_dataset"
            )
        if path is None:
            raise UserError(f"--{next(iter(given))} goes with --{name}: name both files")
        if not Path(path).expanduser().is_file():
            raise UserError(f"--{name}: there is no file {path}")
    if rows := _named_rows(arguments):
        raise UserError(f"--forget_file and --retain_file are all training rows; leave --{rows} out")
    if arguments.request.forget_dataset is not None:
        raise UserError("--forget_file and --forget_dataset are both a forget request; give one of them")
    if _same(*given.values()):
        raise UserError("--forget_file and --retain_file are the same file; name two")


def _named_rows(arguments: Arguments) -> str | None:
    """The argument that names training rows, where one does."""
    return next((name for name in ("dataset_name", "train_file") if getattr(arguments.data, name) is not None), None)


def _check_prompts(arguments: Arguments) -> None:
    """A request in words."""
    asked = arguments.request
    if asked.yes and not asked.forget_prompt:
        raise UserError("--yes confirms the answers to --forget_prompt; name a prompt, or leave it out")
    given = [name for name in ("forget_dataset", "forget_file") if getattr(asked, name) is not None]
    if asked.forget_prompt and given:
        raise UserError(f"--forget_prompt and --{given[0]} are both a forget request; give one of them")


def _check_training(trainer) -> None:
    """What Trainer would refuse only once it has begun."""
    if trainer.load_best_model_at_end and "no" in (trainer.eval_strategy, trainer.save_strategy):
        raise UserError("--load_best_model_at_end needs --eval_strategy and --save_strategy, the same for both")
    if trainer.load_best_model_at_end and trainer.metric_for_best_model.removeprefix("eval_") not in BEST:
        raise UserError(f"--metric_for_best_model is {trainer.metric_for_best_model}; it is one of {', '.join(BEST)}")
    check_times(trainer)
    check_optimizer(trainer)
    check_recomputing(trainer)
    if trainer.max_steps != -1 and trainer.max_steps < 1:
        raise UserError(f"--max_steps is {trainer.max_steps}; give a number above 0, or leave it out")
    check_scheduler(trainer.lr_scheduler_type, trainer.lr_scheduler_kwargs, "")
    if trainer.use_liger_kernel and importlib.util.find_spec("liger_kernel") is None:
        raise UserError("--use_liger_kernel: the package liger_kernel is not installed; pip install liger-kernel")
    if trainer.deepspeed and importlib.util.find_spec("deepspeed") is None:
        raise UserError("--deepspeed: the package deepspeed is not installed; pip install deepspeed")
    if getattr(trainer, "saliency_mask", None):
        check_file(trainer.saliency_mask)


def _check_loading(arguments: Arguments) -> None:
    """A quantized base is trained through an adapter only, and stays apart from it."""
    name, given = arguments.quantized, arguments.model.model_name_or_path
    if arguments.model.device_map and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("--device_map spreads the model of one process; start a single one, or leave it out")
    options = arguments.lora
    if options.merge_unquantized and (name is None or options.save_adapter):
        reason = "the base is not quantized" if name is None else "--save_adapter keeps the adapter apart"
        raise UserError(f"--merge_unquantized: {reason}; leave it out")
    if name is None:
        return
    if arguments.model.load_in_4bit and arguments.model.load_in_8bit:
        raise UserError("--load_in_4bit and --load_in_8bit exclude each other; give one of them")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"--{name} needs the package bitsandbytes: pip install bitsandbytes")
    if given and not arguments.lora.use_peft and not lora.is_adapter_folder(given):
        raise UserError(f"--{name}: quantized weights cannot be trained; add --use_peft, or give an adapter")
    trains_recipe = arguments.has_recipe and (given is None or arguments.recipe.retrain)
    if trains_recipe and not arguments.recipe.original_use_peft:
        raise UserError(f"--{name}: the recipe cannot train quantized weights; add --original_use_peft")
    if not options.save_adapter and not options.merge_unquantized:
        raise UserError(
            f"--{name}: an adapter cannot be merged into a quantized base; add --save_adapter, or --merge_unquantized "
            "to merge it into the base in its full width"
        )


def _check_recipe(arguments: Arguments) -> None:
    recipe = Recipe.from_arguments(arguments.recipe, arguments.model.dtype)
    check_scheduler(recipe.lr_scheduler_type, None, "original_")
    if recipe.lr_scheduler_type == "constant" and recipe.warmup_steps:
        raise UserError("--original_warmup_steps: the schedule constant has none; say constant_with_warmup")
    _check_cache(arguments)
    _check_architecture(recipe)


def _check_cache(arguments: Arguments) -> None:
    """The folder of originals and twins can be written to, and is no part of what is handed on."""
    if arguments.recipe.cache_dir:
        check_folder(Path(arguments.recipe.cache_dir), f"--cache_dir {arguments.recipe.cache_dir}")
    else:
        check_folder(default_cache_dir(), "the folder of originals and twins (HF_UNLEARN_CACHE)")
    cache = Path(arguments.recipe.cache_dir or default_cache_dir()).absolute()
    if cache.is_relative_to(Path(arguments.trainer.output_dir).absolute()):
        raise UserError("--cache_dir lies in --output_dir: originals in it remember the rows; name a folder elsewhere")


def _check_architecture(recipe: Recipe) -> None:
    from transformers import AutoConfig

    if recipe.model_type is None:
        return
    try:
        known = AutoConfig.for_model(recipe.model_type)
    except ValueError:
        close = difflib.get_close_matches(recipe.model_type, list(CONFIG_MAPPING_NAMES), n=1)
        hint = f"did you mean {close[0]}?" if close else "name an architecture of transformers, e.g. vit"
        raise UserError(f"--original_model_type {recipe.model_type} is unknown; {hint}") from None
    names = known.attribute_map
    for key, value in recipe.config_values().items():
        if key in OF_THE_DATA:
            raise UserError(f"--original_model_config: the classes come from the data; leave {key} out")
        counts_blocks = names.get(key, key) == names.get(BLOCKS, BLOCKS)
        if counts_blocks and isinstance(value, int) and value < 1:
            raise UserError(f"--original_model_config: {key} is {value}; give 1 or more")
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


def _check_output(arguments: Arguments, goes_on: bool) -> None:
    trainer, output = arguments.trainer, Path(arguments.trainer.output_dir)
    check_folder(output, f"--output_dir {output}")
    if trainer.resume_from_checkpoint is not None:
        trainer.resume_from_checkpoint = find_checkpoint(trainer.resume_from_checkpoint, output)
    elif not (goes_on or arguments.run.dry_run) and output.is_dir() and any(output.iterdir()):
        goes = ", or --resume_from_checkpoint last" if checkpoints(output) else ""
        raise UserError(f"--output_dir {output} is not empty; name a new folder{goes}")


def check_folder(folder: Path, what: str) -> None:
    """Raises `UserError` unless `folder` is one that can be written to, or can be made: it is tried, and nothing is
    left."""
    try:
        if "\0" in str(folder):
            raise ValueError("it holds a null character")
        if folder.is_symlink() and not folder.exists():
            raise UserError(f"{what} is a link to nothing; name a folder")
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    except (OSError, ValueError) as error:  # too long a name, a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{what[:60]} is no name of a folder ({reason}); choose another") from None
    if not there.is_dir():
        where = "is a file" if there == folder else f"lies below a file ({there.name})"
        raise UserError(f"{what} {where}; name a folder")
    try:  # permissions do not tell it of every file system; under a name of its own, so that runs do not meet
        os.rmdir(tempfile.mkdtemp(prefix=".hf-unlearn-", dir=there))
    except OSError as error:
        raise UserError(f"{what} cannot be written to ({error.strerror}); name another folder") from None


def _check_launch(trainer) -> None:
    """Processes and sharding that were asked for and are silently not there."""
    launched = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if launched and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise UserError(
            "several processes were asked for and one was started, as accelerate does with --cpu; start them with "
            "torchrun --nproc_per_node N, or ask for one"
        )
    check_sharding()
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if sharded and trainer.distributed_state.distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU):
        raise UserError("FSDP was asked for and is not in force: it takes several processes with an accelerator each")
