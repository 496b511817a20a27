"""The soft threshold against its formula in numpy, its exactness, its schedule and its state."""

import numpy as np
import pytest
import torch
import toy

from hf_unlearn.errors import UserError
from hf_unlearn.saliency.soft_threshold import SoftThreshold, soft_threshold_


def moved(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    reference = {
        name: torch.randn(shape, generator=generator).to(dtype) for name, shape in (("a", (7, 5)), ("b", (6,)))
    }
    steps = {name: 0.1 * torch.randn(value.shape, generator=generator) for name, value in reference.items()}
    return reference, {name: (value + steps[name]).to(dtype) for name, value in reference.items()}


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_formula(ratio):
    reference, parameters = moved()
    start = np.concatenate([value.numpy().ravel() for value in reference.values()])
    end = np.concatenate([value.numpy().ravel() for value in parameters.values()])
    size = np.abs(end - start)
    k = int(ratio * len(size) + 0.5)
    t = np.sort(size)[k - 1] if k else 0.0
    expected = start + np.sign(end - start) * np.maximum(size - t, 0)
    assert soft_threshold_(parameters, reference, ratio) == t
    found = np.concatenate([value.numpy().ravel() for value in parameters.values()])
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert (found[size <= t] == start[size <= t]).all() and (found == start).sum() == k


def test_what_returns_is_bit_identical():
    reference, parameters = moved(torch.bfloat16)
    reference["a"][0, 0], parameters["a"][0, 0] = -0.0, 0.0
    soft_threshold_(parameters, reference, 0.4)
    back = parameters["a"] == reference["a"]
    assert back.any() and parameters["a"][0, 0].signbit()
    assert torch.equal(parameters["a"].view(torch.int16)[back], reference["a"].view(torch.int16)[back])


def test_nothing_has_moved():
    reference, _ = moved()
    parameters = {name: value.clone() for name, value in reference.items()}
    assert soft_threshold_(parameters, reference, 0.5) == 0
    assert all(torch.equal(parameters[name], reference[name]) for name in reference)


def test_ratio_falls_to_about_zero():
    soft = SoftThreshold(toy.vit(), 0.8, 10)
    ratios = [soft.ratio_at(step) for step in range(10)]
    np.testing.assert_allclose(ratios, 0.8 * (1 - np.arange(10) / 10))
    assert soft.ratio_at(10) == 0
    for ratio in (0, 1.5, float("nan")):
        with pytest.raises(UserError):
            SoftThreshold(toy.vit(), ratio, 10)


def test_resumed_from_the_checkpoint():
    def train(model, soft, steps):
        for step in steps:
            with torch.no_grad():
                for i, parameter in enumerate(model.parameters()):
                    parameter += 0.01 * torch.sin(torch.arange(parameter.numel()) * (step + 1.0) + i).view_as(
                        parameter
                    )
            soft.apply(step)

    model = toy.vit()
    model.classifier.requires_grad_(False)
    frozen = model.classifier.weight.clone()
    soft = SoftThreshold(model, 0.9, 6)
    train(model, soft, range(3))
    tensors, weights = soft.to_tensors(), {name: value.clone() for name, value in model.state_dict().items()}
    train(model, soft, range(3, 6))
    other = toy.vit(seed=1)
    other.classifier.requires_grad_(False)
    other.load_state_dict(weights)
    resumed = SoftThreshold(other, 0.9, 6)
    resumed.load_tensors(tensors)
    train(other, resumed, range(3, 6))
    changed = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(torch.equal(p, dict(other.named_parameters())[name]) for name, p in changed.items())
    assert not any("classifier" in name for name in tensors) and frozen.shape == model.classifier.weight.shape
    with pytest.raises(UserError):
        resumed.load_tensors({})
