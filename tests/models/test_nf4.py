"""NF4 against hand values and bitsandbytes, and which weights a quantized copy has rounded."""

import copy

import pytest
import torch
from torch import nn
from toy import SETUPS, vit

from hf_unlearn.models.nf4 import LEVELS, nf4_rounded
from hf_unlearn.models.quantized import round_to_int8, round_to_nf4, share_rounded


def rounded(model, change):
    changed = copy.deepcopy(model)
    change(changed)
    return changed


def test_the_levels_are_those_published():
    assert len(LEVELS) == 16 and list(LEVELS) == sorted(LEVELS) and LEVELS[7] == 0.0
    assert LEVELS[0] == -1.0 and LEVELS[15] == 1.0 and LEVELS[8] == pytest.approx(0.0795803, abs=1e-7)


def test_a_block_by_hand():
    """The largest is 2, so that the levels lie at twice theirs; 0.95 is nearer to 2·0.44071 than to 2·0.56262."""
    weight = torch.tensor([[2.0, 0.95, -0.1, 0.0, -1.99, 0.07]])
    expected = [2.0, 2 * LEVELS[12], 2 * LEVELS[6], 0.0, -2.0, 0.0]
    assert nf4_rounded(weight)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_blocks_run_along_rows_and_the_last_is_shorter():
    """Two rows of three in blocks of four: the first block ends with a weight of the second row."""
    weight = torch.tensor([[1.0, 0.1, 0.0], [0.5, 10.0, 1.0]])
    by_hand = torch.tensor([[1.0, LEVELS[8], 0.0], [LEVELS[12], 10.0, 10 * LEVELS[8]]])
    assert torch.allclose(nf4_rounded(weight, block=4), by_hand, atol=1e-6)
    assert torch.equal(nf4_rounded(torch.zeros(3, 5)), torch.zeros(3, 5))
    assert nf4_rounded(weight.bfloat16()).dtype == torch.bfloat16


def test_rounding_twice_changes_nothing_more():
    weight = torch.randn(33, 70, generator=torch.Generator().manual_seed(0))
    once = nf4_rounded(weight)
    assert torch.allclose(nf4_rounded(once), once, atol=1e-6)
    blocks = torch.nn.functional.pad(weight.flatten(), (0, -weight.numel() % 64)).view(-1, 64)
    widest = max(b - a for a, b in zip(LEVELS, LEVELS[1:], strict=False)) / 2
    assert ((once - weight).abs().max() <= widest * blocks.abs().max()) and len(once.unique()) > 16


@pytest.mark.parametrize("shape", [(64, 64), (30, 128), (7, 33)])
def test_against_bitsandbytes(shape):
    functional = pytest.importorskip("bitsandbytes.functional")
    assert functional.get_4bit_type("nf4", device="cpu").tolist() == torch.tensor(LEVELS).tolist()
    weight = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    assert torch.equal(functional.dequantize_4bit(codes, state).view(shape), nf4_rounded(weight))


def test_int8_by_hand_and_against_torch():
    from transformers.pytorch_utils import Conv1D

    model = nn.Sequential(nn.Linear(2, 2, bias=False), Conv1D(3, 2))  # Conv1D: 3 outputs of 2 inputs
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[127.0, 1.4], [0.0, 0.0]]))
    found = rounded(model.requires_grad_(False), round_to_int8)
    assert found[0].weight.tolist() == [[127.0, 1.0], [0.0, 0.0]]
    assert model[0].weight[0, 1] == pytest.approx(1.4)
    weight = model[1].weight.detach().T  # (out, in)
    scale = weight.abs().amax(dim=1) / 127
    expected = torch.quantize_per_channel(weight, scale, torch.zeros(3, dtype=torch.int64), 0, torch.qint8)
    assert torch.allclose(found[1].weight.T, expected.dequantize(), atol=1e-7)


@pytest.mark.parametrize("change", [round_to_int8, round_to_nf4])
def test_embeddings_and_a_tied_head_stay(change):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=16))
    found = rounded(model, change)
    assert found.lm_head.weight is found.transformer.wte.weight
    assert torch.equal(found.lm_head.weight, model.lm_head.weight)
    weight, was = found.transformer.h[0].mlp.c_fc.weight, model.transformer.h[0].mlp.c_fc.weight
    assert not torch.equal(weight, was)
    if change is round_to_nf4:  # GPT-2's layers hold (in, out)
        assert torch.equal(weight, nf4_rounded(was.T.contiguous()).T)


def test_nf4_leaves_the_head_of_a_classifier_and_int8_does_not():
    model = vit()
    four, eight = rounded(model, round_to_nf4), rounded(model, round_to_int8)
    changed = {
        name: [not torch.equal(p, q) for p, q in zip(part.parameters(), was.parameters(), strict=True)]
        for name, part, was in (("4", four.classifier, model.classifier), ("8", eight.classifier, model.classifier))
    }
    assert not any(changed["4"]) and any(changed["8"])
    names = {n for n, p in four.named_parameters() if not torch.equal(p, model.get_parameter(n))}
    linear = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)} - {"classifier.weight"}
    assert names == linear and len(linear) > 8


def test_an_untied_head_of_a_language_model_stays():
    model, _, _ = SETUPS["lm"]()
    found = rounded(model, round_to_nf4)
    assert torch.equal(found.get_output_embeddings().weight, model.get_output_embeddings().weight)
    assert any(not torch.equal(p, q) for p, q in zip(found.parameters(), model.parameters(), strict=True))


def test_convolutions_are_not_rounded():
    """A network of convolutions stays nearly as it is, which the share says; transformers are rounded nearly whole."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    model = ResNetForImageClassification(config)
    for change, weights in ((round_to_int8, "int8"), (round_to_nf4, "nf4")):
        pairs = zip(model.parameters(), rounded(model, change).parameters(), strict=True)
        changed = sum(a.numel() for a, b in pairs if not torch.equal(a, b))
        assert changed == (3 * 16 if weights == "int8" else 0)
        assert share_rounded(model, weights) == changed / sum(p.numel() for p in model.parameters())
    for kind in ("text", "lm"):
        assert min(share_rounded(SETUPS[kind]()[0], weights) for weights in ("int8", "nf4")) > 0.5
