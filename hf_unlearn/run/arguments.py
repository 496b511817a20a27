"""Everything a run can be told: dataclasses, which [`parse_arguments`](parsing.py) fills."""

from dataclasses import dataclass, field, fields
from typing import Any

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
    forget_ids: str | None = _arg(None, "File of row ids, one per line (or .json, .csv, .tsv).")
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
    original_seed: int = _arg(0, "Seed of the original; twin k uses original_seed + k, and leaves out --seed.")
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

    def twin_seed(self, k: int) -> int:
        """Of twin k, from 1 on. The run's own seed is left out: its proxy starts from that seed's fresh weights, and
        targets would be nearer to such a twin than to another."""
        first, own = self.recipe.original_seed, self.trainer.seed
        return first + k + (first < own <= first + k)


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
