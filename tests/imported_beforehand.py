"""Everything that takes long to import; see `processes.py`."""

import datasets  # noqa: F401
import peft  # noqa: F401
import sklearn.linear_model  # noqa: F401
import torch
import transformers.models.bert.modeling_bert
import transformers.models.llama.modeling_llama
import transformers.models.vit.modeling_vit  # noqa: F401

import hf_unlearn.api
import hf_unlearn.cli
import hf_unlearn.methods.nabla_tau
import hf_unlearn.train  # noqa: F401

torch.set_num_threads(1)
