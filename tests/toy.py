"""Tiny models and rows for the trainers' tests: built from configs, nothing downloaded."""

import numpy as np
import torch
from transformers import LlamaConfig, ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_unlearn.data.rows import Rows
from hf_unlearn.data.splits import UnlearningSplits

WORDS = ["red", "green", "blue", "fast", "slow", "old", "new", "cat", "dog", "owl"]
ROLES = {"forget": 11, "retain": 30, "validation_tau": 12, "validation_stop": 7, "test": 14}


def vit(dropout: float = 0.0, dtype=torch.float32, layers: int = 2, seed: int = 0):
    torch.manual_seed(seed)
    config = ViTConfig(
        image_size=8, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=32, num_labels=4, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    return ViTForImageClassification(config).to(dtype)


def image_task():
    from hf_unlearn.tasks import get_task

    processor = ViTImageProcessor(do_resize=False, do_rescale=False, image_mean=[8.0], image_std=[8.0])
    names = ["zero", "one", "two", "three"]
    return get_task("image_classification")(processor, {"image": "image", "label": "label"}, label_names=names)


def image_rows(n: int, seed: int = 0):
    """Noise images of four classes; labels are unrelated to them, so that learning one is memorizing it."""
    import datasets

    rng = np.random.default_rng(seed)
    images = rng.integers(0, 17, size=(n, 8, 8)).astype(np.uint8)
    labels = (np.arange(n) % 4).tolist()
    return datasets.Dataset.from_dict({"image": images.tolist(), "label": labels})


def splits_of(source, task, roles: dict[str, int] | None = None) -> UnlearningSplits:
    """Consecutive rows of `source` as the roles."""
    sizes, start, found = roles or ROLES, 0, {}
    for role, size in sizes.items():
        found[role] = Rows(source, task, range(start, start + size))
        start += size
    return UnlearningSplits(**found)


def image_setup(dtype=torch.float32, dropout: float = 0.0, roles: dict[str, int] | None = None, seed: int = 0):
    """Model, splits and task."""
    task = image_task()
    source = image_rows(sum((roles or ROLES).values()), seed)
    return vit(dropout, dtype), splits_of(source, task, roles), task


def text_rows(n: int, seed: int = 0):
    import datasets

    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(3, 9))) for _ in range(n)]
    answers = [" ".join(rng.choice(WORDS, size=rng.integers(2, 5))) for _ in range(n)]
    return datasets.Dataset.from_dict(
        {"text": texts, "label": (np.arange(n) % 4).tolist(), "question": texts, "answer": answers}
    )


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[EOS]", *WORDS, "Question", "Answer", ":", "?"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token="[EOS]", model_max_length=32,
    )  # fmt: skip


def text_setup(dtype=torch.float32, dropout: float = 0.0):
    from transformers import BertConfig, BertForSequenceClassification

    from hf_unlearn.tasks import get_task

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=4,
        max_position_embeddings=32, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    model = BertForSequenceClassification(config).to(dtype)
    task = get_task("text_classification")(
        tokenizer(), {"text": "text", "label": "label"}, label_names=["zero", "one", "two", "three"]
    )
    model.config.id2label = dict(enumerate(task.label_names))
    task.prepare_model(model)
    return model, splits_of(text_rows(sum(ROLES.values())), task), task


def set_rows(n: int, seed: int = 0):
    """The same with lists of ids of five labels."""
    true = np.random.default_rng(seed + 3).random((n, 5)) < 0.3
    return text_rows(n, seed).add_column("labels", [np.flatnonzero(row).tolist() for row in true])


def sets_setup(dtype=torch.float32, dropout: float = 0.0):
    """Texts with any of five labels, none included."""
    from transformers import BertConfig, BertForSequenceClassification

    from hf_unlearn.tasks import get_task

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=5,
        max_position_embeddings=32, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    model = BertForSequenceClassification(config).to(dtype)
    task = get_task("multilabel_text_classification")(
        tokenizer(), {"text": "text", "label": "labels"}, label_names=["joy", "anger", "fear", "love", "awe"]
    )
    model.config.id2label = dict(enumerate(task.label_names))
    task.prepare_model(model)
    return model, splits_of(set_rows(sum(ROLES.values())), task), task


def lm_setup(dtype=torch.float32, dropout: float = 0.0):
    from transformers import LlamaForCausalLM

    from hf_unlearn.tasks import get_task

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, attention_dropout=dropout, pad_token_id=0, bos_token_id=2, eos_token_id=4,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(dtype)
    task = get_task("causal_lm")(tokenizer(), {"question": "question", "answer": "answer"})
    task.prepare_model(model)
    return model, splits_of(text_rows(sum(ROLES.values())), task), task


SETUPS = {"image": image_setup, "text": text_setup, "sets": sets_setup, "lm": lm_setup}


def outputs(trainer, streams=("forget", "retain")):
    """What the model says of the first rows of each stream, as a step of one micro-batch hands it to the loss."""
    trainer.current_gradient_accumulation_steps = 1
    sizes = {name: trainer.stream_sizes()[name].batch for name in streams}
    keys = [(name, i) for name in streams for i in range(sizes[name])]
    batch = trainer._prepare_inputs(trainer.data_collator(trainer.train_dataset.__getitems__(keys)))
    return trainer._run(trainer.model, batch)
