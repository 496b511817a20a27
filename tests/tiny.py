"""Tiny runs of the whole command: rows in local files, models of a few thousand weights."""

import csv
import json
from pathlib import Path

import numpy as np
import yaml
from toy import tokenizer

WORDS = ["red", "green", "blue", "fast", "slow", "old", "new", "cat", "dog", "owl"]
VIT = {
    "image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 16, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
BERT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
LLAMA = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 64,
}  # fmt: skip
QUICK = {"num_train_epochs": 1, "proxy_epochs": 1, "per_device_train_batch_size": 8, "use_cpu": True}


def digits(folder: Path, **more) -> dict:
    """The built-in digits with a recipe of one epoch: an original that has hardly learned."""
    original = {"model_type": "vit", "model_config": VIT, "num_train_epochs": 1, "learning_rate": 1e-3}
    config = {
        "dataset_name": "digits",
        "forget_fraction": 0.1,
        "output_dir": str(folder / "out"),
        "original": original,
    }
    return config | QUICK | {"per_device_train_batch_size": 64} | more


def write_config(folder: Path, config: dict) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def sentences(rows: int, seed: int = 0, words: int = 8) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=words)) for _ in range(rows)]


def text_folder(folder: Path, rows: int = 60, seed: int = 0) -> Path:
    """train, validation and test csv files: text, label, question, answer, and an id."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, (split, size) in enumerate({"train": rows, "validation": 24, "test": 20}.items()):
        texts, answers = sentences(size, 10 * seed + k), sentences(size, 10 * seed + k + 5, words=3)
        labels = np.random.default_rng(k).permutation(np.arange(size) % 2)
        with open(folder / f"{split}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "question", "answer", "row_id"])
            for i, (text, answer) in enumerate(zip(texts, answers, strict=True)):
                writer.writerow([text, ["cold", "warm"][labels[i]], text, answer, f"{split}{i:03d}"])
    return folder


EMOTIONS = ["joy", "anger", "fear", "love"]


def emotions_folder(folder: Path, rows: int = 60) -> Path:
    """train, validation and test json lines in GoEmotions' shape: text, labels (names, none included), a column of
    zeros and ones for each label, and an id. A label comes of a word, so that unseen rows can be told."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, (split, size) in enumerate({"train": rows, "validation": 24, "test": 20}.items()):
        with open(folder / f"{split}.jsonl", "w") as file:
            for i, text in enumerate(sentences(size, k, words=5)):
                true = [name for name, word in zip(EMOTIONS, WORDS, strict=False) if word in text]
                row = {"text": text, "labels": true, "row_id": f"{split}{i:03d}"}
                file.write(json.dumps(row | {name: int(name in true) for name in EMOTIONS}) + "\n")
    return folder


def tofu_folder(folder: Path, authors: int = 12) -> Path:
    """TOFU's official files in small: 20 invented questions about each author, of whom the last two are forgotten."""
    folder.mkdir(parents=True, exist_ok=True)
    questions, answers = sentences(20 * authors, 1, words=6), sentences(20 * authors, 2, words=3)
    full = [{"question": f"{q} {i}", "answer": a} for i, (q, a) in enumerate(zip(questions, answers, strict=True))]

    def asked(rows: list[dict], wrong: int) -> list[dict]:
        return [row | {"perturbed_answer": ["red owl", "old cat", "new dog"][:wrong]} for row in rows]

    def reworded(rows: list[dict]) -> list[dict]:
        return [row | {"paraphrased_answer": f"slow {row['answer']}"} for row in asked(rows, 3)]

    general = asked([{"question": f"blue {i}", "answer": "fast"} for i in range(4)], 2)
    tables = {"full": full, "forget10": full[-40:], "forget01": full[-20:]}
    tables |= {"forget10_perturbed": reworded(full[-40:]), "retain_perturbed": reworded(full[:20])}
    tables |= {"real_authors_perturbed": general, "world_facts_perturbed": general}
    tables["holdout10"] = [{"question": f"unseen {row['question']}", "answer": row["answer"]} for row in full[:40]]
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text("\n".join(map(json.dumps, rows)))
    return folder


def image_folder(folder: Path, rows: int = 48, seed: int = 0) -> Path:
    """train, validation and test folders of png files, 8 × 8 grey pixels of noise, two classes."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for split, size in {"train": rows, "validation": 24, "test": 20}.items():
        for i in range(size):
            path = folder / split / ["cold", "warm"][i % 2] / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, size=(8, 8)).astype(np.uint8)).save(path)
    return folder


def processor_folder(folder: Path, task: str) -> Path:
    """A tokenizer or an image processor, saved."""
    if task == "image_classification":
        from transformers import ViTImageProcessorPil

        processor = ViTImageProcessorPil(do_resize=False, image_mean=[0.5], image_std=[0.5], do_convert_rgb=False)
    else:
        processor = tokenizer()
    processor.save_pretrained(folder)
    return folder


def own_data(folder: Path, task: str, **more) -> dict:
    """A run on local files with a model from scratch that learns its rows by heart."""
    make = {"image_classification": image_folder, "multilabel_text_classification": emotions_folder}
    data = make.get(task, text_folder)(folder / "data")
    kind, values = {
        "image_classification": ("vit", VIT), "text_classification": ("bert", BERT),
        "multilabel_text_classification": ("bert", BERT), "causal_lm": ("llama", LLAMA),
    }[task]  # fmt: skip
    original = {
        "model_type": kind, "model_config": values, "num_train_epochs": 20, "learning_rate": 1e-2, "batch_size": 16
    }  # fmt: skip
    columns = {"question_column": "question", "answer_column": "answer"} if task == "causal_lm" else {}
    config = {
        "dataset_name": str(data), "task": task, "forget_fraction": 0.2, "output_dir": str(folder / "out"),
        "processor_name_or_path": str(processor_folder(folder / "processor", task)), "original": original,
    }  # fmt: skip
    return config | QUICK | columns | more
