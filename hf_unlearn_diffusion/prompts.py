"""What images and prompts go through before a latent model reads them."""

import json
import os
from pathlib import Path
from typing import Any

import torch

TOKENIZER = "tokenizer"  # its folder in a pipeline's


class ImagesAndPrompts:
    """An image processor and a tokenizer, for tasks that read both. Called, it is the image processor.

    Args:
        images: an image processor.
        tokenizer: a `CLIPTokenizer`; `model_max_length` is the length of every prompt.
    """

    def __init__(self, images: Any, tokenizer: Any):
        self.images = images
        self.tokenizer = tokenizer

    def __call__(self, images: list[Any], **options: Any) -> Any:
        return self.images(images, **options)

    @property
    def image_mean(self) -> list[float]:
        return self.images.image_mean

    def tokens(self, prompts: list[str]) -> torch.Tensor:
        """Token ids `(prompts, model_max_length)`, as a `StableDiffusionPipeline` makes them; longer ones are cut."""
        options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        return self.tokenizer(prompts, max_length=self.tokenizer.model_max_length, **options)["input_ids"]

    def to_json_string(self) -> str:
        """Everything that it does, as text."""
        tokenizer = self.tokenizer.backend_tokenizer.to_str()
        return json.dumps([self.images.to_json_string(), tokenizer, self.tokenizer.model_max_length])

    def save_pretrained(self, folder: str | os.PathLike, **options: Any) -> None:
        self.images.save_pretrained(folder)
        self.tokenizer.save_pretrained(Path(folder) / TOKENIZER)


def letters(length: int) -> Any:
    """A `CLIPTokenizer` whose tokens are the bytes of a prompt, `length` of them with start and end: it has nothing to
    learn, and knows no word of anybody's."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    alphabet = sorted(ByteLevel.alphabet())
    names = [*alphabet, *(letter + "</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: k for k, name in enumerate(names)}, merges=[], model_max_length=length)
