"""Models and processors that were made elsewhere, from the Hub or a folder."""

from typing import Any

import torch

from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError
from hf_unlearn.models import lora
from hf_unlearn.models.by_name import Head, head_of, said_in_one_line
from hf_unlearn.models.lora import base_name
from hf_unlearn.models.places import check_place
from hf_unlearn.models.weights import load_weights
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.recipe import Recipe
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import unwrap

SHAPE = ("model_type", "hidden_size", "num_hidden_layers")  # what a twin shares with the original


def complete_recipe(arguments: Arguments) -> None:
    """Read the recipe of a given adapter from its configuration: base, rank, scale, dropout and layers.

    Only where the recipe is asked for, by `--original_use_peft` or by twins. Raises `UserError` for a recipe on
    another base than the adapter's.
    """
    name, recipe = arguments.model.model_name_or_path, arguments.recipe
    wanted = recipe.original_use_peft or recipe.retrain
    if name is None or not wanted or recipe.original_model_type:
        return
    with said_in_one_line(name):
        if not lora.is_adapter_folder(name):
            return
        found = lora.recipe_of(name)
    if recipe.original_model and not recipe.original_use_peft:
        return  # an original of other kind, described by hand
    if recipe.original_model not in (None, found["model"]):
        raise UserError(
            f"--original_model is {recipe.original_model}, but the adapter at {name} is for {found['model']}; leave "
            "--original_model out"
        )
    recipe.original_use_peft = True
    for key, value in found.items():
        setattr(recipe, f"original_{key}", value)


def load_model(arguments: Arguments, task: Task, name: str):
    """A model, or a model with its adapter. Raises `UserError` if it cannot be loaded or does not fit the data."""
    check_place(name)
    options = {"dtype": arguments.model.dtype, **load_options(arguments, name)}
    with said_in_one_line(name):
        if lora.is_adapter_folder(name):
            labels: dict[str, Any] = {"num_labels": len(task.label_names)} if task.label_names else {}
            model: Any = lora.load_adapter_model(name, task.auto_model(), **labels, **options)
        else:
            model = load_weights(task.auto_model(), name, **options)
    try:
        task.prepare_model(model)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return model


def merge_unquantized(arguments: Arguments, task: Task, model):
    """A plain model: the adapter of `model` merged into its base, which is loaded once more, in its full width."""
    name = base_name(model) or ""
    labels: dict[str, Any] = {}
    if task.label_names:
        labels = {"num_labels": len(task.label_names), "ignore_mismatched_sizes": True}
    options = load_options(arguments, name)
    for kept_from in ("quantization_config", "device_map"):
        options.pop(kept_from, None)
    with said_in_one_line(name):
        base = load_weights(task.auto_model(), name, is_base=True, dtype=arguments.model.dtype, **labels, **options)
    return lora.merge_into(base, model)


def load_options(arguments: Arguments, name: str | None = None) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained`; the revision is that of the model that must forget, and of no other."""
    model = arguments.model
    options: dict[str, Any] = {"trust_remote_code": model.trust_remote_code}
    if name is not None and name == model.model_name_or_path:
        options["revision"] = model.model_revision
    if model.attn_implementation:
        options["attn_implementation"] = model.attn_implementation
    if model.device_map:
        options["device_map"] = model.device_map
    if arguments.quantized:
        options["quantization_config"] = _quantization(model.load_in_4bit)
    return options


def _quantization(four_bits: bool):
    """As QLoRA has it (arXiv 2305.14314): nf4, its constants quantized too, products in bfloat16."""
    from transformers import BitsAndBytesConfig

    if not four_bits:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype="bfloat16",
    )


def placed(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """`model` on `device`, unless it was loaded to where it must stay: quantized, or spread over devices."""
    inner = unwrap(model)
    if getattr(inner, "is_quantized", False) or getattr(inner, "hf_device_map", None):
        return model
    return model.to(device)


def check_exists(arguments: Arguments, name: str, task_class: type[Task] = Task, like: Any = None) -> None:
    """Raises `UserError` if there is no model of this name, or one of another shape than the model `like`; reads its
    configuration only."""
    check_place(name)
    with said_in_one_line(name):
        if lora.is_adapter_folder(name):
            return
        config = _load_config(arguments, name, task_class)
    own = getattr(unwrap(like), "config", None)
    for part in SHAPE if hasattr(own, "model_type") and hasattr(config, "model_type") else ():
        wanted, found = getattr(own, part, None), getattr(config, part, None)
        if wanted != found:
            raise UserError(
                f"{name} has {part} {found}, and the model that must forget {wanted}: a twin is made as that was, "
                "from the same base"
            )


def load_label2id(arguments: Arguments, task_class: type[Task] = Task) -> dict[str, int] | None:
    """The classes of the given model; none are known of an adapter's. `None` where no model is given."""
    name = arguments.model.model_name_or_path
    if name is None:
        return None
    with said_in_one_line(name):
        return {} if lora.is_adapter_folder(name) else _load_config(arguments, name, task_class).label2id


def head_of_given(arguments: Arguments) -> Head | None:
    """What the model that must forget is made for; `None` where none is given. Raises `UserError`."""
    name = arguments.model.model_name_or_path
    return None if name is None else head_of(name, **_config_options(arguments, name))


def load_processor(arguments: Arguments, source: Source, task_class: type[Task]):
    """The tokenizer or image processor: the one named, or that of the given model, of the recipe's base, or of the
    built-in data. Raises `UserError` if there is none."""
    model = arguments.model
    named = model.processor_name_or_path
    name = named or model.model_name_or_path or arguments.recipe.original_model
    if name is not None:
        options: dict[str, Any] = {"trust_remote_code": model.trust_remote_code}
        if name == model.model_name_or_path:
            options["revision"] = model.model_revision
        with said_in_one_line(name):
            if not named and lora.is_adapter_folder(name):
                return _adapters_processor(name, task_class, options)
            return task_class.load_processor(name, **options)
    if source.make_processor is None or source.task != task_class.name:
        made = task_class.processor_for(get_recipe(arguments).config_values())
        if made is not None:
            return made
        raise UserError(
            "a model from scratch needs a tokenizer or image processor: name one with --processor_name_or_path, or a "
            "base model with --original_model (built-in data sets bring their own)"
        )
    return source.make_processor()


def get_recipe(arguments: Arguments) -> Recipe:
    """The recipe that the arguments describe. Raises `UserError` where they contradict each other."""
    return Recipe.from_arguments(arguments.recipe, arguments.model.dtype)


def build_original(arguments: Arguments, recipe: Recipe, task: Task, seed: int):
    """The recipe's model before its first step. Raises `UserError` if it cannot be made."""
    with said_in_one_line(recipe.model or str(recipe.model_type)):
        return recipe.build_model(task, seed, **(load_options(arguments) if recipe.model else {}))


def build_start(arguments: Arguments, task: Task, seed: int):
    """The same with the adapter that the recipe trains, where it trains one, in the form in which it will come: none
    of its weights are all 0, as B of a fresh one is, and its frozen copy stands beside it."""
    recipe = get_recipe(arguments)
    model = recipe.add_adapter(build_original(arguments, recipe, task, seed), task)
    if recipe.use_peft:
        for weight in model.parameters():
            if weight.requires_grad and not weight.any():
                torch.nn.init.constant_(weight, 1e-3)
        lora.add_reference_adapter(model)
    return model


def _load_config(arguments: Arguments, name: str, task_class: type[Task] = Task):
    return task_class.load_config(name, **_config_options(arguments, name))


def _config_options(arguments: Arguments, name: str) -> dict[str, Any]:
    """Those of [`load_options`] that are not of weights."""
    options = load_options(arguments, name)
    return {k: v for k, v in options.items() if k not in ("attn_implementation", "device_map", "quantization_config")}


def _adapters_processor(name: str, task_class: type[Task], options: dict[str, Any]):
    """An adapter's own processor, or, where it was saved without one, that of its base."""
    from peft import PeftConfig

    try:
        return task_class.load_processor(name, **options)
    except UserError:
        base = PeftConfig.from_pretrained(name, revision=options.pop("revision")).base_model_name_or_path
        return task_class.load_processor(base, **options)
