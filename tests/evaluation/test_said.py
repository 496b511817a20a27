"""What is said in the places of tokens: KL by hand, and a sample that is the same however a pass is divided."""

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import processes
import pytest
import torch
from toy import lm_setup, splits_of, text_rows
from toy_tokens import TokenRows, TokenTask, make_model

from hf_unlearn.evaluation import said as module
from hf_unlearn.evaluation.said import Listener, Said
from hf_unlearn.evaluation.said_instead import divergence, said_instead_block
from hf_unlearn.evaluation.scoring import collect, score, score_splits, score_tokens
from hf_unlearn.tasks import get_task
from hf_unlearn.tasks.predictions import Predictions

ROUNDING = 5e-3  # nats: what half precision does to the KL of a token, at most


def words(*logits, rows=None) -> Said:
    """Logits that half precision holds exactly, each of a row of its own unless `rows` are named."""
    return Said(np.array(logits, np.float16), len(logits), np.arange(len(logits)) if rows is None else np.array(rows))


def heard(model, rows, most: int = 10**6, **options) -> Said:
    listener = Listener(most)
    collect(model, TokenTask(), rows, {}, hear=listener.hear, **options)
    return listener.said()


def other_model():
    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(4, 6))


def test_divergence_by_hand():
    """The twin halves between two words, the model says them as e to 1: p = e/(1 + e) = 0.7310586, q = 0.2689414."""
    even, uneven = words([0, 0]), words([0, -1])
    # ½·(ln ½ − ln p) + ½·(ln ½ − ln q) = −0.6931472 + ½·(0.3132617 + 1.3132617)
    assert divergence([even], uneven) == pytest.approx([0.1201145], abs=1e-6)
    # The other way round: p·ln p + q·ln q − ln ½ = 0.6931472 − 0.5822032
    assert divergence([uneven], even) == pytest.approx([0.1109440], abs=1e-6)
    # Twins that say one of the words alone: −ln p and −ln q, and their mean over two tokens with other twins.
    first, second = words([0, -60000], [0, 0]), words([-60000, 0], [0, -1])
    assert divergence([first], words([0, -1], [0, -1])) == pytest.approx([0.3132617, 0.1201145], abs=1e-6)
    both = divergence([first, second], words([0, -1], [0, -1]))
    assert both == pytest.approx([(0.3132617 + 1.3132617) / 2, 0.1201145 / 2], abs=1e-6)


def test_models_that_hardly_differ_are_not_less_than_nothing_apart():
    twin = np.random.default_rng(0).integers(-8, 0, (200, 500)).astype(np.float16)
    model = twin.copy()
    model[:, 0] += np.float16(2**-8)
    apart = divergence([words(*twin)], words(*model))
    assert apart.min() >= 0 and apart.max() < 1e-5


def test_words_that_one_model_lacks_are_left_out():
    """Embeddings are padded to different sizes; logits of −∞ stand for words that are never said."""
    assert divergence([words([0, 0, -2])], words([0, -1])) == pytest.approx([0.1201145], abs=1e-6)
    never = Predictions(torch.tensor([[0.0, 0.0, -math.inf]]), torch.tensor([0]), 1, torch.tensor([0]))
    listener = Listener()
    listener.hear([0], never)
    assert divergence([listener.said()], listener.said()).tolist() == [0.0]
    assert divergence([words([0, 0, -60000])], listener.said()) == pytest.approx([0], abs=1e-6)


def test_it_is_the_divergence_of_plain_forwards():
    rows, model, twin = TokenRows(11), make_model(), other_model()
    x = torch.cat([row["x"] for row in rows.rows])
    ours, theirs = (torch.distributions.Categorical(logits=m(x).detach().double()) for m in (model, twin))
    expected = torch.distributions.kl_divergence(theirs, ours).numpy()
    found = divergence([heard(twin, rows, batch_size=3)], heard(model, rows, batch_size=4))
    assert sorted(found) == pytest.approx(sorted(expected), abs=ROUNDING) and expected.mean() > 0.05
    assert max(abs(a - b) for a, b in pairwise(found)) > 0.01  # tokens differ


@pytest.mark.parametrize("most", [1, 7, 100])
def test_the_sample_does_not_depend_on_the_batches(most):
    rows, model = TokenRows(23), make_model()
    tokens = sum(len(row["y"]) for row in rows.rows)
    whole = heard(model, rows, batch_size=23)
    assert whole.of == len(whole) == tokens and whole.log_probs.dtype == np.float16
    assert np.bincount(whole.rows).tolist() == [len(row["y"]) for row in rows.rows]
    for batch_size in (1, 4, 23):
        found = heard(model, rows, most, batch_size=batch_size)
        assert found.of == tokens and len(found) == min(most, tokens)
        np.testing.assert_array_equal(found.rows, whole.rows[:most])
        np.testing.assert_allclose(found.log_probs, whole.log_probs[:most], atol=1e-3)


def test_every_token_has_the_same_chance():
    """Of 1,000 rows of one to four tokens a fifth is drawn: of each length about as many as there are."""
    listener, lengths = Listener(500), [1 + i % 4 for i in range(1000)]
    for start in range(0, 1000, 50):
        counts = lengths[start : start + 50]
        example = torch.arange(50).repeat_interleave(torch.tensor(counts))
        logits = torch.tensor(counts)[example][:, None] * torch.tensor([[0.0, 1.0]])
        listener.hear(range(start, start + 50), Predictions(logits, example * 0, 50, example))
        assert len(listener.kept) <= 500
    found = listener.said()
    assert found.of == 2500 and len(found) == 500
    length = np.round(found.log_probs[:, 1].astype(float) - found.log_probs[:, 0]).astype(int)
    drawn = np.bincount(length, minlength=5)[1:]
    assert np.abs(drawn - np.array([50, 100, 150, 200])).max() < 35  # three standard deviations


def test_a_chunk_is_widened_at_a_time_and_little_is_kept(monkeypatch):
    seen, plain = [], torch.Tensor.log_softmax
    rows, model = TokenRows(23), make_model()
    expected = heard(model, rows, 9, batch_size=8)
    monkeypatch.setattr(module, "rows_at_once", lambda logits, copies: 2)
    monkeypatch.setattr(torch.Tensor, "log_softmax", lambda self, dim: (seen.append(len(self)), plain(self, dim))[1])
    found = heard(model, rows, 9, batch_size=8)
    np.testing.assert_array_equal(found.log_probs, expected.log_probs)
    assert max(seen) == 2
    listener = Listener(9)
    collect(model, TokenTask(), rows, {}, hear=listener.hear, batch_size=8)
    assert len(listener.kept) == 9 and all(kept.base is None for _, kept in listener.kept.values())


def test_processes_hand_each_other_no_more_than_is_kept():
    """Each has the lowest numbers of its own rows, and of these only the lowest of all are sent."""
    rows, model, task = TokenRows(23), make_model(), TokenTask()
    listeners, shares, sent, meet = [Listener(9), Listener(9)], [None, None], [], Barrier(2)
    for listener, own in zip(listeners, (range(0, 12), range(12, 23)), strict=True):
        with torch.no_grad():
            listener.hear(own, task.predict(model, task.collate(rows.__getitems__(own))))
        assert len(listener.kept) == 9

    def said(rank: int) -> Said:
        def gather(own):
            shares[rank] = own
            sent.append(own)
            meet.wait(60)
            found = list(shares)
            meet.wait(60)
            return found

        return listeners[rank].said(gather)

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(said, range(2)))
    expected = heard(model, rows, 9)
    for found in both:
        np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-3)
        np.testing.assert_array_equal(found.rows, expected.rows)
        assert found.of == expected.of
    words = [own for own in sent if any(isinstance(value, tuple) for value in getattr(own, "values", list)())]
    assert len(words) == 2 and sum(map(len, words)) == 9


def test_nothing_is_kept_unless_it_is_asked_for():
    model, rows = make_model(), TokenRows(5)
    assert score(model, TokenTask(), rows).said is None and score_tokens(model, TokenTask(), rows)[0].said is None
    assert score(model, TokenTask(), TokenRows(0), said=True).said is None
    asked = [score(model, TokenTask(), rows, said=True), score_tokens(model, TokenTask(), rows, said=True)[0]]
    for scores in asked:
        np.testing.assert_array_equal(scores.said.log_probs, heard(model, rows, batch_size=64).log_probs)
    splits = SimpleNamespace(forget=rows, test=TokenRows(3))
    for generates in (True, False):
        task = TokenTask()
        task.generates = generates
        found = score_splits(model, task, splits, ["forget", "test"], said=("forget",))
        assert (found["forget"].said is not None) == generates and found["test"].said is None


def test_rows_that_are_read_in_parts():
    """A row's tokens are those of all its parts, in order, whatever stands beside it."""
    model, _, task = lm_setup(torch.float64)
    task = get_task("causal_lm")(task.processor, {"text": "text"}, max_length=4)
    rows = splits_of(text_rows(74), task).forget
    found = [score_tokens(model, task, rows, said=True, batch_size=size) for size in (1, 4)]
    said = [scores.said for scores, _ in found]
    assert said[0].of == found[0][1].count.sum() == len(said[0]) and max(found[0][1].count) > 3
    np.testing.assert_allclose(said[0].log_probs, said[1].log_probs, atol=1e-3)


def scores_of(said: Said | None) -> dict:
    return {"forget": SimpleNamespace(said=said)}


def test_the_block():
    """Twins at 0 and 1, the unlearned model at 1: KL of e to 1 from even is 0.1201145, the other way 0.1109440."""
    even, uneven = words([0, 0], [0, 0]), words([0, -1], [0, -1])
    original = words([0, -1], [0, 0])
    block = said_instead_block(scores_of(original), scores_of(uneven), [scores_of(even), scores_of(uneven)])
    assert block["tokens"] == block["of"] == 2
    assert block["unlearned"] == pytest.approx(0.1201145 / 2, abs=1e-6)
    assert block["original"] == pytest.approx((0.1201145 / 2 + 0.1109440 / 2) / 2, abs=1e-6)
    assert block["each"] == pytest.approx([0.1109440, 0.1201145], abs=1e-6)
    assert block["twins"] == pytest.approx(0.1155293, abs=1e-6)
    # Over two values a and b the standard error is |a − b|/2; the original's second token is another than the model's.
    change = (0.1201145 - 0.1109440) / 2
    assert block["standard_errors"] == pytest.approx(
        {"original": abs(change) / 2, "unlearned": 0, "twins": 0, "change": abs(change) / 2}, abs=1e-6
    )


def test_tokens_of_a_row_are_not_taken_as_independent():
    """Two rows of two tokens: 0.1201145 each in one, 0 in the other. By row the deviations from the mean, 0.0600572,
    add up to ±0.1201145: √(2/1 · 2 · 0.1201145²)/4; independent tokens would have 0.0600572·√(4/3)/2 = 0.0346741."""
    even, model = words(*[[0, 0]] * 4), words([0, -1], [0, -1], [0, 0], [0, 0], rows=[3, 3, 8, 8])
    block = said_instead_block(None, scores_of(model), [scores_of(even)])
    assert block["standard_errors"]["unlearned"] == pytest.approx(0.0600572, abs=1e-6)
    same = said_instead_block(None, scores_of(words([0, -1], [0, 0], rows=[3, 3])), [scores_of(words([0, 0], [0, 0]))])
    assert same["standard_errors"]["unlearned"] is None  # one row says nothing of others


def test_what_cannot_be_known_is_not_there():
    even, uneven = scores_of(words([0, 0])), scores_of(words([0, -1]))
    assert said_instead_block(even, uneven, []) is None  # no twin
    assert said_instead_block(scores_of(None), scores_of(None), [scores_of(None)]) is None  # no words
    one = said_instead_block(None, uneven, [even])
    assert one["unlearned"] == pytest.approx(0.1201145, abs=1e-6) and one["original"] is None
    assert one["twins"] is None and one["each"] == [] and set(one["standard_errors"].values()) == {None}


WORKER = """
import os
import sys
import numpy as np, torch
import torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from toy_tokens import TokenRows, TokenTask, make_model
from hf_unlearn.evaluation import said
from hf_unlearn.evaluation.scoring import score

said.Listener.__init__.__defaults__ = (9,)
dist.init_process_group("gloo")
assert dist.get_world_size() == 2
rank = dist.get_rank()
from torch.distributed.fsdp import fully_shard
sharded = make_model()
fully_shard(sharded[0])
fully_shard(sharded)
for size in (0, 1, 3, 11):
    for name, model in (("plain", make_model()), ("fsdp", sharded)):
        found = score(model, TokenTask(), TokenRows(size), said=True, batch_size=3).said
        assert (found is None) == (size == 0)
        if size:
            assert found.of == sum(1 + i % 4 for i in range(size)), (size, found.of)
            np.save(f"{sys.argv[2]}/{name}-{size}-{rank}.npy", found.log_probs)
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.slow
def test_two_processes_hear_what_one_hears(tmp_path):
    """Also where one of them has no row, and where FSDP fills shares up with repeats."""
    done = processes.run(WORKER, str(Path(__file__).parents[1]), str(tmp_path), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    for size in (1, 3, 11):
        expected = heard(make_model(), TokenRows(size), 9)
        for name in ("plain", "fsdp"):
            both = [np.load(tmp_path / f"{name}-{size}-{rank}.npy") for rank in (0, 1)]
            np.testing.assert_array_equal(*both)
            np.testing.assert_allclose(both[0], expected.log_probs, atol=1e-3)
