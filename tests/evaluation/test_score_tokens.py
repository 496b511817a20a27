"""Per-token arrays: from the same single pass as the per-example ones, whole rows in order, over processes too."""

from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from toy_tokens import TokenRows, TokenTask, make_model

from hf_unlearn.evaluation.language_attacks import loss_score
from hf_unlearn.evaluation.language_metrics import exact_memorization
from hf_unlearn.evaluation.scoring import score, score_tokens
from hf_unlearn.tasks.predictions import Predictions

NAMES = ("log_prob", "is_argmax", "mean_log_prob", "sd_log_prob", "count")


def stacked(tokens):
    return np.concatenate([getattr(tokens, name) for name in NAMES])


def test_tokens_are_those_of_a_plain_forward():
    model, rows, task = make_model(), TokenRows(11), TokenTask()
    _, tokens = score_tokens(model, task, rows, batch_size=3)
    assert task.forwards == 11
    assert tokens.count.tolist() == [len(row["y"]) for row in rows.rows] and tokens.count.dtype.kind == "i"
    logits = model(torch.cat([row["x"] for row in rows.rows])).detach().double()
    labels = torch.cat([row["y"] for row in rows.rows])
    distribution = torch.distributions.Categorical(logits=logits)
    np.testing.assert_allclose(tokens.log_prob, distribution.log_prob(labels), atol=1e-6)
    np.testing.assert_array_equal(tokens.is_argmax, (logits.argmax(-1) == labels).double())
    np.testing.assert_allclose(tokens.mean_log_prob, -distribution.entropy(), atol=1e-6)
    away = distribution.logits + distribution.entropy()[:, None]
    np.testing.assert_allclose(tokens.sd_log_prob, (distribution.probs * away**2).sum(-1).sqrt(), atol=1e-6)


def test_examples_are_the_means_of_their_tokens():
    model, rows = make_model(), TokenRows(11)
    scores, tokens = score_tokens(model, TokenTask(), rows, batch_size=4)
    np.testing.assert_allclose(scores.loss, -loss_score(tokens), atol=1e-6)
    np.testing.assert_allclose(scores.correct, exact_memorization(tokens), atol=1e-6)
    np.testing.assert_allclose(scores.entropy, -tokens.row_mean(tokens.mean_log_prob), atol=1e-6)
    assert scores.label.tolist() == [-1] * 11
    alone = score(model, TokenTask(), rows, batch_size=4)
    np.testing.assert_array_equal(scores.loss, alone.loss)


def test_no_rows_give_no_tokens():
    scores, tokens = score_tokens(make_model(), TokenTask(), TokenRows(0))
    assert len(scores) == len(tokens) == 0 and tokens.log_prob.shape == (0,)


WORKER = """
import os
import sys
import numpy as np, torch
import torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from test_score_tokens import TokenRows, TokenTask, make_model, score_tokens, stacked

dist.init_process_group("gloo")
assert dist.get_world_size() == 2
rank = dist.get_rank()
from torch.distributed.fsdp import fully_shard
sharded = make_model()
fully_shard(sharded[0])
fully_shard(sharded)
for size in (0, 1, 11):
    for name, model in (("plain", make_model()), ("fsdp", sharded)):
        _, tokens = score_tokens(model, TokenTask(), TokenRows(size), batch_size=3)
        np.save(f"{sys.argv[2]}/{name}-{size}-{rank}.npy", stacked(tokens))
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.slow
def test_two_processes_give_the_tokens_of_one(tmp_path):
    """FSDP fills shares up with repeats: their tokens must not stay."""
    done = processes.run(WORKER, str(Path(__file__).parent), str(tmp_path), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    for size in (0, 1, 11):
        expected = stacked(score_tokens(make_model(), TokenTask(), TokenRows(size))[1])
        for name in ("plain", "fsdp"):
            both = [np.load(tmp_path / f"{name}-{size}-{rank}.npy") for rank in (0, 1)]
            np.testing.assert_array_equal(*both)
            np.testing.assert_allclose(both[0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [0, 5])
def test_classifiers_have_one_token_an_example(size):
    logits, labels = torch.randn(size, 3), torch.zeros(size, dtype=torch.long)
    predictions = Predictions(logits, labels, size)
    assert predictions.token_count.tolist() == [1] * size and predictions.label.tolist() == labels.tolist()
