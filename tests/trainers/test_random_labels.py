import numpy as np
import pytest
import torch

from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers.random_labels import draws, soft_losses, uniform_labels, wrong_shares
from hf_unlearn.trainers.split_output import SplitOutput


def output(labels, index, logits=None, example=None, classes=5):
    labels = torch.tensor(labels)
    logits = torch.zeros(len(labels), classes) if logits is None else torch.tensor(logits)
    example = None if example is None else torch.tensor(example)
    return SplitOutput("forget", Predictions(logits, labels, len(index), example), torch.tensor(index), 1.0)


def test_a_draw_depends_on_seed_epoch_and_row_alone():
    both = draws(output([0, 1, 2], [7, 3, 9]), seed=1, epoch=2)
    assert torch.equal(both[1:2], draws(output([4], [3]), seed=1, epoch=2))
    for seed, epoch, row in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert draws(output([1], [row]), seed, epoch) != both[1]


def test_the_tokens_of_a_row_have_draws_of_their_own_wherever_it_stands():
    together = draws(output([0, 1, 2, 3], [5, 6], example=[0, 0, 0, 1]), seed=0, epoch=0)
    assert len(set(together.tolist())) == 4
    assert torch.equal(together[:3], draws(output([0, 1, 2], [5], example=[0, 0, 0]), seed=0, epoch=0))


def test_uniform_labels_are_never_true_and_otherwise_alike():
    n = 8000
    labels = np.arange(n) % 5
    forget = output(labels.tolist(), list(range(n)))
    drawn = uniform_labels(forget, draws(forget, 0, 0)).numpy()
    assert not (drawn == labels).any()
    counts = np.bincount(drawn[labels == 2], minlength=5)
    assert counts[2] == 0 and counts.sum() == n / 5
    assert np.abs(counts[[0, 1, 3, 4]] - n / 20).max() < 4 * np.sqrt(n / 20)


def test_the_released_behaviour_draws_the_true_label_one_time_in_five():
    n = 8000
    forget = output([2] * n, list(range(n)))
    drawn = uniform_labels(forget, draws(forget, 0, 0), allow_true_label=True)
    assert float((drawn == 2).float().mean()) == pytest.approx(0.2, abs=0.02)


def test_uniform_labels_by_hand():
    forget = output([0, 2, 4], [0, 1, 2])
    assert uniform_labels(forget, torch.tensor([0.0, 0.5, 0.999])).tolist() == [1, 3, 3]
    assert uniform_labels(forget, torch.tensor([0.0, 0.49, 0.999])).tolist() == [1, 1, 3]


def test_soft_labels_are_the_models_opinion_of_the_wrong_ones():
    shares = [0.1, 0.6, 0.2, 0.1]  # the true label is 1: 0.25, 0.5, 0.25 are left
    forget = output([1], [0], logits=np.log([shares]).astype("float32"))
    assert wrong_shares(forget.logits, forget.labels)[0].tolist() == pytest.approx([0.25, 0.0, 0.5, 0.25])
    by_hand = -(0.25 * np.log(0.1) + 0.5 * np.log(0.2) + 0.25 * np.log(0.1))
    assert soft_losses(forget).tolist() == pytest.approx([by_hand])


def test_soft_labels_leave_the_order_of_the_wrong_ones_alone():
    """Their gradient lowers the true label and raises each other one in proportion to its share."""
    logits = torch.tensor([[1.0, 3.0, 0.5, -1.0]], requires_grad=True)
    labels = torch.tensor([1])
    soft_losses(SplitOutput("forget", Predictions(logits, labels, 1), torch.tensor([0]), 1.0)).sum().backward()
    p = logits.detach().softmax(1)[0]
    expected = -p[1] * p / (1 - p[1])
    expected[1] = p[1]
    assert logits.grad[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_label_without_any_probability_costs_nothing():
    forget = output([0], [0], logits=[[0.0, 0.0, float("-inf")]])
    assert soft_losses(forget).tolist() == pytest.approx([np.log(2)])
