"""Fresh adapters by rows of B, trained ones by weights; never a weight of A without a gradient, never a reference."""

import copy

import pytest
import torch
import toy
from scipy.stats import spearmanr

from hf_unlearn.errors import UserError
from hf_unlearn.models import lora
from hf_unlearn.saliency.build import build_mask
from hf_unlearn.saliency.lora_rows import _scores, fresh_adapter_mask, is_fresh, zero_layers
from hf_unlearn.saliency.mask import SaliencyMask
from hf_unlearn.saliency.measure import measure_saliency, trainable


def adapted(kind="image", r=4, **more):
    model, splits, task = toy.SETUPS[kind]()
    return lora.add_lora(model, r=r, alpha=8, dropout=0.1, task_type=task.peft_task_type, **more), splits, task


def randomize_b(model, layers=None):
    for name, parameter in model.named_parameters():
        if "lora_B.default" in name and (layers is None or any(layer in name for layer in layers)):
            torch.nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(len(name)))


def base_rows(kind, names):
    """True ‖G_row‖² of the base weights behind the B matrices `names`, from a model without an adapter."""
    model, splits, task = toy.SETUPS[kind]()
    scores = measure_saliency(model, task, splits.forget)
    found = {}
    for name in names:
        base = name.removeprefix("base_model.model.").replace("lora_B.default.weight", "weight")
        found[name] = scores[base].square().sum(1)
    return found


@pytest.mark.parametrize("kind", list(toy.SETUPS))
def test_rows_are_ranked_as_the_base_gradient_ranks_them(kind):
    model, splits, task = adapted(kind, r=8)
    matrices = {name: p for name, p in trainable(model).items() if "lora_B" in name}
    scores, _ = _scores(model, task, splits.forget, matrices, {}, 0, 4, {"batch_size": 8})
    true = torch.cat(list(base_rows(kind, matrices).values()))
    estimated = torch.cat(list(scores.values()))
    assert spearmanr(true, estimated).statistic > 0.9
    assert 0.8 < float(estimated.sum() / true.sum()) < 1.25  # in the units of the base gradient


def test_rank_and_scale_of_a_layer_do_not_matter():
    """A layer with twice the scale has four times the ‖∇B‖², and no more salient base rows."""
    model, splits, task = adapted()
    matrices = {name: p for name, p in trainable(model).items() if "lora_B" in name}
    before, _ = _scores(model, task, splits.forget, matrices, {}, 0, 2, {})
    model.base_model.model.vit.layers[0].mlp.fc1.scaling["default"] *= 2
    after, _ = _scores(model, task, splits.forget, matrices, {}, 0, 2, {})
    torch.testing.assert_close(before, after)


def test_a_fresh_adapter_moves_whole_rows_of_b_and_no_a():
    model, splits, task = adapted()
    assert is_fresh(model)
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    mask = build_mask(model, task, splits.forget, share=0.25, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    for name, parameter in model.named_parameters():  # A too: bits, and whether it is trainable
        value, flag = before[name]
        assert torch.equal(parameter.view(torch.int32), value.view(torch.int32)) and parameter.requires_grad == flag
        assert parameter.grad is None
    assert list(mask.masks) == list(trainable(model))
    rows = {name: m for name, m in mask.masks.items() if "lora_B" in name}
    assert not any(m.any() for name, m in mask.masks.items() if "lora_A" in name)
    assert all(torch.equal(m.any(1), m.all(1)) for m in rows.values())
    total = sum(len(m) for m in rows.values())
    assert sum(int(m[:, 0].sum()) for m in rows.values()) == int(0.25 * total + 0.5)
    head = {name: p for name, p in trainable(model).items() if "lora" not in name}
    assert head and sum(mask.counts[name] for name in head) == int(0.25 * sum(map(torch.numel, head.values())) + 0.5)
    assert "A stays as it was drawn" in mask.summary() and f"of {total} rows of B" in mask.summary()
    again = build_mask(model, task, splits.forget, share=0.25, seed=3)
    assert all(torch.equal(m, again.masks[name]) for name, m in mask.masks.items())


def test_a_is_restored_after_an_error():
    model, splits, task = adapted()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(UserError, match="any gradient"):
        fresh_adapter_mask(model, task, splits.forget, share=0.5, loss=lambda p: 0 * p.loss)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.requires_grad for name, p in model.named_parameters() if "lora_" in name)


def test_patterns_choose_matrices_and_heads():
    model, splits, task = adapted()
    only_head = build_mask(model, task, splits.forget, share=0.5, include=["*classifier*"])
    assert {name for name, n in only_head.counts.items() if n} <= {
        name for name in only_head.counts if "lora" not in name
    }
    only_rows = build_mask(model, task, splits.forget, share=0.5, include=["*fc1*"])
    assert all("fc1.lora_B" in name for name, n in only_rows.counts.items() if n) and only_rows.kept
    with pytest.raises(UserError, match="leave only A"):
        build_mask(model, task, splits.forget, share=0.5, include=["*lora_A*"])


def test_a_trained_adapter_is_scored_by_weights():
    model, splits, task = adapted()
    randomize_b(model)
    assert not is_fresh(model)
    mask = build_mask(model, task, splits.forget, share=0.5)
    assert mask.kept == int(0.5 * mask.size + 0.5) and mask.notes == []
    assert sum(n for name, n in mask.counts.items() if "lora_A" in name) > 0
    assert any(not torch.equal(m.any(1), m.all(1)) for name, m in mask.masks.items() if "lora_B" in name)


def test_a_partly_trained_adapter_says_that_a_has_no_gradient():
    model, splits, task = adapted()
    randomize_b(model, ["fc1", "fc2"])
    zero, other = zero_layers(model)
    assert (len(zero), len(other)) == (8, 4)
    mask = build_mask(model, task, splits.forget, share=0.2)
    assert mask.notes == ["B is still zero in 8 of 12 layers: A has no saliency there"]
    assert not any(mask.counts[name.replace("lora_B", "lora_A")] for name in zero)


def test_reference_adapters_are_neither_scored_nor_masked(tmp_path):
    model, splits, task = adapted()
    randomize_b(model)
    lora.add_reference_adapter(model)
    mask = build_mask(model, task, splits.forget, share=0.5)
    assert not any("reference" in name for name in mask.masks)
    path = str(tmp_path / "mask.safetensors")
    mask.save(path)
    loaded = SaliencyMask.load(path, model)
    assert all(torch.equal(m, loaded.masks[name]) for name, m in mask.masks.items())


def test_the_digest_knows_the_frozen_base(tmp_path):
    model, splits, task = adapted()
    mask = build_mask(model, task, splits.forget, share=0.5)
    path = str(tmp_path / "mask.safetensors")
    mask.save(path)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.base_model.model.vit.layers[0].mlp.fc1.base_layer.weight[0, 0] += 1
    with pytest.raises(UserError, match="other weights"):
        SaliencyMask.load(path, other)
