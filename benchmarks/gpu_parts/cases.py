"""Models of real sizes from configs, with random weights, and invented rows for them; toy sizes for a dry run."""

from dataclasses import dataclass
from typing import Any

from step_setup import ROLES, Encoded, task_for

CLASSES = 10
TOKENS, ANSWER = (96, 128), 32  # of a text, least and most; of them the answer's
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT-B/16": ("vit", {}),
    "BERT-base": ("bert", {}),
    "ViT small": (
        "vit",
        {
            "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 768,
            "image_size": 64, "patch_size": 8, "hidden_dropout_prob": 0.1,
        },
    ),
    "Llama 135M": (
        "llama",
        {
            "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
            "intermediate_size": 1536, "tie_word_embeddings": True,
        },
    ),
    "Llama 1B": (
        "llama",
        {
            "hidden_size": 2048, "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
            "intermediate_size": 5632, "tie_word_embeddings": True,
        },
    ),
    "Llama 8B": (
        "llama",
        {
            "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "intermediate_size": 14336, "vocab_size": 128256,
        },
    ),
}  # fmt: skip
VOCABULARY = {"bert": 30522, "llama": 49152}
TOY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@dataclass
class Case:
    """A model, its task and rows to train it on."""

    name: str
    model: Any
    task: Any
    source: Encoded


def make_case(name: str, toy: bool, device: str, dtype: str = "float32") -> Case:
    """A model with random weights on `device`, made there, and rows that fill the roles."""
    import torch
    import transformers

    kind, values = SIZES[name]
    values = dict(values)
    if kind != "vit":
        values["vocab_size"] = 64 if toy else values.get("vocab_size", VOCABULARY[kind])
    if toy:
        values |= TOY | ({"num_key_value_heads": 2} if kind == "llama" else {})
        values |= {"image_size": 8, "patch_size": 4} if kind == "vit" else {}
    if kind == "llama":
        config = transformers.LlamaConfig(**values, max_position_embeddings=256, pad_token_id=0, bos_token_id=1,
                                          eos_token_id=2)  # fmt: skip
        model_class, task_name = transformers.LlamaForCausalLM, "causal_lm"
    elif kind == "bert":
        config = transformers.BertConfig(**values, num_labels=CLASSES)
        model_class, task_name = transformers.BertForSequenceClassification, "text_classification"
    else:
        config = transformers.ViTConfig(**values, num_labels=CLASSES)
        model_class, task_name = transformers.ViTForImageClassification, "image_classification"
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            model = model_class(config)
    finally:
        torch.set_default_dtype(before)
    config.id2label = {i: str(i) for i in range(CLASSES)}
    task = task_for(task_name, make_processor(kind), None if kind == "llama" else CLASSES)
    task.prepare_model(model)
    return Case(name, model, task, Encoded(make_rows(kind, config, toy)))


def make_processor(kind: str):
    """What is saved beside a model; rows are encoded without it."""
    if kind == "vit":
        from transformers import ViTImageProcessor

        return ViTImageProcessor(do_resize=False)
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", "word"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", bos_token="[BOS]", eos_token="[EOS]", unk_token="[UNK]"
    )


def make_rows(kind: str, config, toy: bool) -> list[dict[str, Any]]:
    import torch

    generator, rows = torch.Generator().manual_seed(1), []
    low, high = (6, 10) if toy else TOKENS
    for i in range(sum(ROLES.values())):
        if kind == "vit":
            shape = (config.num_channels, config.image_size, config.image_size)
            rows.append({"pixel_values": torch.randn(shape, generator=generator), "labels": i % CLASSES})
            continue
        length = int(torch.randint(low, high + 1, (), generator=generator))
        ids = torch.randint(4, config.vocab_size, (length,), generator=generator)
        row = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": i % CLASSES}
        if kind == "llama":
            row["labels"] = ids.clone()
            row["labels"][: length - (3 if toy else ANSWER)] = -100
        rows.append(row)
    return rows
