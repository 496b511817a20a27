"""Options that change how a step is computed, and not what: recomputed activations, and compiled graphs."""

import copy

import pytest
import torch
from toy import SETUPS

from hf_unlearn.methods import get_method
from hf_unlearn.trainers.modes import set_training_mode

OPTIONS = {
    "checkpointing": {"gradient_checkpointing": True},
    "compiled": {"torch_compile": True, "torch_compile_backend": "aot_eager"},  # graphs, without a C++ compiler
}


def trained(folder, method: str, kind: str, **options):
    model, splits, task = SETUPS[kind](torch.float64)
    made = get_method(method)
    args = made.config_class(
        output_dir=str(folder), per_device_train_batch_size=4, per_device_forget_batch_size=2, learning_rate=1e-2,
        max_steps=3, use_cpu=True, disable_tqdm=True, logging_strategy="no", **options,
    )  # fmt: skip
    trainer = made(model, args, splits, task, quiet=True)
    trainer.train()
    return trainer


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize(
    "kind, option",
    [
        ("image", "checkpointing"),
        ("lm", "checkpointing"),
        ("image", "compiled"),
        pytest.param("lm", "compiled", marks=pytest.mark.long),
    ],
)
def test_the_run_ends_with_the_same_weights(tmp_path, kind, option, monkeypatch):
    ran = []
    for name in ("transformers.modeling_utils.checkpoint", "torch._dynamo.backends.common.aot_module_simplified"):
        monkeypatch.setattr(name, counted(ran, name))
    plain = trained(tmp_path, "grad_diff", kind)
    assert not ran
    ours = trained(tmp_path, "grad_diff", kind, **OPTIONS[option])
    assert ran and (weights(ours) - weights(plain)).abs().max() < 1e-9
    loss = (ours.score(ours.splits.forget).loss, plain.score(plain.splits.forget).loss)
    assert abs(loss[0] - loss[1]).max() < 1e-6


def test_layers_that_recompute_use_no_dropout_of_their_own(monkeypatch):
    """OPT's layers call dropout themselves, not through a module; so do BART's and Falcon's."""
    from transformers import OPTConfig, OPTForCausalLM

    ran, name = [], "transformers.modeling_utils.checkpoint"
    monkeypatch.setattr(name, counted(ran, name))
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=20, hidden_size=16, word_embed_proj_dim=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32,
        max_position_embeddings=16, dropout=0.5,
    )  # fmt: skip
    model, ids = OPTForCausalLM(config).double(), torch.arange(8)[None] + 4
    expected = gradient(model.eval(), ids)
    assert not ran
    model.gradient_checkpointing_enable()
    for _ in range(2):
        set_training_mode(model, disable_dropout=True)
        assert torch.equal(gradient(model, ids), expected)
    assert len(ran) == 4
    for each in (copy.deepcopy(model), model):  # whoever trains it afterwards has dropout again
        assert not torch.equal(gradient(each.train(), ids), gradient(each, ids))


def gradient(model, ids) -> torch.Tensor:
    model.zero_grad()
    model(ids, use_cache=False).logits.square().mean().backward()
    return model.model.decoder.embed_tokens.weight.grad.clone()


def counted(ran: list, name: str):
    import importlib

    module, _, function = name.rpartition(".")
    real = getattr(importlib.import_module(module), function)

    def call(*args, **kwargs):
        ran.append(name)
        return real(*args, **kwargs)

    return call
