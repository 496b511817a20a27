"""`train --help`: what most runs take, on one screen, without waiting for transformers. `--help-all` has the rest."""

import textwrap
from dataclasses import fields

WIDTH = 100
NAMES = 29  # characters of the column of names
# Groups of arguments, as they are shown. Texts are those of the fields, unless a shorter or a missing one stands here.
EVERYDAY: dict[str, dict[str, str]] = {
    "run": {
        "config": "YAML file of defaults; the command line overrides them",
        "method": "nabla_tau (default), salun, unsir, npo, … or module:Class",
        "output_dir": "where the result is written (default: unlearned)",
        "dry_run": "print splits, steps, time and memory; train nothing",
        "generate": "causal_lm: so many answers of each model, side by side",
        "stress": "also: does what was forgotten come back? (--stress_protocol)",
        "quiet": "",
        "json": "print the evidence (of a dry run the plan) as JSON, nothing else",
    },
    "the model that must forget": {
        "model_name_or_path": "",
        "base_model": "what it was fine-tuned from (targets get better by it)",
        "load_in_4bit": "quantize the base under an adapter (bitsandbytes)",
    },
    "its rows": {
        "task": "(multilabel_)text_classification, image_classification, causal_lm",
        "dataset_name": "Hub name, file, folder, or a built-in set",
        "train_file": "or a file of its training rows: csv, tsv, json, parquet",
        "test_file": "unseen rows (and --validation_file)",
        "max_train_rows": "a trial of a recipe on so many rows",
        "text_column": "and --label_column, --question_column, … where not detected",
    },
    "the request, one of": {
        "forget_ids": "file of ids, with --id_column",
        "forget_where": "column=value, several mean any of them",
        "forget_classes": "classes, by name or id",
        "forget_fraction": "a random share (with --group_column: of its values)",
        "forget_file": "a file of their own, with --retain_file (or --forget_dataset)",
        "forget_prompt": "causal_lm: what the model answers to these prompts",
    },
    "training": {
        "use_peft": "unlearn through a LoRA adapter (--lora_r, --save_adapter, …)",
        "max_steps": "steps, in place of the method's own number",
        "learning_rate": "in place of the method's own",
        "per_device_train_batch_size": "kept rows of a step",
        "bf16": "mixed precision on a GPU; --gradient_checkpointing saves memory",
        "seed": "",
        "report_to": "trackers: tensorboard, wandb, trackio, …",
        "resume_from_checkpoint": "last (the newest whole checkpoint), or a folder",
        "push_to_hub": "with --hub_model_id OWNER/NAME",
    },
    "how it was made, and retrained twins as the yardstick": {
        "original_model": "base it was fine-tuned from (or --original_model_type)",
        "original_num_train_epochs": "and --original_learning_rate, --original_batch_size, …",
        "retrain": "retrain so many twins without the forgotten rows",
        "reference_model": "retrained models made elsewhere",
    },
}


def short_help(groups: tuple[type, ...]) -> str:
    """The screen. `groups` are the dataclasses of the arguments, whose texts stand where no shorter one is given."""
    texts = {field.name: field.metadata.get("help", "") for group in groups for field in fields(group)}
    lines = ["usage: hf-unlearn train [--config FILE] [--argument value ...]"]
    for title, arguments in EVERYDAY.items():
        lines += ["", title]
        for name, text in arguments.items():
            text = text or texts.get(name) or "seed of everything that is drawn"
            lines += textwrap.wrap(
                text,
                WIDTH,
                initial_indent=f"  {'--' + name:<{NAMES}}  ",
                subsequent_indent=" " * (NAMES + 4),
            )
    lines += ["", "--help-all lists every argument, with --method those of the method; init writes a commented file."]
    return "\n".join(lines)
