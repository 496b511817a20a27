"""Texts are scored longest first: fewer padded tokens, the same figures in the order of the rows."""

import numpy as np
import pytest
from toy import image_setup, lm_setup, text_setup

from hf_unlearn.data.rows import Rows
from hf_unlearn.evaluation import row_order
from hf_unlearn.evaluation.row_order import back_in_order, in_batches, longest_first, tokens_in_order
from hf_unlearn.evaluation.scoring import ARRAYS, score, score_tokens


def test_the_order_and_back_by_hand():
    order, counts = [2, 0, 1], np.array([3, 1, 2])  # row 2 has three tokens, row 0 one, row 1 two
    assert back_in_order(np.array([20, 0, 10]), order).tolist() == [0, 10, 20]
    assert tokens_in_order(np.array([20, 21, 22, 0, 10, 11]), counts, order).tolist() == [0, 10, 11, 20, 21, 22]
    assert back_in_order(np.array([60, 50]), [6, 5]).tolist() == [50, 60]  # a process's share
    assert tokens_in_order(np.empty(0), np.empty(0, dtype=int), []).tolist() == []


@pytest.mark.parametrize("setup", [text_setup, lm_setup])
def test_figures_are_those_of_the_rows_one_by_one(setup):
    model, splits, task = setup()
    rows, padded = splits.retain, []
    collate = task.collate
    task.collate = lambda features: padded.append(max(len(f["input_ids"]) for f in features)) or collate(features)
    together = score(model, task, rows, batch_size=4)
    assert padded == sorted(padded, reverse=True) and padded[0] > padded[-1]
    alone = score(model, task, rows, batch_size=1)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(together, name), getattr(alone, name), atol=1e-6)
    if not task.has_classes:
        (_, found), (_, expected) = (score_tokens(model, task, rows, batch_size=size) for size in (4, 1))
        assert found.count.tolist() == expected.count.tolist() and len(set(found.count)) > 1
        np.testing.assert_allclose(found.log_prob, expected.log_prob, atol=1e-6)


def test_rows_without_a_length_keep_their_order():
    _, splits, task = image_setup()
    assert longest_first(splits.retain, [3, 1, 2]) == [3, 1, 2]
    _, splits, task = text_setup()
    assert longest_first(Rows(splits.retain.source, task, cache=False), [0, 1, 2]) == [0, 1, 2]  # would encode twice
    assert longest_first(splits.retain, []) == []


def test_batches_follow_the_vocabulary(monkeypatch):
    monkeypatch.setattr(row_order, "MOST_LOGITS", 200)
    lengths = np.array([30, 10, 5, 5, 4, 2])
    assert in_batches([5, 3, 1, 0, 2, 4], lengths, 4, vocabulary=10) == [[5], [3, 1], [0, 2, 4]]  # a row is the least
    assert in_batches([5, 3, 1, 0, 2, 4], lengths, 4) == in_batches([5, 3, 1, 0, 2, 4], None, 4, 10)
    model, splits, task = lm_setup()
    sizes = []
    few = score(model, task, splits.retain, progress=sizes.append)
    monkeypatch.setattr(row_order, "MOST_LOGITS", 2**28)
    assert max(sizes) <= 2 and sum(sizes) == len(splits.retain)
    np.testing.assert_allclose(few.loss, score(model, task, splits.retain).loss, atol=1e-6)
