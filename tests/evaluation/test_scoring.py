import random
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import processes
import pytest
import torch

from hf_unlearn.evaluation.scoring import ARRAYS, score, score_splits
from hf_unlearn.tasks.predictions import Predictions


class FakeRows:
    """Rows of a linear problem; counts how often each is read."""

    def __init__(self, size, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(size, 4, generator=generator)
        self.y = torch.randint(0, 3, (size,), generator=generator)

    def __len__(self):
        return len(self.x)

    def __getitems__(self, batch):
        return [{"x": self.x[i], "labels": self.y[i]} for i in batch]


class FakeTask:
    """Keeps every batch it is asked about, and the mode that the model was in."""

    arrays = ()

    def __init__(self):
        self.batches, self.training, self.gradients = [], [], []

    def collate(self, features):
        return {key: torch.stack([row[key] for row in features]) for key in ("x", "labels")}

    def predict(self, model, batch):
        self.batches.append(batch["x"])
        self.training.append(any(module.training for module in model.modules()))
        self.gradients.append(torch.is_grad_enabled())
        return Predictions(model(batch["x"]), batch["labels"], len(batch["x"]))


def make_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)
    )


def test_arrays_are_those_of_a_plain_forward_in_row_order():
    model, rows = make_model(), FakeRows(23)
    scores = score(model, FakeTask(), rows, batch_size=5)
    logits = model.eval()(rows.x).detach().double()
    log_probs = logits.log_softmax(-1)
    label = log_probs.gather(1, rows.y[:, None]).squeeze(1)
    assert len(scores) == 23
    np.testing.assert_allclose(scores.loss, -label, atol=1e-6)
    np.testing.assert_allclose(scores.log_odds, label - torch.log1p(-label.exp()), atol=1e-5)
    np.testing.assert_array_equal(scores.correct, (logits.argmax(-1) == rows.y).double())
    np.testing.assert_allclose(scores.confidence, log_probs.exp().amax(-1), atol=1e-6)
    np.testing.assert_allclose(scores.entropy, -(log_probs.exp() * log_probs).sum(-1), atol=1e-6)
    assert all(getattr(scores, name).dtype == np.float64 for name in ARRAYS)


def test_each_row_is_forwarded_once_without_gradients_in_eval_mode():
    task, rows, forwards = FakeTask(), FakeRows(23), []
    score(make_model(), task, rows, batch_size=5, progress=forwards.append)
    assert torch.equal(torch.cat(task.batches), rows.x)
    assert forwards == [5, 5, 5, 5, 3]
    assert not any(task.training) and not any(task.gradients)


def test_training_flags_come_back_one_by_one_also_after_an_error():
    model = make_model().train()
    model[1].eval()
    flags = [module.training for module in model.modules()]
    buffers = [buffer.clone() for buffer in model.buffers()]
    score(model, FakeTask(), FakeRows(9), batch_size=4)
    assert [module.training for module in model.modules()] == flags == [True, True, False, True, True]
    assert all(torch.equal(old, new) for old, new in zip(buffers, model.buffers(), strict=True))
    broken = FakeTask()
    broken.predict = None
    with pytest.raises(TypeError):
        score(model, broken, FakeRows(9))
    assert [module.training for module in model.modules()] == flags


@pytest.mark.parametrize("num_workers", [0, 2])
def test_no_global_generator_is_drawn_from(num_workers):
    model = make_model().train()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    score(model, FakeTask(), FakeRows(9), batch_size=4, num_workers=num_workers)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()


def test_no_rows_give_empty_arrays():
    scores = score(make_model(), FakeTask(), FakeRows(0))
    assert len(scores) == 0 and scores.entropy.shape == (0,)


def test_half_precision_is_widened_before_the_loss():
    model = make_model().bfloat16()
    rows = FakeRows(16)
    rows.x = rows.x.bfloat16()
    scores = score(model, FakeTask(), rows)
    logits = model.eval()(rows.x).detach().double()
    np.testing.assert_allclose(
        scores.loss, torch.nn.functional.cross_entropy(logits, rows.y, reduction="none"), atol=1e-6
    )


def test_autocast_is_entered_for_every_forward():
    entered = []

    @contextmanager
    def autocast():
        entered.append(True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield

    scores = score(make_model(), FakeTask(), FakeRows(9), batch_size=4, autocast=autocast)
    assert len(entered) == 3 and np.isfinite(scores.loss).all()


def test_roles_with_the_same_rows_are_scored_once():
    task, test = FakeTask(), FakeRows(6, seed=1)
    splits = SimpleNamespace(forget=FakeRows(4), test=test, nonmembers=test)
    scores = score_splits(make_model(), task, splits, ["forget", "test", "nonmembers"])
    assert scores["nonmembers"] is scores["test"]
    assert [len(batch) for batch in task.batches] == [4, 6]


WORKER = """
import os
import sys
import numpy as np, torch
import torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from test_scoring import ARRAYS, FakeRows, FakeTask, make_model, score

dist.init_process_group("gloo")
assert dist.get_world_size() == 2
rank = dist.get_rank()
model = torch.nn.parallel.DistributedDataParallel(make_model())
for size in (0, 1, 23):
    task = FakeTask()
    scores = score(model, task, FakeRows(size), batch_size=4)
    counts = [None, None]
    dist.all_gather_object(counts, sum(len(batch) for batch in task.batches))
    assert sum(counts) == size and max(counts) - min(counts) <= 1, counts
    np.save(f"{sys.argv[2]}/ddp-{size}-{rank}.npy", np.stack([getattr(scores, name) for name in ARRAYS]))

from torch.distributed.fsdp import fully_shard
sharded = make_model()
fully_shard(sharded[0])
fully_shard(sharded)
for size in (0, 1, 23):
    task = FakeTask()
    scores = score(sharded, task, FakeRows(size), batch_size=4)
    assert [len(batch) for batch in task.batches] == {0: [], 1: [1], 23: [4, 4, 4]}[size]
    np.save(f"{sys.argv[2]}/fsdp-{size}-{rank}.npy", np.stack([getattr(scores, name) for name in ARRAYS]))
dist.barrier()
os._exit(0)  # torch's own threads sometimes abort while the interpreter shuts down, with nothing left to do
"""


@pytest.mark.slow
def test_two_processes_give_the_arrays_of_one(tmp_path):
    """DDP and FSDP, with splits that do not divide evenly and processes without a row of their own."""
    done = processes.run(WORKER, str(Path(__file__).parent), str(tmp_path), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    for size in (0, 1, 23):
        alone = score(make_model(), FakeTask(), FakeRows(size))
        expected = np.stack([getattr(alone, name) for name in ARRAYS])
        for run in ("ddp", "fsdp"):
            both = [np.load(tmp_path / f"{run}-{size}-{rank}.npy") for rank in (0, 1)]
            np.testing.assert_array_equal(*both)
            np.testing.assert_allclose(both[0], expected, atol=1e-5)
