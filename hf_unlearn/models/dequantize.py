"""`python -m hf_unlearn.models.dequantize FILE.gguf FOLDER`: GGUF weights as a plain float32 folder."""

import sys
from pathlib import Path
from typing import Any


def dequantize(weights: Path, folder: Path) -> None:
    """Write model and tokenizer. Needs the package gguf.

    `transformers` widens the weights while loading and then refuses to save them; a model of the same configuration
    takes them over.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    loaded: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = loaded.config
    del config.quantization_config
    config._name_or_path = ""  # a folder of this machine
    loaded.is_quantized, loaded.hf_quantizer = False, None
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    dequantize(Path(sys.argv[1]), Path(sys.argv[2]))
