import math

import pytest
import torch

from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers.split_output import SplitOutput


def classifier(logits, labels):
    return Predictions(torch.as_tensor(logits), torch.as_tensor(labels), len(labels))


def test_classifier_figures_by_hand():
    p = classifier([[math.log(3.0), 0.0], [0.0, 0.0]], [0, 1])
    torch.testing.assert_close(p.loss, torch.tensor([-math.log(0.75), math.log(2)]))
    torch.testing.assert_close(p.log_odds, torch.tensor([math.log(3.0), 0.0]))
    torch.testing.assert_close(p.confidence, torch.tensor([0.75, 0.5]))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    torch.testing.assert_close(p.entropy, torch.tensor([entropy, math.log(2)]))
    assert p.correct.tolist() == [1.0, 0.0]
    torch.testing.assert_close(p.loss_for(torch.tensor([1, 1])), torch.tensor([-math.log(0.25), math.log(2)]))


def test_every_figure_of_a_row_is_where_the_logits_are():
    logits, labels = torch.zeros(5, 7, device="meta"), torch.zeros(5, dtype=torch.long, device="meta")
    example = torch.tensor([0, 0, 0, 1, 1], device="meta")
    p = Predictions(logits, labels, 2, example, [3, 2])
    seen = SplitOutput("forget", p, torch.arange(2, device="meta"), 0.5, rows=[0, 1])
    for figure in (p.token_count, p.loss, p.log_odds, p.correct, seen.tokens, seen.log_prob):
        assert figure.device == logits.device and figure.shape == (2,)


@pytest.mark.parametrize("size", [50.0, -50.0, 0.0, 5.0])
def test_log_odds_of_extreme_logits(size):
    logits = torch.tensor([[size, -size, 0.3], [-size, size, 1.0]])
    wide = torch.softmax(logits.double(), 1)
    others = wide[:, 1:].sum(1)
    p = classifier(logits, torch.tensor([0, 0]))
    expected = torch.log(wide[:, 0]) - torch.log(others)
    torch.testing.assert_close(p.log_odds.double(), expected, rtol=1e-6, atol=1e-6)


def test_token_log_odds_are_exact_and_differentiable_at_any_loss():
    """Two tokens per example with NLLs that are nearly 0, moderate, and beyond what exp can hold in float32."""
    logits = torch.tensor([[9.0, 0.0], [8.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 120.0], [0.0, 100.0]])
    logits.requires_grad_(True)
    p = Predictions(logits, torch.zeros(6, dtype=torch.long), 3, torch.tensor([0, 0, 1, 1, 2, 2]))
    nll = -torch.log_softmax(logits.detach().double(), 1)[:, 0].reshape(3, 2).mean(1)
    expected = -nll - torch.log(-torch.expm1(-nll))
    torch.testing.assert_close(p.log_odds.detach().double(), expected, rtol=1e-4, atol=1e-4)
    p.log_odds.sum().backward()
    assert logits.grad.isfinite().all()


def test_token_figures_are_means_over_each_examples_tokens():
    logits, labels = torch.randn(5, 7), torch.tensor([1, 2, 3, 4, 5])
    p = Predictions(logits, labels, 2, torch.tensor([0, 0, 0, 1, 1]))
    nll = -torch.log_softmax(logits, 1)[range(5), labels]
    torch.testing.assert_close(p.loss, torch.stack([nll[:3].mean(), nll[3:].mean()]))
    hits = (logits.argmax(1) == labels).float()
    torch.testing.assert_close(p.correct, torch.stack([hits[:3].mean(), hits[3:].mean()]))


@pytest.mark.parametrize("example", [None, [0, 0, 1, 2, 2, 2]])
@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_split_keeps_every_figure(example, first):
    rows, size = (6, 3) if example else (3, 3)
    logits = torch.randn(rows, 4)
    p = Predictions(logits, torch.arange(rows) % 4, size, None if example is None else torch.tensor(example))
    a, b = p.split(first)
    assert (a.size, b.size) == (first, size - first)
    for name in ("loss", "log_odds", "correct", "entropy", "confidence"):
        torch.testing.assert_close(torch.cat([getattr(a, name), getattr(b, name)]), getattr(p, name))


def test_half_precision_logits_are_widened():
    p = classifier(torch.tensor([[30.0, 0.0]], dtype=torch.bfloat16), [0])
    assert p.loss.dtype == p.log_odds.dtype == torch.float32
    assert classifier(torch.zeros(1, 2, dtype=torch.float64), [0]).loss.dtype == torch.float64
