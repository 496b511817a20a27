import numpy as np
import pytest
import torch

from hf_unlearn.tasks.predictions import Predictions


def song_and_mittal(logits, label):
    """−(1 − p_y) log p_y − Σ_{i≠y} p_i log(1 − p_i), written out in numpy's widest float."""
    wide = np.asarray(logits, np.longdouble)
    p = np.exp(wide - wide.max())
    p /= p.sum()
    rest = [sum(p[j] for j in range(len(p)) if j != i) for i in range(len(p))]  # 1 − p_i without cancellation
    others = sum(p[i] * np.log(rest[i]) for i in range(len(p)) if i != label)
    return float(-rest[label] * np.log(p[label]) - others)


def test_by_hand():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], dtype=torch.float64))
    expected = [
        -0.3 * np.log(0.7) - 0.2 * np.log(0.8) - 0.1 * np.log(0.9),
        -0.8 * np.log(0.2) - 0.7 * np.log(0.3) - 0.1 * np.log(0.9),
    ]
    found = Predictions(logits, torch.tensor([0, 1]), 2).modified_entropy
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 60.0])
def test_matches_the_formula_up_to_extreme_logits(scale):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(40, 5, generator=generator)
    labels = torch.arange(40) % 5
    found = Predictions(logits, labels, 40).modified_entropy
    expected = [song_and_mittal(row, label) for row, label in zip(logits.numpy(), labels.tolist(), strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=1e-6)


def test_sure_and_right_is_nothing_and_sure_and_wrong_is_much():
    logits = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    found = Predictions(logits, torch.tensor([0, 0]), 2).modified_entropy
    assert found[0] == 0 and found[1] == pytest.approx(200)


def test_two_classes_alike():
    found = Predictions(torch.zeros(1, 2), torch.tensor([0]), 1).modified_entropy
    assert found.item() == pytest.approx(np.log(2))


def test_tokens_are_averaged():
    logits, labels = torch.randn(3, 4), torch.tensor([0, 1, 2])
    alone = Predictions(logits, labels, 3).modified_entropy
    together = Predictions(logits, labels, 2, torch.tensor([0, 0, 1])).modified_entropy
    torch.testing.assert_close(together, torch.stack([alone[:2].mean(), alone[2]]))
