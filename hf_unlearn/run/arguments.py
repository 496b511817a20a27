"""Everything a run can be told: dataclasses, filled from the command line and from a YAML file of defaults."""

import os
import sys
from argparse import Namespace
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any

from hf_unlearn.errors import UserError, in_one_line
from hf_unlearn.exits import nearest
from hf_unlearn.run.config_file import read_config, set_defaults
from hf_unlearn.run.line_parser import LineParser, describe_negations
from hf_unlearn.run.short_help import short_help

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
    generate: int = _arg(
        0,
        "causal_lm: show what original, unlearned model and twins answer to so many forgotten, kept and general "
        "questions, on the screen and in answers.html, which stays here. image_generation: so many images of each "
        "class, and what a classifier sees in them.",
    )
    stress: bool = _arg(
        False,
        "Also fine-tune and quantize the models, twins too: does what was forgotten come back? (minutes; room for two "
        "more copies of the model)",
    )
    stress_protocol: str = _arg(
        "ours",
        "With --stress, how models are fine-tuned: ours (20 steps at a rate that the original survives), wmdp (15 at "
        "1e-5) or muse (150 at 1e-5, 4 rows each).",
        choices=["ours", "wmdp", "muse"],
    )
    quiet: bool = _arg(False, "Say nothing but the result and mistakes.")
    json: bool = _arg(False, "Print the evidence (of a dry run the plan) as JSON, and nothing else.")


@dataclass
class ModelArguments:
    """The model that must forget. Without one, the recipe (`original_*`) trains it first."""

    _argument_group_name = "the model that must forget"

    model_name_or_path: str | None = _arg(None, "Hub name or folder of the model that must forget, or of its adapter.")
    base_model: str | None = _arg(
        None, "What it was fine-tuned from, where no recipe says so (default: what its adapter or its card names)."
    )
    model_revision: str = _arg("main", "Revision on the Hub.")
    processor_name_or_path: str | None = _arg(
        None, "Hub name or folder of the tokenizer or image processor (default: the model's, or the built-in data's)."
    )
    dtype: str = _arg("float32", "Type of the weights as they are loaded.", choices=DTYPES)
    load_in_4bit: bool = _arg(False, "Load the base in 4 bits (bitsandbytes, nf4), to unlearn through an adapter.")
    load_in_8bit: bool = _arg(False, "Load the base in 8 bits (bitsandbytes), to unlearn through an adapter.")
    device_map: str | None = _arg(None, "Where layers go: auto spreads a model over the devices of one process.")
    attn_implementation: str | None = _arg(None, "Attention kernel, e.g. sdpa, eager, flash_attention_2.")
    trust_remote_code: bool = _arg(False, "Run code that comes with the model. Only for repositories you trust.")


@dataclass
class DataArguments:
    """The rows."""

    _argument_group_name = "the rows"

    dataset_name: str | None = _arg(
        None, "Built-in (digits, docstrings, fictitious_authors, invented_authors), tofu, Hub name, folder or file."
    )
    train_file: str | None = _arg(
        None, "Instead of --dataset_name: a file of the rows that the model was trained on (csv, tsv, json, parquet)."
    )
    retain_file: str | None = _arg(
        None, "Beside --forget_file: the rest of what the model was trained on, in a file of its own, as in TOFU."
    )
    validation_file: str | None = _arg(None, "Beside --train_file: unseen rows that measure τ and steer.")
    test_file: str | None = _arg(None, "Beside --train_file: unseen rows that only report.")
    max_train_rows: int | None = _arg(
        None, "A trial: so many of the training rows, drawn with the split's seed; for an original of the recipe."
    )
    dataset_config_name: str | None = _arg(None, "Configuration of a Hub data set.")
    task: str | None = _arg(
        None,
        "image_classification, text_classification, multilabel_text_classification, causal_lm or module:Class "
        "(default: the model's head tells, without a model the columns).",
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
    label_columns: list[str] | None = _arg(
        None,
        "Columns of zeros and ones, one for each label that a row may have (multilabel_text_classification).",
        nargs="+",
    )
    question_column: str | None = _arg(None, "Column with the question or prompt.")
    answer_column: str | None = _arg(None, "Column with the answer or completion.")
    context_column: str | None = _arg(None, "Column with a text that is put after the question.")
    messages_column: str | None = _arg(None, "Column with chat messages.")
    prompt_template: str | None = _arg(
        None, "How a question becomes a prompt, with {question} in it; or 'chat', which is the default of chat models."
    )
    supervise: str = _arg("all", "Which answers of a chat are learned and forgotten.", choices=["all", "last"])
    max_length: int | None = _arg(
        None, "Longest sequence in tokens (default: what the model takes); longer running text is read in parts."
    )
    cache_rows: bool = _arg(True, "Keep encoded rows: 256 MB in memory, more in a file.")

    @property
    def columns(self) -> dict[str, Any]:
        """Columns that were named, by their role: one, or a list."""
        ending = "_column"
        named = {f.name.removesuffix(ending): getattr(self, f.name) for f in fields(self) if f.name.endswith(ending)}
        named["label"] = self.label_columns or named["label"]
        return {role: column for role, column in named.items() if column}


@dataclass
class RequestArguments:
    """What must be forgotten: exactly one of these. It stays on this machine."""

    _argument_group_name = "the forget request"

    forget_classes: list[str] | None = _arg(
        None, "Classes, by name or id; where rows have several labels, every row that has one of these.", nargs="+"
    )
    forget_fraction: float | None = _arg(None, "Share of the training rows, drawn with --seed.")
    group_column: str | None = _arg(None, "With --forget_fraction: draw a share of this column's values instead.")
    forget_ids: str | None = _arg(None, "File of row ids, one per line (or .json, or .csv).")
    id_column: str | None = _arg(None, "Column that holds the ids.")
    forget_where: list[str] | None = _arg(None, "column=value; several mean any of them.", nargs="+")
    forget_split: str | None = _arg(
        None, "TOFU's forget01, forget05 or forget10; --dataset_name is tofu, or a folder of its official files."
    )
    forget_dataset: str | None = _arg(None, "A data set of its own that must be forgotten; --dataset_name is kept.")
    forget_file: str | None = _arg(None, "A file of the rows that must be forgotten; --retain_file is kept.")
    forget_prompt: list[str] | None = _arg(
        None, "causal_lm: prompts; what the model answers to them must be forgotten. Shown first.", nargs="+"
    )
    yes: bool = _arg(False, "With --forget_prompt: the answers that were shown are what is meant; do not ask.")
    forget_duplicates: bool = _arg(False, "Also forget retained rows that repeat a forgotten one.")
    near_duplicates: bool = _arg(
        False, "Also look for rows that nearly repeat one of the request (one more pass over the data)."
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
    merge_unquantized: bool = _arg(
        False, "Instead, after --load_in_4bit or --load_in_8bit: merge the adapter into the base in its full width."
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
    original_gradient_accumulation_steps: int = _arg(1, "Parts that a step's rows are run in.")
    original_gradient_checkpointing: bool = _arg(False, "Recompute activations to save memory.")
    original_bf16: bool = _arg(False, "Mixed precision: bfloat16 over float32 weights.")
    original_use_peft: bool = _arg(False, "The recipe trains a LoRA adapter on the base; so do its twins.")
    original_lora_r: int = _arg(8, "Rank.")
    original_lora_alpha: int = _arg(16, "Scale, over the rank.")
    original_lora_dropout: float = _arg(0.0, "Dropout on the adapter's input.")
    original_lora_target_modules: list[str] | None = _arg(
        None, "Names of the layers to adapt (default: the backbone's linear layers).", nargs="+"
    )
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
    def quantized(self) -> str | None:
        """The argument that has the base quantized."""
        return next((name for name in ("load_in_4bit", "load_in_8bit") if getattr(self.model, name)), None)

    @property
    def has_recipe(self) -> bool:
        return bool(self.recipe.original_model or self.recipe.original_model_type)

    @property
    def split_seed(self) -> int:
        """By the recipe's seed, so that one original serves every request and every seed of the unlearning."""
        return self.recipe.original_seed if self.data.split_seed is None else self.data.split_seed


GROUPS = (RunArguments, ModelArguments, DataArguments, RequestArguments, LoraArguments, RecipeArguments)


REQUESTS = (
    "forget_classes",
    "forget_fraction",
    "forget_ids",
    "forget_where",
    "forget_split",
    "forget_dataset",
    "forget_file",
    "forget_prompt",
)
PLACES = (
    "model_name_or_path",
    "processor_name_or_path",
    "base_model",
    "original_model",
    "reference_model",
    "cache_dir",
    "resume_from_checkpoint",
    "saliency_mask",
)
BESIDE_REQUEST = ("group_column", "id_column")  # belong to one kind of request
OTHER_ROWS = {  # ways to name rows, and what each takes the place of
    "dataset_name": ("train_file", "validation_file", "test_file", "retain_file"),
    "train_file": ("dataset_name", "dataset_config_name", "validation_split", "test_split", "retain_file"),
    "retain_file": ("dataset_name", "dataset_config_name", "validation_split", "test_split", "train_file"),
}


def parse_arguments(argv: list[str] | None = None, *, values: dict[str, Any] | None = None) -> Arguments:
    """Parse a command line.

    Args:
        values: keys and values in place of what the file of `--config` holds.

    Raises:
        `UserError`: an unknown key (the nearest known one is named), a value of the wrong type, out of its range or
            that `TrainingArguments` refuses, an unreadable file.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(argv):  # before anything heavy is imported
        print(short_help(GROUPS))
        raise SystemExit(0)

    from hf_unlearn.methods import get_method

    first = LineParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.add_argument("--method")
    first.add_argument("--task")
    early, _ = first.parse_known_args(argv)
    if values is None:
        values = read_config(early.config) if early.config else {}
    method = get_method(str(early.method or values.get("method") or RunArguments.method))

    task = early.task or values.get("task")
    data_arguments = _data_arguments(task and str(task))
    parser = _build_parser(method.config_class, data_arguments)
    if values:
        set_defaults(parser, _without_overridden(values, argv), early.config or "the given values")
    namespace, rest = parser.parse_known_args(argv)
    known = {action.dest for action in parser._actions}
    for word in rest:
        if word.startswith("--"):
            key = word[2:].split("=")[0].replace("-", "_")
            raise UserError(f"unknown argument --{key}{nearest(key, known, '--')}")
    if rest:
        files = [f"say --config {word}" for word in rest if word.endswith((".yaml", ".yml"))]
        raise UserError(f"a value follows no argument; {[*files, 'put the name of an argument before it'][0]}")
    return _arguments(namespace, data_arguments, method.config_class)


def _arguments(namespace: Namespace, data_arguments: type, config_class: type) -> Arguments:
    """The groups, filled from parsed values. Raises `UserError` for values that make no sense."""
    from hf_unlearn.trainers.ranges import check_ranges

    check_ranges(vars(namespace))
    for name in PLACES:  # a file's ~ is no shell's, and reaches us as it is
        setattr(namespace, name, _at_home(getattr(namespace, name, None)))

    def fill(group: type):
        return group(**{f.name: getattr(namespace, f.name) for f in fields(group) if f.init})

    run, model, data, request, lora, recipe = (
        fill(data_arguments if group is DataArguments else group) for group in GROUPS
    )
    try:
        trainer = fill(config_class)
    except (ValueError, TypeError, ImportError, OSError, AttributeError, KeyError) as error:  # from TrainingArguments
        raise UserError(f"the arguments are refused by transformers: {in_one_line(error)}") from None
    return Arguments(run, model, data, request, lora, recipe, trainer)


def _at_home(place: Any) -> Any:
    """A path, or a list of paths, with the user's folder in the place of its ~."""
    if isinstance(place, list):
        return [_at_home(each) for each in place]
    return os.path.expanduser(place) if isinstance(place, str) else place


def _without_overridden(values: dict[str, Any], argv: list[str]) -> dict[str, Any]:
    """The values of a file; its request, and its rows, only where the command line has no others."""
    named = {word[2:].split("=")[0].replace("-", "_") for word in argv if word.startswith("--")}
    gone = {other for way in named & set(OTHER_ROWS) for other in OTHER_ROWS[way]}
    if named & set(REQUESTS):
        gone |= set(REQUESTS + BESIDE_REQUEST)
    return {key: value for key, value in values.items() if key not in gone}


def _data_arguments(task: str | None) -> type[DataArguments]:
    """`DataArguments`, with a `--<role>_column` for each role of the task that has none there."""
    from hf_unlearn.tasks import get_task

    known = {f.name for f in fields(DataArguments)}
    roles = [role for role in get_task(task).roles if f"{role}_column" not in known] if task else []
    more = [(f"{role}_column", str | None, _arg(None, f"Column with the {role}.")) for role in roles]
    return make_dataclass("DataArguments", more, bases=(DataArguments,)) if more else DataArguments


def _build_parser(config_class, data_arguments):
    from transformers import HfArgumentParser

    class Parser(LineParser, HfArgumentParser):
        """Errors as one line instead of a page of usage."""

    groups: list[Any] = [data_arguments if group is DataArguments else group for group in GROUPS]
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
        add_help=False,
    )
    parser.add_argument("--help-all", action="help", help="Show this and leave; --help shows what most runs take.")
    describe_negations(parser)
    for action in parser._actions:
        if action.dest == "report_to":  # several trackers; HfArgumentParser sees a single string
            action.nargs = "+"
    return parser
