"""What users get wrong, as a table: what is given, and what the one line on stderr must say.

A case starts from a run that would work (`BASES` in test_bad_inputs.py: `text`, `digits`, …) and spoils one thing:
`config` changes keys of the YAML file (`None` takes one out), `argv` adds to the command line, `files` are written
first. In all of them DATA, MODEL, LM, PROCESSOR are folders of the suite, and HERE is the case's own.
"""

from dataclasses import dataclass, field
from typing import Any

SECRET = "xyzzy"  # stands in values of a request and in texts of rows: it must not be printed


@dataclass
class Case:
    name: str
    message: str
    config: dict[str, Any] = field(default_factory=dict)
    argv: list[str] = field(default_factory=list)
    base: str = "text"
    files: dict[str, str | bytes] = field(default_factory=dict)
    command: str = "train"
    raw: str | None = None  # the whole YAML file, in place of a base


ABOVE_0 = ("0", "-1", "nan", "inf")
NOT_BELOW_0 = ("-1", "nan", "inf")
SHARE = ("0", "-0.5", "1.5", "nan")

# Numbers that an argument cannot be. Each is refused by the argument's name before anything is loaded.
NUMBERS: dict[str, tuple[str, ...]] = {
    "learning_rate": ABOVE_0,
    "num_train_epochs": (*ABOVE_0, "1e308"),
    "proxy_epochs": ABOVE_0,
    "retrain_epochs": ABOVE_0,
    "logging_steps": ("0", "-3", "nan"),
    "save_steps": ("0", "-3", "nan"),
    "eval_steps": ("0", "-3", "nan"),
    "save_total_limit": ("0", "-1"),
    "per_device_train_batch_size": ("0", "-1"),
    "per_device_forget_batch_size": ("0", "-1"),
    "per_device_eval_batch_size": ("0", "-1"),
    "gradient_accumulation_steps": ("0", "-1"),
    "weight_decay": NOT_BELOW_0,
    "warmup_steps": NOT_BELOW_0,
    "adam_epsilon": ABOVE_0,
    "dataloader_prefetch_factor": ("0", "-2"),
    "max_grad_norm": NOT_BELOW_0,
    "adam_beta1": ("1", "2", "-0.1", "nan"),
    "adam_beta2": ("1", "2", "-0.1", "nan"),
    "seed": ("-1", "4294967296"),
    "data_seed": ("-1", "4294967296"),
    "split_seed": ("-1", "4294967296"),
    "dataloader_num_workers": ("-1",),
    "saliency": SHARE,
    "alpha": SHARE,
    "max_steps": ("0", "-3"),
    "max_length": ("0", "-1"),
    "max_train_rows": ("0", "-1"),
    "generate": ("-1",),
    "lora_r": ("0", "-1"),
    "lora_alpha": ("0", "-1"),
    "lora_dropout": ("1", "2", "-0.1", "nan"),
    "forget_fraction": ("0", "1", "-0.1", "2", "nan", "inf"),
    "retrain": ("-1",),
    "original_num_train_epochs": ABOVE_0,
    "original_learning_rate": ABOVE_0,
    "original_batch_size": ("0", "-1"),
    "original_weight_decay": NOT_BELOW_0,
    "original_warmup_steps": NOT_BELOW_0,
    "original_seed": ("-1", "4294967296"),
}

# Words where a number or a choice is needed.
WORDS = {
    "learning_rate": "fast",
    "seed": "1.5",
    "retrain": "two",
    "num_train_epochs": "1,5",
    "lora_r": "8.0",
    "use_peft": "perhaps",
    "dtype": "int8",
    "variant": "best",
    "saliency_scope": "local",
    "optim": "adamm",
    "lr_scheduler_type": "zigzag",
    "eval_strategy": "sometimes",
    "save_strategy": "often",
    "logging_strategy": "never ever",
    "original_batch_size": "many",
}

# Arguments of transformers that would be accepted and do nothing here.
WITHOUT_EFFECT = {
    "train_sampling_strategy": "group_by_length",
    "length_column_name": "size",
    "dataloader_drop_last": "true",
    "dataloader_persistent_workers": "true",
    "ignore_data_skip": "true",
    "optim_target_modules": "query",
    "label_names": "label",
    "batch_eval_metrics": "true",
    "prediction_loss_only": "true",
    "eval_accumulation_steps": "2",
    "eval_do_concat_batches": "false",
    "eval_use_gather_object": "true",
    "bf16_full_eval": "true",
    "auto_find_batch_size": "true",
    "label_smoothing_factor": "0.1",
    "hub_always_push": "true",
}


def unsir(name: str, message: str, *argv: str, base: str = "text") -> Case:
    keys = {"method": "unsir", "proxy_epochs": None, "num_train_epochs": None}
    return Case(f"unsir: {name}", message, keys, list(argv), base)


COMMAND_LINES = [
    Case("misspelled argument", "unknown argument --forget_fractoin; did you mean", argv=["--forget_fractoin", "0.1"]),
    Case("unknown argument", "unknown argument --qqqq; see --help-all", argv=["--qqqq=1"]),
    Case("argument without value", "expected one argument", argv=["--seed"]),
    Case("list without value", "expected at least one argument", argv=["--forget_where"]),
    Case("answers of a classifier", "--generate asks a language model", argv=["--generate", "2"]),
    Case("stray value", "a value follows no argument", argv=["stray"]),
    Case("a stray file", "say --config run.yaml", argv=["run.yaml"]),
    Case("an argument of others", "unknown argument --lr; it is called --learning_rate here", argv=["--lr", "1"]),
    Case("abbreviated argument", "unknown argument --forget_frac; did you mean", argv=["--forget_frac", "0.1"]),
    Case("unknown method", "did you mean nabla_tau?", argv=["--method", "nabla_tua"]),
    Case("unknown task", "unknown --task 'translation'; there are", argv=["--task", "translation"]),
    Case("unknown tracker", "carrier_pigeon is unknown", argv=["--report_to", "carrier_pigeon"]),
    Case("tracker not installed", "pip install comet_ml", argv=["--report_to", "comet_ml"]),
    Case("liger not installed", "liger", argv=["--use_liger_kernel", "true"]),
    Case("optimizer not installed", "bitsandbytes", argv=["--optim", "adamw_bnb_8bit"]),
    Case("options of the optimizer", "give key=value", argv=["--optim_args", "nonsense"]),
    Case("options that the optimizer leaves unread", "without effect with --optim adamw_torch_fused", argv=[
        "--optim_args", "momentum=0.9"]),
    Case("options of another optimizer", "without effect with --optim sgd", argv=[
        "--optim", "sgd", "--optim_args", "rank=2"]),
    Case("options of the optimizer in words", "could not convert", argv=[
        "--optim", "sgd", "--optim_args", "momentum=high"]),
    Case("options of recomputing", "torch has no 'a'; it has use_reentrant", argv=[
        "--gradient_checkpointing", "true", "--gradient_checkpointing_kwargs", '{"a": 1}']),
    Case("options of recomputing that is off", "goes with --gradient_checkpointing", argv=[
        "--gradient_checkpointing_kwargs", '{"use_reentrant": false}']),
    Case("two precisions", "refused by transformers", argv=["--bf16", "true", "--fp16", "true"]),
    Case("scheduler options", "--lr_scheduler_type linear", argv=["--lr_scheduler_kwargs", '{"a": 1}']),
    Case("scheduler options no JSON", "refused by transformers", argv=["--lr_scheduler_kwargs", "{"]),
    Case("accelerator: split batches", "split_batches", argv=["--accelerator_config", '{"split_batches": true}']),
    Case("accelerator: even batches", "even_batches", argv=["--accelerator_config", '{"even_batches": false}']),
    Case("accelerator: accumulation", "--gradient_accumulation_steps alone", argv=[
        "--accelerator_config", '{"gradient_accumulation_kwargs": {"num_steps": 4}}']),
    Case("how often nothing is saved", "--save_steps is without effect while --save_strategy is no", argv=[
        "--save_steps", "3"]),
    Case("how many of no checkpoints", "--save_total_limit is without effect", argv=["--save_total_limit", "3"]),
    Case("how often nothing is evaluated", "--eval_steps is without effect while --eval_strategy is epoch", argv=[
        "--eval_strategy", "epoch", "--eval_steps", "3"]),
    Case("adapter of the recipe", "--original_lora_r shapes an adapter", argv=["--original_lora_r", "4"]),
    Case("revision of no model", "--model_revision is that of --model_name_or_path", argv=["--model_revision", "v1"]),
    Case("warm-up of a constant rate", "the schedule constant has none", argv=[
        "--original_lr_scheduler_type", "constant", "--original_warmup_steps", "5"]),
    Case("accelerator: dispatch", "dispatch_batches", argv=["--accelerator_config", '{"dispatch_batches": true}']),
    Case("no accelerator file", "refused by transformers", argv=["--accelerator_config", "nowhere.json"]),
    Case("no deepspeed file", "deepspeed", argv=["--deepspeed", "nowhere.json"]),
    Case("a plan with batches of more rows than the original has", "--original_batch_size 64 is more than the 60 rows",
         argv=["--original_batch_size", "64", "--dry_run"]),
    Case("batches of more rows than a twin has", "--original_batch_size 50 is more than the 48 rows", argv=[
        "--original_batch_size", "50", "--retrain", "1"]),
    Case("seeds of the twins", "leaves no seeds", argv=["--original_seed", "4294967295", "--retrain", "1"]),
    Case("best without evaluation", "--load_best_model_at_end needs", argv=[
        "--load_best_model_at_end", "true", "--metric_for_best_model", "validation_loss"]),
    Case("best by test", "only the validation rows", argv=[
        "--load_best_model_at_end", "true", "--metric_for_best_model", "test_loss", "--eval_strategy", "steps",
        "--save_strategy", "steps"]),
    Case("best by a misspelled figure", "it is one of validation_loss", argv=[
        "--load_best_model_at_end", "true", "--metric_for_best_model", "validation_lost", "--eval_strategy", "steps",
        "--save_strategy", "steps"]),
    Case("pushing offline", "switched off by HF_HUB_OFFLINE", argv=["--push_to_hub", "true"]),
    Case("pushing nowhere", "is no name of a repository", argv=["--push_to_hub", "true", "--hub_model_id", "a/b/c"]),
    Case("a name without a push", "--hub_model_id is about what --push_to_hub pushes", argv=["--hub_model_id", "a/b"]),
    Case("a private repository without a push", "--hub_private_repo is about", argv=["--hub_private_repo", "true"]),
    Case("an adapter without a push", "--push_adapter goes with --push_to_hub", argv=["--push_adapter", "true"]),
    Case("pushing checkpoints", "--hub_strategy is 'end' here", argv=["--hub_strategy", "every_save"]),
    Case("adapter's rank without adapter", "--lora_r shapes an adapter", argv=["--lora_r", "4"]),
    Case("adapter's layers without adapter", "--lora_target_modules", argv=["--lora_target_modules", "query"]),
    Case("adapter's dropout that is off", "--lora_dropout is without effect while", argv=[
        "--use_peft", "true", "--lora_dropout", "0.1"]),
    Case("noise on embeddings that is off", "--neftune_noise_alpha adds noise in train mode", argv=[
        "--neftune_noise_alpha", "5"]),
    Case("adapter to save", "--save_adapter", argv=["--save_adapter", "true"]),
    Case("ids' column without ids", "--id_column is the column of --forget_ids", argv=["--id_column", "row_id"]),
    Case("two requests", "2 forget requests", argv=["--forget_fraction", "0.1", "--forget_where", f"text={SECRET}"]),
    Case("soft threshold and mask", "takes the place of the mask", argv=[
        "--method", "salun", "--soft_threshold", "0.5", "--saliency", "0.5"]),
    Case("soft threshold", "--soft_threshold is 2.0", argv=["--method", "salun", "--soft_threshold", "2"]),
    Case("true label, soft", "labels drawn alike", argv=[
        "--method", "salun", "--allow_true_label", "true", "--labels", "soft"]),
    unsir("noise rows", "--noise_rows is 0", "--noise_rows", "0"),
    unsir("noise steps", "--noise_steps is -1", "--noise_steps", "-1"),
    unsir("penalty", "--noise_penalty is -1", "--noise_penalty", "-1"),
    unsir("rate", "--impair_learning_rate is nan", "--impair_learning_rate", "nan"),
    unsir("mask", "reads no forget row", "--saliency", "0.5"),
    unsir("fp16", "--fp16", "--fp16", "true"),
    unsir("a fraction", "--forget_classes"),
    unsir("a language model", "nabla_tau", base="lm"),
    unsir("epochs", "--num_train_epochs is without effect", "--num_train_epochs", "2"),
    unsir("scheduler", "--lr_scheduler_type is without effect", "--lr_scheduler_type", "cosine"),
    unsir("warm-up", "--warmup_steps is without effect", "--warmup_steps", "5"),
    Case("no such mask", "--saliency_mask names no file", argv=["--saliency_mask", "HERE/nowhere"]),
    Case("a mask that is none", "is no saliency mask", argv=["--saliency_mask", "HERE/mask"], files={"mask": b"none"}),
    Case("patterns that match nothing", "matches no trainable parameter", argv=["--saliency_include", "*.nothing"]),
    Case("patterns that leave nothing", "leave no trainable parameter", argv=["--saliency_exclude", "*"]),
    Case("an optimizer that a mask cannot hold", "cannot hold optimizer", argv=[
        "--saliency", "0.5", "--optim", "adafactor"]),
]  # fmt: skip

YAML = [
    Case("no such file", "nowhere.yaml cannot be read", argv=["--config", "HERE/nowhere.yaml"]),
    Case("a folder", "cannot be read", argv=["--config", "HERE"]),
    Case("no text", "cannot be read", argv=["--config", "HERE/c"], files={"c": b"\xff\xfe\x00"}),
    Case("empty", "holds no", raw=""),
    Case("a list", "holds no lines of the form key: value", raw="- a\n- b\n"),
    Case("a word", "holds no", raw="nonsense"),
    Case("no YAML", "is not valid YAML (line", raw="a: [\n"),
    Case("tabs", "is not valid YAML (line", raw="a:\n\tb: 1\n"),
    Case("a key twice", "'seed' stands there twice", raw="seed: 1\nmethod: nabla_tau\nseed: 2\n"),
    Case("a key of the recipe twice", "stands there twice", raw="original:\n  model_type: vit\n  model_type: bert\n"),
    Case("the recipe twice", "are the same; keep one", raw="original_batch_size: 8\noriginal:\n  batch_size: 4\n"),
    Case("a config in a config", "a file cannot name another one", raw="config: other.yaml\n"),
    Case("a tag of Python", "is not valid YAML", raw="seed: !!python/object/apply:os.getcwd []\n"),
    Case("unknown key", "unknown key 'forget_fractoin'; did you mean forget_fraction?", config={"forget_fractoin": 1}),
    Case("unknown key of the recipe", "unknown key 'lerning_rate' in the recipe", config={
        "original": {"lerning_rate": 1}}),
    Case("a recipe that is a word", "'original' must be a block", raw="original: vit\n"),
    Case("a list for one value", "takes one value, not a list", config={"learning_rate": [1, 2]}),
    Case("an empty list", "is an empty list", config={"forget_classes": [], "forget_fraction": None}),
    Case("a block for a number", "is no number", config={"forget_fraction": {"a": 1}}),
    Case("a truth value for a number", "is no whole number", config={"seed": True}),
    Case("a word for a number", "is no number", config={"weight_decay": "little"}),
    Case("a number for a truth value", "is no true or false", config={"use_peft": 3}),
    Case("no choice", "is not one of auto, float32", config={"dtype": "int8"}),
    Case("a method that is a list", "unknown --method", config={"method": ["nabla_tau"]}),
]  # fmt: skip

PATHS = [
    Case("output is a file", "is a file; name a folder", config={"output_dir": "HERE/f"}, files={"f": "x"}),
    Case("output below a file", "lies below a file (f)", config={"output_dir": "HERE/f/out"}, files={"f": "x"}),
    Case("output is not empty", "is not empty", config={"output_dir": "HERE/d"}, files={"d/precious": "x"}),
    *(
        Case(f"output where nothing can be made, {name}", "--output_dir /proc/x cannot be written to", base=base,
             config={"output_dir": "/proc/x"}, argv=["--config", "CONFIG", *argv], command=name)
        for name, base, argv in (
            ("train", "text", []),
            ("compare", "text", ["--methods", "npo", "--retrain", "2"]),
            ("audit", "given", []),
            ("lira", "text", []),
            ("evaluate", "text", ["--unlearned_model", "MODEL"]),
        )
    ),
    Case("output has too long a name", "is no name of a folder", config={"output_dir": "HERE/" + 300 * "a"}),
    Case("output with a null character", "is no name of a folder", config={"output_dir": "HERE/a\0b"}),
    Case("output is a link to nothing", "is a link to nothing", config={"output_dir": "HERE/link"},
         files={"link": "-> nowhere"}),
    Case("cache is a file", "--cache_dir", config={"cache_dir": "HERE/f"}, files={"f": "x"}, base="digits"),
    Case("cache below a file", "lies below a file", config={"cache_dir": "HERE/f/c"}, files={"f": "x"}, base="digits"),
    Case("cache in the output", "--cache_dir lies in --output_dir", config={"cache_dir": "HERE/new/out/c"}),
    Case("no checkpoint", "no checkpoint there", config={"resume_from_checkpoint": "last"}),
    Case("no such checkpoint", "no checkpoint there", config={"resume_from_checkpoint": "HERE/checkpoint-3"}),
    Case("an empty checkpoint", "no checkpoint there", config={"resume_from_checkpoint": "HERE/checkpoint-3"},
         files={"checkpoint-3/trainer_state.json": "{}"}),
    Case("no ids file", "--forget_ids: there is no file", config={
        "forget_fraction": None, "forget_ids": "HERE/nowhere.txt", "id_column": "row_id"}),
]  # fmt: skip


def request(name: str, message: str, files: dict | None = None, base: str = "text", **keys) -> Case:
    """A request in place of the fraction."""
    return Case(name, message, {"forget_fraction": None, **keys}, files=files or {}, base=base)


def ids(name: str, message: str, file: str, content: str | bytes, column: str | None = "row_id") -> Case:
    return request(name, message, {file: content}, forget_ids=f"HERE/{file}", id_column=column)


QUESTION = '{"question": "what", "answer": "that"}'
TOFU = {f"tofu/{name}.json": QUESTION for name in ("full", "forget10", "retain_perturbed")}

REQUESTS = [
    request("nothing to forget", "nothing to forget"),
    request("unknown class", "1 of 1 --forget_classes are unknown", forget_classes=[SECRET]),
    request("one unknown class", "1 of 2 --forget_classes are unknown; nearest: w", forget_classes=["cold", "warn"]),
    request("class number beyond the last", "1 of 1 --forget_classes are unknown", forget_classes=[2]),
    request("all classes", "takes all", forget_classes=["cold", "warm"]),
    request("classes of a language model", "needs a task with classes", base="lm", forget_classes=["cold"]),
    request("a condition without =", "needs column=value", forget_where=[SECRET]),
    request("no such column", "no column 'colour'; the columns are", forget_where=[f"colour={SECRET}"]),
    request("an empty column", "no column given; the columns are", forget_where=[f"={SECRET}"]),
    request("no such value", "1 of 1 --forget_where conditions match no", forget_where=[f"text={SECRET}"]),
    request("one of two values", "1 of 2 --forget_where", forget_where=["row_id=train000", f"text={SECRET}"]),
    request("a class by value", "of the label column 'label', whole classes", forget_where=["label=warm"]),
    request("a class and a row by value", "--forget_classes, alone", forget_where=["row_id=train000", "label=warm"]),
    request("no such group", "no column 'colour'", forget_fraction=0.1, group_column="colour"),
    request("too small a share", "takes no training row", forget_fraction=0.001),
    ids("empty ids", "holds no id", "ids.txt", "\n\n"),
    ids("ids that are no text", "ids.txt is not in UTF-8", "ids.txt", b"\xff\xfe\x00x"),
    ids("ids: broken JSON", "cannot be read", "ids.json", "[1,"),
    ids("ids: JSON of another form", "one JSON list", "ids.json", '{"a": 1}'),
    ids("ids: nested JSON", "one JSON list", "ids.json", '[["a"]]'),
    ids("ids: empty JSON list", "holds no id", "ids.json", "[]"),
    ids("ids: csv without the column", "has no column 'row_id'; its columns are: key", "ids.csv", "key\n1\n"),
    ids("ids: empty csv", "has no column 'row_id'; its columns are: none", "ids.csv", ""),
    ids("ids that are not there", "1 of 2 ids in the --forget_ids file (the first: number 3) are not in column "
        "'row_id' of the training rows; take them out", "ids.txt", f"train000\ntrain000\n{SECRET}\n"),
    ids("ids of another case", "1 would be but for leading zeros, quotes, spaces or case", "ids.txt", "TRAIN000\n"),
    ids("ids in quotes", "1 would be but for leading zeros", "ids.txt", '"train000"\n'),
    ids("ids without a column", "no column given; the columns are", "ids.txt", "train000\n", None),
    ids("ids in no column", "no column 'key'; the columns are", "ids.txt", "train000\n", "key"),
    request("ids: a folder", "is a folder; name a file", forget_ids="HERE", id_column="row_id"),
    request("no such data set to forget", "no file or folder", forget_dataset="HERE/nowhere"),
    request("an unknown part of TOFU", "TOFU has forget01, forget05, forget10", forget_split="forget20",
            dataset_name="tofu"),
    request("a part of TOFU in other data", "no file full.json in", forget_split="forget10", task=None),
    request("a part of TOFU and a share", "2 forget requests", forget_split="forget10", forget_fraction=0.1, task=None,
            files=TOFU, dataset_name="HERE/tofu"),
    request("a part of TOFU and a data set", "2 forget requests", forget_split="forget10", forget_dataset="DATA"),
    request("a given model and TOFU", "no author that this model has not seen", forget_split="forget10",
            files=TOFU, base="given", dataset_name="HERE/tofu", task=None),
    request("TOFU for a classifier", "TOFU is made for causal_lm", forget_split="forget10", dataset_name="tofu"),
    request("TOFU with a configuration", "reads the files it needs", forget_split="forget10", dataset_name="tofu",
            dataset_config_name="full"),
    request("data set to forget, other columns", "must have the same columns", {
        "f/train.csv": "a,b\n1,2\n"}, forget_dataset="HERE/f"),
]  # fmt: skip


HEADER = "text,label\n"
WORDS_OF_ROWS = ("red", "blue", "cat", "dog", "owl", "old")
ROWS = "".join(f"{WORDS_OF_ROWS[i % 6]} number {i},{('cold', 'warm')[i % 2]}\n" for i in range(20))


def data(name: str, message: str, file: str = "", content: str | bytes = "", base: str = "text", **more) -> Case:
    """Another data set: one file, or none."""
    keys = {"dataset_name": f"HERE/{file}"} if file else {}
    return Case(name, message, keys | more, files={file: content} if file else {}, base=base)


DATA = [
    data("no data set", "no --dataset_name", dataset_name=None),
    data("a data set and a file", "takes the place of", train_file="DATA/train.csv"),
    data("a test file alone", "goes with --train_file", test_file="DATA/test.csv"),
    data("a split of a file", "--test_split is for --dataset_name", dataset_name=None, train_file="DATA/train.csv",
         test_split="test"),
    data("no such file", "--train_file: there is no file", dataset_name=None, train_file="HERE/nowhere.csv"),
    data("no such test file", "--test_file: there is no file", dataset_name=None, train_file="DATA/train.csv",
         test_file="HERE/nowhere.csv"),
    data("one file for two splits", "must be different files", dataset_name=None, train_file="DATA/train.csv",
         test_file="DATA/train.csv"),
    data("files with other columns", "labels of the test rows: no column 'label'", "test.csv", "text,mood\na,b\n",
         dataset_name=None, train_file="DATA/train.csv", test_file="HERE/test.csv"),
    data("a trial with a given model", "--max_train_rows is for an original", base="given", max_train_rows=10),
    data("a trial with too few rows", "too few", max_train_rows=2, dataset_name=None, train_file="DATA/train.csv"),
    data("no such folder", "no file or folder", dataset_name="HERE/nowhere"),
    data("no such relative folder", "no file or folder", dataset_name="./nowhere"),
    data("no such data set on the Hub", "nobody/nothing", dataset_name="nobody/nothing"),
    data("an empty name", "--dataset_name is empty", dataset_name=""),
    data("columns of no task", "no --task, and the columns (a, b) do not tell", "n.csv", "a,b\n1,2\n3,4\n", task=None,
         dataset_name=None, train_file="HERE/n.csv"),
    data("a model of no task", "T5ForConditionalGeneration is made for none that is known", "m/config.json",
         '{"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}', base="given", task=None,
         model_name_or_path="HERE/m"),
    data("a file to forget alone", "--forget_file goes with --retain_file: name both", forget_file="DATA/test.csv",
         dataset_name=None),
    data("a file to forget beside all rows", "among those of --dataset_name it is --forget_dataset",
         forget_file="DATA/test.csv"),
    data("a file to keep alone", "--retain_file goes with --forget_file", retain_file="DATA/train.csv"),
    data("no such file to forget", "--forget_file: there is no file", forget_file="HERE/no",
         retain_file="DATA/train.csv"),
    data("prompts for a classifier", "--forget_prompt asks a language model", forget_prompt=["who?"], base="given",
         forget_fraction=None),
    data("prompts without a model", "name it with --model_name_or_path", forget_prompt=["who?"], base="lm",
         forget_fraction=None),
    data("prompts without kept rows", "--forget_prompt: no rows to keep", forget_prompt=["who?"], dataset_name=None),
    data("prompts and a file", "are both a forget request", forget_prompt=["who?"], dataset_name=None,
         forget_file="DATA/test.csv", retain_file="DATA/train.csv"),
    data("nothing to confirm", "--yes confirms the answers to --forget_prompt", yes=True),
    data("kept rows twice", "are all training rows; leave --dataset_name out", forget_file="DATA/test.csv",
         retain_file="DATA/train.csv"),
    data("the same rows forgotten and kept", "are the same file", dataset_name=None, forget_file="DATA/train.csv",
         retain_file="DATA/../data/train.csv"),
    data("a file and a share", "2 forget requests", dataset_name=None, forget_file="DATA/test.csv",
         retain_file="DATA/train.csv"),
    data("lists of labels for a single one", "'labels' holds lists", base="sets", task="text_classification"),
    data("one label for sets of them", "'label' holds no lists", task="multilabel_text_classification"),
    data("an unknown label", "1 of 1 --forget_classes are unknown; nearest: joy", forget_classes=["joi"], base="sets",
         forget_fraction=None),
    data("a label by a number too large", "1 of 1 --forget_classes are unknown", forget_classes=["4"], base="sets",
         forget_fraction=None),
    data("a column of words as a label", "--label_columns: column 'text' of the train rows holds other values",
         label_columns=["joy", "text"], base="sets"),
    data("a single label column", "--label_columns: name two columns or more", label_columns=["joy"], base="sets"),
    data("no such column among the labels", "--label_columns: no column 'awe'", label_columns=["joy", "awe"],
         base="sets"),
    data("labels in two ways", "--label_columns takes the place of --label_column", label_columns=["joy", "fear"],
         label_column="labels", base="sets"),
    data("columns of labels for a single one", "--label_columns are for tasks with sets of labels",
         label_columns=["joy", "fear"], task="text_classification", base="sets"),
    data("a condition on lists of labels", "no row would be kept: name those with --forget_classes",
         forget_where=["labels=joy"], base="sets", forget_fraction=None),
    data("the variant of language models", "--variant tokens is for causal_lm", variant="tokens", base="sets"),
    data("unsir on sets of labels", "--method unsir forgets classes", method="unsir", base="sets", proxy_epochs=None,
         num_train_epochs=None, forget_fraction=None, forget_classes=["joy"]),
    data("other answers on sets of labels", "--method idk_dpo replaces answers", method="idk_dpo", base="sets",
         proxy_epochs=None),
    data("a list with a gap", "row 1: its labels are missing", "gap.jsonl", '{"text": "a", "labels": ["joy"]}\n'
         '{"text": "b", "labels": null}\n{"text": "c", "labels": ["awe"]}\n', base="sets"),
    data("lists of lists of labels", "'labels' holds no lists of labels", "deep.jsonl",
         '{"text": "a", "labels": [["joy"]]}\n' * 9, base="sets"),
    data("columns of labels that nobody names", "columns of zeros and ones with --label_columns", "wide.csv",
         "text,toxic,rude\na,0,1\nb,1,0\n", base="sets"),
    data("another task than the built-in one", "made for the task image_classification", task="text_classification",
         base="digits"),
    data("splits of a built-in", "--test_split", test_split="unseen", base="digits"),
    data("no such label column", "it has text, label, question, answer, row_id", label_column="colour"),
    data("no such text column", "it has text, label, question, answer, row_id", text_column="colour"),
    data("a column of another task", "text_classification has no 'image' column", image_column="text"),
    data("no such validation split", "the splits are", validation_split="dev"),
    data("no such training split", "the splits are", train_split="dev"),
    data("validation is training", "must be different splits", validation_split="train"),
    data("words asked of a classifier", "tasks with prompts", prompt_template="{question}"),
    data("a prompt without question", "has no {question}", base="lm", prompt_template="nothing"),
    data("a prompt with more fields", "{answer}", base="lm", prompt_template="{question} {answer}"),
    data("no chat template", "no chat template", base="lm", prompt_template="chat"),
    data("too long for the model", "--max_length 100 is longer than the 32 positions", max_length=100),
    data("length of an image", "--max_length", base="digits", max_length=10),
    data("an empty folder", "cannot be loaded", dataset_name="HERE"),
    data("an unknown kind of file", "known file types are .csv", "rows.xyz", "a"),
    data("an empty csv", "'rows.csv' is empty", "rows.csv", ""),
    data("a csv without rows", "'rows.csv' has no rows", "rows.csv", HEADER),
    Case("csv files with two separators", "separated by commas and semicolons; save all", {
        "dataset_name": None, "train_file": "HERE/rows.csv", "test_file": "HERE/test.csv"}, files={
        "rows.csv": HEADER + ROWS, "test.csv": (HEADER + ROWS).replace(",", ";")}),
    data("texts as labels", "holds 60 different texts in 60 training rows, so these are no labels: name another with "
         "--label_column", "rows.csv", HEADER + "".join(f"a,{SECRET} {i}\n" for i in range(60))),
    Case("a label that test rows spell otherwise", "classes without training rows: Warm; those of the training rows "
         "are cold, warm", {"dataset_name": "HERE/d"}, files={
             "d/train.csv": HEADER + ROWS, "d/test.csv": (HEADER + ROWS).replace("warm", "Warm")}),
    data("a csv with a column twice", "two columns called 'text'", "rows.csv", "text,text\na,b\n"),
    data("a csv with long rows", "3 cells in the first row", "rows.csv", HEADER + f"{SECRET},b,c\n"),
    data("a csv with one long row", "in line 3, saw 3", "rows.csv", HEADER + f"a,b\n{SECRET},b,c\n"),
    data("a csv with an open quote", "EOF inside string", "rows.csv", HEADER + f'"{SECRET},b\n'),
    data("a csv in Latin-1", "line 2 of 'rows.csv' is not in UTF-8", "rows.csv", HEADER.encode() + b"caf\xe9,b\n"),
    data("a csv without labels", "name one of the data's columns, text, mood (--label_column", "rows.csv",
         "text,mood\na,b\n"),
    data("a csv of one class", "a single class", "rows.csv", HEADER + "red,warm\nblue,warm\ncat,warm\n"),
    data("a label NA", "row 1: it has no label; NA", "rows.csv", HEADER + f"a,cold\n{SECRET},NA\n" + ROWS),
    data("an empty label", "row 1: it has no label", "rows.csv", HEADER + f"a,cold\n{SECRET},\n" + ROWS),
    data("an empty text", "row 1: it has no text", "rows.csv", HEADER + "red,cold\n,warm\n" + ROWS),
    data("a blank text", "row 1: it has no text", "rows.csv", HEADER + "red,cold\n   ,warm\n" + ROWS),
    data("fractional labels", "fractional numbers", "rows.csv", HEADER + "a,0.5\nb,1.5\n"),
    data("no rows to test on", "--test_file or --test_split", "rows.csv", HEADER + ROWS, model_name_or_path="MODEL",
         original=None),
    data("too few rows to hold some out", "too few to take test rows", "rows.csv", HEADER + "a,cold\nb,warm\n"),
    data("an empty json", "'rows.json'", "rows.json", ""),
    data("a json without rows", "'rows.json'", "rows.json", "[]"),
    data("a json that is a number", "'rows.json'", "rows.json", "3"),
    data("a broken json", "'rows.json'", "rows.json", f'[{{"text": "{SECRET}"'),
    data("an empty jsonl", "'rows.jsonl'", "rows.jsonl", ""),
    data("a broken jsonl", "line 2 of 'rows.jsonl' is not JSON", "rows.jsonl",
         f'{{"text": "a"}}\n{{"{SECRET}", oops\n'),
    data("a jsonl of lists as labels", "one label per row is needed", "rows.jsonl",
         '{"text": "a", "label": [1]}\n{"text": "b", "label": [0]}\n'),
    data("a parquet that is none", "'rows.parquet'", "rows.parquet", b"PAR1 no"),
    data("a packed csv that is not packed", "'rows.csv.gz'", "rows.csv.gz", b"plain"),
    data("plain text for a classifier", "no column found for 'label'", "rows.txt", "one\ntwo\n"),
    data("a folder that looks saved", "cannot be loaded", "d/state.json", "{}", dataset_name="HERE/d"),
    Case("an unreadable image", "its image cannot be read (00", {"dataset_name": "HERE/d"}, base="images", files={
        f"d/train/{('warm', 'cold')[i % 2]}/{i:03d}.png": b"none" for i in range(10)}),
]  # fmt: skip


def model(name: str, message: str, base: str = "given", files: dict | None = None, **keys) -> Case:
    return Case(name, message, keys, base=base, files=files or {})


BERT = '{"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 100, '
BERT += '"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}'
ADAPTER = '{"peft_type": "LORA", "base_model_name_or_path": "HERE/gone"}'
OTHERS = ADAPTER.replace("HERE/gone", "LM")[:-1] + ', "target_modules": ["query"]}'
FOUR_BITS = '{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 20, "hidden_size": 16, '
FOUR_BITS += '"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}}'


def spoiled(name: str, message: str, how: str, source: str = "MODEL", role: str = "model_name_or_path") -> Case:
    """A copy of a model or an adapter, with other weights (`spoil` in test_bad_inputs.py)."""
    keys = {"original": {"model": "HERE/m"}, "model_name_or_path": None} if role == "original" else {role: "HERE/m"}
    keys = keys if role != "reference_model" else {role: ["HERE/m"]}
    return Case(f"spoiled {source}: {name}", message, keys, base="given", files={"m": f"SPOILED {source} {how}"})


def recipe(name: str, message: str, base: str = "text", **keys) -> Case:
    return Case(f"recipe: {name}", message, {"original": keys}, base=base)


def architecture(name: str, message: str, base: str = "text", **values) -> Case:
    """A value of the architecture's configuration."""
    return Case(f"architecture: {name}", message, {"model_config": values}, base=base)


MODELS = [
    model("no model", "no model: give", model_name_or_path=None),
    model("no such folder", "no folder /nope", model_name_or_path="/nope"),
    model("no such relative folder", "no folder ./nope", model_name_or_path="./nope"),
    model("no such model on the Hub", "nobody/nothing", model_name_or_path="nobody/nothing"),
    model("a folder of checkpoints", "no config.json in it; there is one in", model_name_or_path="HERE/m", files={
        "m/checkpoint-5/config.json": "{}"}),
    model("an empty folder", "there is no config.json in it; name the folder", model_name_or_path="HERE/m",
          files={"m/other": "x"}),
    model("a file", "is a file", model_name_or_path="HERE/m", files={"m": "x"}),
    model("a configuration that is no JSON", "cannot be loaded", model_name_or_path="HERE/m", files={
        "m/config.json": "{"}),
    model("an unknown architecture", "cannot be loaded", model_name_or_path="HERE/m", files={
        "m/config.json": '{"model_type": "berta"}'}),
    model("a configuration without weights", "cannot be loaded", model_name_or_path="HERE/m",
          processor_name_or_path="PROCESSOR", files={"m/config.json": BERT}),
    model("empty weights", "cannot be loaded", model_name_or_path="HERE/m", processor_name_or_path="PROCESSOR", files={
        "m/config.json": BERT, "m/model.safetensors": b""}),
    model("torn weights", "a file of weights is cut off or damaged; copy or save it again", files={
        "m/config.json": BERT, "m/model.safetensors": b"\x10\0\0\0\0\0\0\0{\"a\": 1"},
          model_name_or_path="HERE/m", processor_name_or_path="PROCESSOR"),
    model("a hostile pickle", "cannot be loaded", model_name_or_path="HERE/m", processor_name_or_path="PROCESSOR",
          files={"m/config.json": BERT, "m/pytorch_model.bin": b"cos\nsystem\n(S'true'\ntR."}),
    model("a padding id beyond the vocabulary", "cannot be loaded", model_name_or_path="HERE/m",
          processor_name_or_path="PROCESSOR", files={
              "m/config.json": BERT[:-1] + ', "pad_token_id": 1000}', "m/model.safetensors": b""}),
    spoiled("no head", "has no trained head: BertForSequenceClassification has classifier.bias", "without:classifier"),
    spoiled("a layer is missing", "lacks 16 of the weights", "without:layer.1"),
    spoiled("more layers than counted", "has more layers than its configuration counts", "more"),
    spoiled("a head of other classes", "holds classifier.bias of shape 4 where the model has 2", "twice:classifier"),
    spoiled("no finite number", "holds what is no finite number", "nan"),
    spoiled("a base lacks a layer", "lacks 16 of the weights", "without:layer.1", role="original"),
    spoiled("a base with more layers", "has more layers than", "more", role="original"),
    spoiled("a base without a finite number", "holds what is no finite number", "nan", role="original"),
    spoiled("a reference lacks a layer", "lacks 16 of the weights", "without:layer.1", role="reference_model"),
    spoiled("a reference without a finite number", "holds what is no", "nan", role="reference_model"),
    spoiled("a layer is missing", "lacks weights that its configuration asks for, e.g. bert.encoder.layer.1",
            "without:layer.1", "ADAPTER"),
    spoiled("its head is missing", "lacks weights that its configuration asks for, e.g. classifier",
            "without:classifier", "ADAPTER"),
    spoiled("no weights", "has no weights (adapter_model.safetensors)", "without:", "ADAPTER"),
    spoiled("no finite number", "holds what is no finite number", "nan", "ADAPTER"),
    spoiled("another rank", "lora_A.default.weight has another shape there", "twice:lora_A", "ADAPTER"),
    spoiled("a head of other classes", "its head has other classes", "twice:classifier", "ADAPTER"),
    model("an unknown revision", "", model_name_or_path="nobody/nothing", model_revision="v9"),
    model("an adapter of nothing", "the base model of the adapter", model_name_or_path="HERE/m",
          processor_name_or_path="PROCESSOR", files={"m/adapter_config.json": ADAPTER}),
    model("an adapter that is no JSON", "cannot be loaded", model_name_or_path="HERE/m",
          processor_name_or_path="PROCESSOR", files={"m/adapter_config.json": "{"}),
    model("an adapter for another base", "it was made for another model", base="lm", model_name_or_path="HERE/m",
          original=None, files={"m/adapter_config.json": OTHERS, "m/adapter_model.safetensors": "not reached"}),
    model("weights in four bits, of which the package is missing", "cannot be loaded", base="lm", original=None,
          model_name_or_path="HERE/m", files={"m/config.json": FOUR_BITS}),
    model("full width without fewer bits", "the base is not quantized", use_peft=True, merge_unquantized=True),
    model("no such block", "the model has blocks 0 to 1", base="lm", method="rmu", layer=9, proxy_epochs=None),
    model("no such refusals", "--refusals", base="lm", method="idk_dpo", refusals="HERE/none.txt", proxy_epochs=None),
    model("no such processor", "no folder", processor_name_or_path="HERE/nowhere"),
    model("no such reference", "no folder ./nope", reference_model=["./nope"]),
    model("a reference of another kind", "has model_type llama, and the model that must forget bert: a twin",
          reference_model=["LM"]),
    model("a reference of another shape", "has num_hidden_layers 1, and the model that must forget 2: a twin",
          reference_model=["HERE/m"], files={"m/config.json": BERT.replace('layers": 2', 'layers": 1')}),
    model("twins from another base", "has model_type llama, and the model that must forget bert: a twin", retrain=1,
          original={"model": "LM", "num_train_epochs": 1}),
    model("a reference twice", "--reference_model names one model twice", reference_model=["LM", "LM"]),
    model("the original as reference", "--reference_model is the model that must forget", reference_model=["MODEL"]),
    model("no such base", "no folder ./nope", original={"model": "./nope"}, retrain=1),
    model("the base is the original", "--original_model is the model that must forget", original={"model": "MODEL"}),
    model("twins without a recipe", "--retrain needs the recipe", retrain=2),
    model("no such attention", "cannot be loaded", attn_implementation="attentive"),
    model("adapter on no layer", "linear layers are", use_peft=True, lora_target_modules=["nothing"]),
    model("adapter's whole layers", "the model consists of", use_peft=True, lora_modules_to_save=["nothing"]),
    recipe("a base and an architecture", "not both", model="a", model_type="bert"),
    recipe("an unknown architecture", "did you mean vit?", model_type="vitt"),
    recipe("an unknown schedule", "zigzag", model_type="bert", lr_scheduler_type="zigzag"),
    recipe("no base", "no folder ./nope", model="./nope"),
    Case("recipe: a configuration that is no JSON", "is not valid JSON", argv=["--original_model_config", "{"]),
    Case("recipe: a configuration that is a list", "must be a mapping", argv=["--original_model_config", "[1]"]),
    architecture("a misspelled value", "bert has no 'hiden_size'; did you mean hidden_size?", hiden_size=8),
    architecture("a word for a number", "'hidden_size' expected int, got str", hidden_size="sixteen"),
    architecture("sizes that do not divide", "bert", hidden_size=15),
    architecture("no width", "bert", hidden_size=0),
    architecture("a negative width", "bert", hidden_size=-16),
    architecture("no heads", "bert", num_attention_heads=0),
    architecture("a padding id beyond the vocabulary", "bert", pad_token_id=100000),
    architecture("no blocks", "num_hidden_layers is 0; give 1 or more", num_hidden_layers=0),
    architecture("fewer than no blocks", "num_hidden_layers is -1; give 1 or more", "lm", num_hidden_layers=-1),
    architecture("classes", "the classes come from the data; leave num_labels out", num_labels=5),
    architecture("names of classes", "the classes come from the data; leave id2label out", id2label={"0": "a"}),
    architecture("an unknown activation", "bert", hidden_act="wavy"),
    architecture("patches of nothing", "vit", base="digits", patch_size=0),
    architecture("a patch larger than the image", "cannot read the data's rows", base="digits", patch_size=16),
    architecture("other channels than the images", "channels", base="digits", num_channels=3),
    architecture("other size than the images", "cannot read the data's rows", base="digits", image_size=16),
    Case("no processor", "--processor_name_or_path", {"processor_name_or_path": None}),
    Case("a batch larger than the data", "--original_batch_size", argv=["--original_batch_size", "1000"]),
]  # fmt: skip


def command(name: str, message: str, *argv: str, files: dict | None = None) -> Case:
    return Case(f"{argv[0]}: {name}", message, argv=list(argv[1:]), command=argv[0], files=files or {})


SHARDED = {"run/evidence.json": 'EDIT task="causal_lm"', "run/config.json": "{}"}  # a finished run, its index apart

COMMANDS = [
    command("unknown command", "unknown command 'trian'; did you mean train?", "trian"),
    command("an argument", "unrecognized arguments", "env", "--all"),
    command("no folder", "at least one folder", "report"),
    command("no such folder", "cannot be read", "report", "HERE/nowhere"),
    command("no JSON", "is not valid JSON (line 1)", "report", "HERE/run", files={"run/evidence.json": "{"}),
    command("no text", "cannot be read", "report", "HERE/run", files={"run/evidence.json": b"\xff"}),
    command("a list", "is no evidence", "report", "HERE/run", files={"run/evidence.json": "[]"}),
    command("a stress block of another version", "make 'stress' with hf-unlearn evaluate --stress again", "report",
            "HERE/run", files={"run/evidence.json": 'EDIT stress={"protocol": {}}'}),
    command("another version", "is no evidence of this version", "report", "HERE/run", files={
        "run/evidence.json": '{"schema_version": 99}'}),
    *(
        command(f"edited: {place}", f"{place} is {what}", "report", "HERE/run", files={
            "run/evidence.json": f"EDIT {place}={value}"})
        for place, value, what in (
            ("cost.original_seconds", '"much"', '"much", not number'),
            ("models", "[]", "an array, not object"),
            ("models.original", "3", "3, not object"),
            ("gap.average", '"0.5"', '"0.5", not number'),
            ("data.splits.forget", "1.5", "1.5, not integer"),
            ("notes", '"none"', '"none", not array'),
            ("task", "null", "null, not string"),
            ("environment.packages", "[1]", "an array, not object"),
        )
    ),
    command("unknown argument", "unrecognized arguments", "report", "HERE", "--colour"),
    command("no arguments", "required", "push"),
    command("no repository", "required", "push", "HERE"),
    command("no such folder", "no folder", "push", "HERE/nowhere", "--hub_model_id", "me/it"),
    command("a bad name", "is no name of a repository", "push", "HERE", "--hub_model_id", "a/b/c"),
    command("no evidence", "cannot be read", "push", "HERE", "--hub_model_id", "me/it"),
    *(
        command(f"edited: {value}", message, "push", "HERE/run", "--hub_model_id", "me/it", files={
            "run/evidence.json": f"EDIT data.request={value}"})
        for value, message in (
            ("7", "data.request is 7, not object"),
            ('{"kind": ["ids"]}', "data.request.kind is an array, not string"),
            ('{"classes": {"3": 1}}', "data.request.classes is an object, not array"),
            (f'{{"ids": "{SECRET}"}}', "says more of the forget request"),
        )
    ),
    *(
        command(f"a weight map: {value}", "does not say which file holds which weight", "push", "HERE/run",
                "--hub_model_id", "me/it", files=SHARDED | {
                    "run/model.safetensors.index.json": f'{{"weight_map": {value}}}'})
        for value in ("7", '["a"]', '{"a": 3}', '{"a": ["b"]}')
    ),
    command("an adapter that is not there", "holds no adapter", "push", "HERE/run", "--hub_model_id", "me/it",
            "--push_adapter", files=SHARDED),
    command("shards that are not there", "holds no model that loads", "push", "HERE/run", "--hub_model_id", "me/it",
            files=SHARDED | {"run/model.safetensors.index.json": '{"weight_map": {"a": "../model.safetensors"}}'}),
    command("no model", "no --unlearned_model", "evaluate", "--config", "CONFIG"),
    command("the original itself", "is the original", "evaluate", "--config", "CONFIG", "--unlearned_model", "MODEL",
            "--model_name_or_path", "MODEL"),
    command("no such model", "no folder ./nope", "evaluate", "--config", "CONFIG", "--unlearned_model", "./nope"),
    command("a reference that is it", "names the unlearned model", "evaluate", "--config", "CONFIG",
            "--unlearned_model", "MODEL", "--reference_model", "MODEL"),
    command("answers of a classifier", "is for tasks that generate", "evaluate", "--config", "CONFIG",
            "--unlearned_model", "MODEL", "--world_facts", "HERE"),
    command("misspelled", "did you mean", "evaluate", "--config", "CONFIG", "--unlearned_modell", "MODEL"),
    command("no methods", "no --methods", "compare", "--config", "CONFIG", "--retrain", "2"),
    command("a misspelled method", "did you mean npo?", "compare", "--config", "CONFIG", "--retrain", "2", "--methods",
            "npoo"),
    command("the report of a contest", "holds a contest: open its contest.html", "report", "HERE/contest",
            files={"contest/contest.json": "{}"}),
    command("a contest without twins", "--retrain is 0", "compare", "--config", "CONFIG", "--methods", "npo"),
    command("a search of one", "--tune is 1", "compare", "--config", "CONFIG", "--methods", "npo", "--retrain", "2",
            "--tune", "1"),
    command("too few shadows", "--shadows is 2", "lira", "--config", "CONFIG", "--shadows", "2"),
    command("no targets", "--targets is 0", "lira", "--config", "CONFIG", "--targets", "0"),
    command("no sets", "--forget_sets is 0", "lira", "--config", "CONFIG", "--forget_sets", "0"),
    command("too many sets", "--forget_sets is 100000", "lira", "--config", "CONFIG", "--forget_sets", "100000"),
    command("answers in lira", "--generate is for train", "lira", "--config", "CONFIG", "--generate", "2"),
    command("a word", "invalid int value", "lira", "--config", "CONFIG", "--shadows", "many"),
    command("no recipe", "takes the recipe", "lira", "--config", "CONFIG", "--original_model_type", ""),
    command("resuming", "lira goes on by itself", "lira", "--config", "CONFIG", "--resume_from_checkpoint", "last"),
    command("adding to nothing", "cannot be read", "lira", "--config", "CONFIG", "--add_to", "HERE/nowhere"),
]  # fmt: skip

FAMILIES = {
    "command line": COMMAND_LINES,
    "yaml": YAML,
    "path": PATHS,
    "request": REQUESTS,
    "data": DATA,
    "model": MODELS,
    "command": COMMANDS,
    "number": [
        Case(f"{name} {value}", f"--{name} is ", argv=[f"--{name}", value])
        for name, values in NUMBERS.items()
        for value in values
    ],
    "word": [Case(f"{name} {value}", value, argv=[f"--{name}", value]) for name, value in WORDS.items()],
    "without effect": [
        Case(name, "cannot be used here", argv=[f"--{name}", value]) for name, value in WITHOUT_EFFECT.items()
    ],
}
CASES = {f"{family}: {case.name}": case for family, cases in FAMILIES.items() for case in cases}

# Run as processes of their own too: what is refused before anything heavy is imported, and one of each later kind.
PROCESSES = [
    *(name for name in CASES if name.startswith("yaml: ") and CASES[name].raw is not None),
    *(
        name
        for name in CASES
        if name.startswith("command: ") and CASES[name].command in ("trian", "env", "report", "push")
        if "edited" not in name and "weight map" not in name
    ),
    "command line: unknown method",
    "yaml: no such file",
    "yaml: a method that is a list",
    "number: learning_rate nan",
    "path: output below a file",
    "data: an empty label",
]
