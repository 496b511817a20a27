"""Everything a run can be told: dataclasses, filled from the command line and from a YAML file of defaults."""

import argparse
import difflib
import json
import sys
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

from hf_unlearn.errors import UserError

DTYPES = ["auto", "float32", "bfloat16", "float16", "float64"]


def _arg(default, help: str, **metadata):
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default, metadata={"help": help, **metadata})
    return field(default=default, metadata={"help": help, **metadata})


@dataclass
class RunArguments:
    """What to run."""

    _argument_group_name = "what to run"

    method: str = _arg("nabla_tau", "Unlearning method: a name, or module:Class.")
    config: str | None = _arg(None, "YAML file; its values are defaults, the command line overrides them.")
    dry_run: bool = _arg(False, "Resolve everything, print the splits and the plan, train nothing, write nothing.")


@dataclass
class ModelArguments:
    """The model that must forget. Without one, the recipe (`original_*`) trains it first."""

    _argument_group_name = "the model that must forget"

    model_name_or_path: str | None = _arg(None, "Hub name or folder of the model that must forget, or of its adapter.")
    model_revision: str = _arg("main", "Revision on the Hub.")
    processor_name_or_path: str | None = _arg(
        None, "Hub name or folder of the tokenizer or image processor (default: the model's, or the built-in data's)."
    )
    dtype: str = _arg("float32", "Type of the weights as they are loaded.", choices=DTYPES)
    attn_implementation: str | None = _arg(None, "Attention kernel, e.g. sdpa, eager, flash_attention_2.")
    trust_remote_code: bool = _arg(False, "Run code that comes with the model. Only for repositories you trust.")


@dataclass
class DataArguments:
    """The rows."""

    _argument_group_name = "the rows"

    dataset_name: str | None = _arg(
        None, "Built-in (digits, docstrings, fictitious_authors), Hub name, or local folder or file."
    )
    dataset_config_name: str | None = _arg(None, "Configuration of a Hub data set.")
    task: str | None = _arg(
        None, "image_classification, text_classification, causal_lm or module:Class (built-ins know theirs)."
    )
    train_split: str = _arg("train", "Split that the model was trained on.")
    validation_split: str | None = _arg(None, "Unseen rows that measure τ and steer (default: the usual names).")
    test_split: str | None = _arg(None, "Unseen rows that only report (default: the usual names).")
    split_seed: int | None = _arg(
        None, "Decides which rows are held out where the data has no such split (default: --original_seed)."
    )
    image_column: str | None = _arg(None, "Column with the image.")
    text_column: str | None = _arg(None, "Column with the text.")
    text_pair_column: str | None = _arg(None, "Column with the second text of a pair.")
    label_column: str | None = _arg(None, "Column with the label.")
    question_column: str | None = _arg(None, "Column with the question or prompt.")
    answer_column: str | None = _arg(None, "Column with the answer or completion.")
    context_column: str | None = _arg(None, "Column with a text that is put after the question.")
    messages_column: str | None = _arg(None, "Column with chat messages.")
    prompt_template: str | None = _arg(
        None, "How a question becomes a prompt, with {question} in it; or 'chat' for the tokenizer's chat template."
    )
    max_length: int | None = _arg(None, "Longest sequence in tokens (default: the tokenizer's, at most 512).")
    cache_rows: bool = _arg(True, "Keep encoded rows in memory.")

    @property
    def columns(self) -> dict[str, str]:
        """Columns that were named, by their role."""
        ending = "_column"
        named = {f.name.removesuffix(ending): getattr(self, f.name) for f in fields(self) if f.name.endswith(ending)}
        return {role: column for role, column in named.items() if column}


@dataclass
class RequestArguments:
    """What must be forgotten: exactly one of these. It stays on this machine."""

    _argument_group_name = "the forget request"

    forget_classes: list[str] | None = _arg(None, "Classes, by name or id.", nargs="+")
    forget_fraction: float | None = _arg(None, "Share of the training rows, drawn with --seed.")
    group_column: str | None = _arg(None, "With --forget_fraction: draw a share of this column's values instead.")
    forget_ids: str | None = _arg(None, "File of row ids, one per line (or .json, or .csv).")
    id_column: str | None = _arg(None, "Column that holds the ids.")
    forget_where: list[str] | None = _arg(None, "column=value; several mean any of them.", nargs="+")
    forget_dataset: str | None = _arg(None, "A data set of its own that must be forgotten; --dataset_name is kept.")
    forget_duplicates: bool = _arg(False, "Also forget retained rows that repeat a forgotten one.")
    near_duplicates: bool = _arg(
        False, "Also look for retained rows that nearly repeat a forgotten one (one more pass over the data)."
    )
    publish_request: bool = _arg(False, "Name the forgotten classes in the evidence and the card.")


@dataclass
class LoraArguments:
    """Train a low-rank adapter instead of all weights."""

    _argument_group_name = "low-rank adapters"

    use_peft: bool = _arg(False, "Unlearn through a LoRA adapter.")
    lora_r: int = _arg(8, "Rank.")
    lora_alpha: int = _arg(16, "Scale, over the rank.")
    lora_dropout: float = _arg(0.0, "Dropout on the adapter's input.")
    lora_target_modules: list[str] | None = _arg(
        None, "Names of the layers to adapt (default: the backbone's linear layers).", nargs="+"
    )
    lora_modules_to_save: list[str] | None = _arg(
        None, "Names of layers trained whole (default: the classification head).", nargs="+"
    )
    save_adapter: bool = _arg(
        False, "Save the adapter instead of merged weights. Whoever switches it off gets the forgotten rows back."
    )
    push_adapter: bool = _arg(False, "With --push_to_hub and --save_adapter: push that adapter all the same.")


@dataclass
class RecipeArguments:
    """How the original was made. It makes the original when no model is given, and the retrained twins."""

    _argument_group_name = "the recipe of the original and its retrained twins"

    original_model: str | None = _arg(None, "Base model that the original was fine-tuned from.")
    original_model_type: str | None = _arg(None, "Architecture to train from scratch instead, e.g. vit, bert, llama.")
    original_model_config: str | None = _arg(
        None, "Configuration values of that architecture: a YAML block, or JSON on the command line."
    )
    original_num_train_epochs: float = _arg(3.0, "Epochs.")
    original_learning_rate: float = _arg(5e-5, "Peak learning rate of AdamW.")
    original_batch_size: int = _arg(64, "Rows per step over all processes; a smaller last batch is dropped.")
    original_lr_scheduler_type: str = _arg("linear", "Learning-rate schedule.")
    original_warmup_steps: float = _arg(0, "Warm-up: steps, or a share of all steps if below 1.")
    original_weight_decay: float = _arg(0.0, "Weight decay.")
    original_seed: int = _arg(0, "Seed of the original; twin k uses original_seed + k.")
    retrain: int = _arg(0, "Retrain so many twins without the forgotten rows, to compare with.")
    reference_model: list[str] | None = _arg(None, "Retrained models made elsewhere, to compare with.", nargs="+")
    cache_dir: str | None = _arg(None, "Where originals and twins are kept (default: the user's cache folder).")


@dataclass
class Arguments:
    """All groups of one run. `trainer` is the method's own config, a `TrainingArguments`."""

    run: RunArguments
    model: ModelArguments
    data: DataArguments
    request: RequestArguments
    lora: LoraArguments
    recipe: RecipeArguments
    trainer: Any

    @property
    def has_recipe(self) -> bool:
        return bool(self.recipe.original_model or self.recipe.original_model_type)

    @property
    def split_seed(self) -> int:
        """By the recipe's seed, so that one original serves every request and every seed of the unlearning."""
        return self.recipe.original_seed if self.data.split_seed is None else self.data.split_seed


_GROUPS = (RunArguments, ModelArguments, DataArguments, RequestArguments, LoraArguments, RecipeArguments)


def parse_arguments(argv: list[str] | None = None) -> Arguments:
    """Parse a command line.

    Raises:
        `UserError`: an unknown key (the nearest known one is named), a value of the wrong type or that
            `TrainingArguments` refuses, an unreadable file.
    """
    from hf_unlearn.methods import get_method

    argv = sys.argv[1:] if argv is None else list(argv)
    first = _Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.add_argument("--method")
    first.add_argument("--task")
    early, _ = first.parse_known_args(argv)
    values = _read_yaml(early.config) if early.config else {}
    method = get_method(str(early.method or values.get("method") or RunArguments.method))

    task = early.task or values.get("task")
    parser = _build_parser(method.config_class, _data_arguments(task and str(task)))
    known = {action.dest for action in parser._actions} - {"help"}
    for key in values:
        if key not in known:
            raise UserError(_unknown(early.config, key, known))
    _set_defaults(parser, values, early.config)
    try:
        *groups, rest = parser.parse_args_into_dataclasses(
            argv, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, TypeError, ImportError, OSError) as error:  # what TrainingArguments raises for its fields
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"the arguments are refused by transformers: {reason}") from None
    for word in rest:
        if word.startswith("--"):
            key = word[2:].split("=")[0].replace("-", "_")
            raise UserError(f"unknown argument --{key}{_nearest(key, known, '--')}")
    if rest:
        raise UserError("a value follows no argument; put an argument's name before it")
    *groups, trainer = groups
    return Arguments(*groups, trainer)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(" ".join(message.split()))


def _data_arguments(task: str | None) -> type[DataArguments]:
    """`DataArguments`, with a `--<role>_column` for each role of the task that has none there."""
    from hf_unlearn.tasks import get_task

    known = {f.name for f in fields(DataArguments)}
    roles = [role for role in get_task(task).roles if f"{role}_column" not in known] if task else []
    more = [(f"{role}_column", str | None, _arg(None, f"Column with the {role}.")) for role in roles]
    return make_dataclass("DataArguments", more, bases=(DataArguments,)) if more else DataArguments


def _build_parser(config_class, data_arguments):
    from transformers import HfArgumentParser

    class Parser(_Parser, HfArgumentParser):
        """Errors as one line instead of a page of usage."""

    groups = [data_arguments if group is DataArguments else group for group in _GROUPS]
    taken = {f.name for group in groups for f in fields(group)}
    clash = [f.name for f in fields(config_class) if f.name in taken]
    if clash:
        raise UserError(f"{config_class.__name__} has a field '{clash[0]}', an argument of every run; rename it")
    parser = Parser(
        (*groups, config_class),
        prog="hf-unlearn train",
        usage="hf-unlearn train [--config FILE] [--argument value ...]",
        description="Values of the YAML file are defaults; the command line overrides them. Defaults of the training "
        f"arguments, at the end, are those of {config_class.__name__}.",
        allow_abbrev=False,
    )
    for action in parser._actions:
        if action.dest == "report_to":  # several trackers; HfArgumentParser sees a single string
            action.nargs = "+"
    return parser


def _read_yaml(path: str) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"--config {path} is no text file") from None
    except yaml.YAMLError as error:
        raise UserError(f"--config {path} is not valid YAML{_line_of(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"--config {path} holds no `key: value` lines")
    original = values.pop("original", None) or {}
    if not isinstance(original, dict):
        raise UserError(f"--config {path}: 'original' must be a block of keys")
    values = {str(key): value for key, value in values.items()}
    return {**values, **{f"original_{key}": value for key, value in original.items()}}


def _line_of(error) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1}: {error.problem})" if mark else ""


def _set_defaults(parser, values: dict[str, Any], path: str | None) -> None:
    """YAML values as argparse defaults, checked and typed as if they had been typed on the command line."""
    done = set()
    for action in parser._actions:  # `--no_x` shares the name of `--x`, which comes first
        key = action.dest
        if key in done or values.get(key) is None:  # an empty value leaves the default
            continue
        done.add(key)
        value = values[key]
        if isinstance(value, list) and action.nargs not in ("+", "*"):
            raise UserError(f"{path}: '{key}' takes one value, not a list")
        items = [_typed(item, action, path) for item in (value if isinstance(value, list) else [value])]
        if not items:
            raise UserError(f"{path}: '{key}' is an empty list; leave the key out")
        parser.set_defaults(**{key: items if action.nargs in ("+", "*") else items[0]})
        action.required = False


_KINDS = {"int": "whole number", "float": "number", "string_to_bool": "true or false"}


def _typed(value: Any, action: argparse.Action, path: str | None) -> Any:
    if value is False and action.dest.endswith("_strategy"):
        value = "no"  # an unquoted `no` is a boolean in YAML
    text = json.dumps(value) if isinstance(value, (dict, list)) else str(value)
    kind = getattr(action.type, "__name__", "value")
    try:
        if isinstance(value, (dict, list)) and kind in _KINDS:
            raise TypeError
        typed = action.type(text) if action.type is not None else value
    except (TypeError, ValueError, argparse.ArgumentTypeError):
        raise UserError(f"{path}: the value of '{action.dest}' is no {_KINDS.get(kind, 'valid ' + kind)}") from None
    if action.choices and typed not in action.choices:
        raise UserError(f"{path}: '{action.dest}: {text}' is not one of {', '.join(map(str, action.choices))}")
    return typed


def _unknown(path: str | None, key: str, known: set[str]) -> str:
    if not key.startswith("original_"):
        return f"{path}: unknown key '{key}'{_nearest(key, known)}"
    inner = {name.removeprefix("original_") for name in known if name.startswith("original_")}
    key = key.removeprefix("original_")
    return f"{path}: unknown key '{key}' in the recipe (original){_nearest(key, inner)}"


def _nearest(key: str, known: set[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else "; see --help for the known ones"
