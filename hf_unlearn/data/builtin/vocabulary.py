"""Tokenizers for the built-in text sources, trained in a second on rows that no model is trained on."""

from collections.abc import Iterable


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int, *, decoder_only: bool):
    """A byte-level BPE tokenizer (any text can be encoded), which saves and reloads through `AutoTokenizer`.

    Args:
        texts (`Iterable[str]`): what the vocabulary is learned from.
        vocab_size (`int`): upper limit, the 256 bytes and the special tokens included.
        max_length (`int`): `model_max_length` in tokens.
        decoder_only (`bool`): `True`: pad and end-of-text tokens, nothing is added to a text. `False`: texts become
            `<s> … </s>`, pairs `<s> … </s> … </s>`, and there is a mask token, as encoders expect.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>"] if decoder_only else ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    if decoder_only:
        names = {"pad_token": "<pad>", "eos_token": "<eos>"}
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
        names = {
            "pad_token": "<pad>",
            "cls_token": "<s>",
            "sep_token": "</s>",
            "bos_token": "<s>",
            "eos_token": "</s>",
        }
        names |= {"unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **names)
