"""Weight saliency against a float64 reference, row by row, for all tasks; and what it leaves as it was."""

import copy
import random
from functools import cache

import numpy as np
import pytest
import torch
import toy

from hf_unlearn.errors import UserError
from hf_unlearn.saliency.measure import measure_saliency, trainable
from hf_unlearn.saliency.selection import select_top


@cache
def setup(kind):
    return toy.SETUPS[kind]()


def reference(model, task, rows):
    """|Σᵢ ∇ℓᵢ| / n in float64, a row at a time."""
    model = copy.deepcopy(model).double().eval()
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(len(rows)):
        batch = {k: v.double() if v.is_floating_point() else v for k, v in task.collate([rows[i]]).items()}
        gradients = torch.autograd.grad(task.predict(model, batch).loss.sum(), list(model.parameters()))
        for name, gradient in zip(sums, gradients, strict=True):
            sums[name] += gradient
    return {name: total.abs() / len(rows) for name, total in sums.items()}


def assert_close(found, exact):
    """To 1e-5 of each tensor's maximum. A key's bias shifts all scores of a query alike, so its gradient is exactly 0:
    what is found there is rounding, and small beside the other tensors."""
    largest = max(float(value.max()) for value in exact.values())
    assert list(found) == list(exact)
    for name, value in exact.items():
        assert found[name].dtype == torch.float32 and found[name].shape == value.shape
        scale = max(float(value.max()), 1e-3 * largest if name.endswith(("k_proj.bias", "key.bias")) else 0.0)
        assert float((found[name].double() - value).abs().max()) <= 1e-5 * scale, name


@pytest.mark.parametrize("kind", list(toy.SETUPS))
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_against_float64(kind, batch_size):
    model, splits, task = setup(kind)
    found = measure_saliency(model, task, splits.forget, batch_size=batch_size)
    assert_close(found, reference(model, task, splits.forget))


@pytest.mark.parametrize("kind", list(toy.SETUPS))
def test_batch_sizes_choose_the_same_weights(kind):
    model, splits, task = setup(kind)
    scores = [measure_saliency(model, task, splits.retain, batch_size=size) for size in (1, 7, 30)]
    chosen = [select_top(values, share=0.3) for values in scores]
    for values, (masks, _) in zip(scores[1:], chosen[1:], strict=True):
        differing = [(values[name], masks[name] != chosen[0][0][name]) for name in masks]
        bits = sum(int(d.sum()) for _, d in differing)
        assert bits <= 1e-4 * sum(d.numel() for _, d in differing)
        gamma = chosen[0][1]
        assert all(((v[d] - gamma).abs() <= 1e-3 * gamma).all() for v, d in differing)


def test_the_model_and_the_generators_are_as_before():
    model, splits, task = toy.image_setup(dropout=0.5)
    model.train()
    model.vit.layers[0].eval()
    frozen = next(model.parameters()).requires_grad_(False)
    norm = torch.nn.BatchNorm2d(1)
    model.vit.embeddings.norm = norm  # a buffer that would move in train mode
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first = measure_saliency(model, task, splits.forget, batch_size=4)
    assert frozen.requires_grad is False and len(first) == len(list(model.parameters())) - 1
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()
    model.eval()
    again = measure_saliency(model, task, splits.forget, batch_size=4)  # no dropout in either
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_flags_and_gradients_are_as_before_after_an_error():
    model, splits, task = toy.image_setup()
    model.train()

    def broken(predictions):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        measure_saliency(model, task, splits.forget, loss=broken)
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_tied_weights_are_scored_once_and_unused_ones_are_zero():
    model, splits, task = toy.lm_setup()
    model.lm_head.weight = model.model.embed_tokens.weight
    model.unused = torch.nn.Parameter(torch.ones(3))
    found = measure_saliency(model, task, splits.forget)
    assert "lm_head.weight" not in found and found["model.embed_tokens.weight"].any()
    assert not found["unused"].any()


def test_other_losses_and_chosen_parameters():
    model, splits, task = setup("image")
    chosen = {"classifier.bias": trainable(model)["classifier.bias"]}
    found = measure_saliency(
        model, task, splits.forget, parameters=chosen, loss=lambda p: p.logits[:, 2], autocast=None
    )
    torch.testing.assert_close(found, {"classifier.bias": torch.tensor([0.0, 0.0, 1.0, 0.0])})
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_is_summed_in_float32():
    """300 times the same row: a bfloat16 sum would stop growing at 256 times one row's gradient."""
    model, splits, task = toy.image_setup()
    model.bfloat16()
    rows = splits.forget.select([0] * 300)
    many = measure_saliency(model, task, rows, batch_size=1)
    one = measure_saliency(model, task, rows.select([0]), batch_size=1)
    torch.testing.assert_close(many, one, rtol=1e-5, atol=1e-10)


def test_processes_share_the_rows():
    """Each reads its own rows once; the signed sums add up before the absolute value is taken."""
    model, splits, task = setup("image")
    sums, seen = [], []
    for rank in range(3):  # collect what each gives to the reduce
        given = []
        measure_saliency(
            model, task, splits.forget, batch_size=2, rank=rank, world_size=3, progress=seen.append,
            reduce=lambda tensor, given=given: given.append(tensor.clone()) or tensor,
        )  # fmt: skip
        sums.append(given)
    assert sum(seen) == len(splits.forget)
    added = [torch.stack(parts).sum(0).abs() / len(splits.forget) for parts in zip(*sums, strict=True)]
    alone = measure_saliency(model, task, splits.forget)
    assert_close(dict(zip(alone, added, strict=True)), {name: value.double() for name, value in alone.items()})


def test_nothing_to_measure_is_refused():
    model, splits, task = toy.image_setup()
    with pytest.raises(UserError, match="no forget rows"):
        measure_saliency(model, task, splits.forget.select([]))
    with pytest.raises(UserError, match="no trainable weights"):
        measure_saliency(model.requires_grad_(False), task, splits.forget)
