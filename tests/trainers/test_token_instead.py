"""What is said in the place of forgotten tokens: the term by hand, when it acts, and whom it believes."""

import numpy as np
import pytest
import torch
from toy import lm_setup

from hf_unlearn.methods.nabla_tau import NablaTauConfig, NablaTauTrainer
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers import token_instead
from hf_unlearn.trainers.split_output import SplitOutput
from hf_unlearn.trainers.target_sources import Asked, Said
from hf_unlearn.trainers.token_targets import TokenLogOdds

P = np.array([[0.7, 0.2, 0.06, 0.04], [0.1, 0.6, 0.2, 0.1], [0.25, 0.25, 0.3, 0.2]])  # three tokens, four words
LABELS = torch.tensor([0, 1, 3])
OWNER = torch.tensor([0, 0, 1])  # two rows


def packed(log_probs, words):
    return token_instead.packed(torch.tensor(log_probs), torch.tensor(words)).numpy()


def output(scale=1 / 2):
    logits = torch.tensor(np.log(P)).requires_grad_()
    return logits, SplitOutput("forget", Predictions(logits, LABELS, 2, OWNER), torch.tensor([1, 0]), scale)


def test_the_likeliest_words_but_the_true_ones_by_hand():
    _, forget = output()
    found = token_instead.likeliest_others(forget.predictions).numpy()
    assert found.shape == (3, 2, 3) and found.dtype == np.int32
    words, log_probs = found[:, 1], found[:, 0].view(np.float32)
    assert words[0].tolist() == [1, 2, 3] and words[1, 0] == 2 and words[2, 0] == 2
    assert np.allclose(np.exp(log_probs[0]), np.array([0.2, 0.06, 0.04]) / 0.3)
    assert np.allclose(np.exp(log_probs[2]), np.array([0.3, 0.25, 0.25]) / 0.8)
    assert np.array_equal(token_instead.likeliest_others(forget.predictions, 2).numpy(), found[:, :, :2])


def test_many_tokens_leave_room_for_few_words_of_each(monkeypatch, tmp_path):
    t = make(tmp_path, max_steps=1)
    rows = t.splits.forget
    tokens = len(read_forget_rows(t).labels)
    for room, words in ((1.0, 64), (0.5, 32), (0.2, 12), (0.01, 8)):
        monkeypatch.setattr(token_instead, "ROOM", int(room * 8 * 64 * tokens))
        assert token_instead.words_kept(rows) == words
    t.train()
    assert t.method_state[token_instead.WORDS].shape == (tokens, 8)
    assert torch.allclose(t.method_state[token_instead.LOG_PROBS].exp().sum(1), torch.ones(tokens))


def test_the_term_and_its_gradient_by_hand():
    logits, forget = output()
    # Row 1 of the split stands first in the batch, with two tokens; row 0 has one.
    words = np.array([[0, 1], [1, 2], [2, 3]])
    shares = np.array([[0.9, 0.1], [0.5, 0.5], [0.25, 0.75]])
    state = token_instead.kept(packed(np.log(shares) - 3.0, words))  # of a place, they add up to one
    targets = np.array([-2.0, 1.5, -0.5])  # log-odds of the true tokens, to be said in 12, 82 and 38 % of cases
    state |= {"token_start": torch.tensor([0, 1, 3]), "token_targets": torch.tensor(targets)}
    loss = token_instead.instead(state, forget, at=0.0)
    q = np.zeros((3, 4))  # by token of the batch
    q[[0, 0], [1, 2]], q[[1, 1], [2, 3]], q[[2, 2], [0, 1]] = (shares[1], shares[2], shares[0])
    others = P.copy()
    others[np.arange(3), LABELS] = 0
    others /= others.sum(1, keepdims=True)
    often = 1 / (1 + np.exp(targets[[1, 2, 0]]))
    of_tokens = -often * (q * np.log(np.where(others > 0, others, 1))).sum(1)
    assert loss.item() == pytest.approx((of_tokens[:2].mean() + of_tokens[2]) / 2, rel=1e-6)
    loss.backward()
    by_hand = (others - q) * (often * [1 / 4, 1 / 4, 1 / 2])[:, None]
    assert np.allclose(logits.grad.numpy(), by_hand, atol=1e-7)
    assert logits.grad.gather(1, LABELS[:, None]).abs().max() < 1e-15  # how much is forgotten is not its business


def test_it_acts_in_the_first_third_and_where_somebody_was_asked():
    _, forget = output()
    state = token_instead.kept(packed(np.zeros((3, 2)), np.array([[1, 2]] * 3)))
    state |= {"token_start": torch.tensor([0, 1, 3]), "token_targets": torch.zeros(3)}
    assert token_instead.instead(state, forget, at=0.33) > 0
    assert token_instead.instead(state, forget, at=token_instead.UNTIL) == 0.0
    assert token_instead.instead({"token_start": state["token_start"]}, forget, at=0.0) == 0.0


class Source:
    """Reads unseen rows with such a mean loss, and says `words`, `(tokens, 2)`, in the place of forget tokens."""

    name = "somebody"

    def __init__(self, trainer, loss, words=None):
        rows = (trainer.calibration_rows, trainer.splits.forget)
        self.counts = [trainer.look(each, trainer.model).by_token.count for each in rows]
        self.loss, self.words = loss, words

    def ask(self, trainer):
        seen, asked = map(self._said, self.counts)
        if self.words is not None:
            asked.others = packed(np.zeros(self.words.shape), self.words)
        return Asked(seen, asked)

    def _said(self, counts):
        tokens = TokenLogOdds(np.full(counts.sum(), -np.log(np.expm1(self.loss))), counts)
        return Said(np.zeros((len(counts), 1)), tokens, np.random.default_rng(0).normal(size=(len(counts), 3)))


def make(tmp_path, **values):
    model, splits, task = lm_setup(torch.float64)
    options = {"variant": "tokens", "proxy_epochs": 1, "retrain_epochs": 3, "relearn_steps": 0} | values
    args = NablaTauConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", **options)
    return NablaTauTrainer(model, args, splits, task, quiet=True)


def read_forget_rows(trainer):
    rows = trainer.splits.forget
    batch = trainer.task.collate(rows.__getitems__(list(range(len(rows)))))
    with torch.no_grad():
        return trainer.task.predict(trainer.model, batch)


def words_beside(trainer):
    """Two words for each token of the forget rows, neither of them the true one."""
    said = read_forget_rows(trainer)
    return (said.labels.numpy()[:, None] + [1, 2]) % said.logits.shape[1]


def test_a_source_that_reads_unseen_rows_worse_than_the_model_lends_no_words(tmp_path):
    t = make(tmp_path)
    own, words = t.calibrate().by_token.mean_loss, words_beside(t)
    for times, lends in ((0.5, True), (1.05, True), (1.5, False)):
        t.source = Source(t, times * own, words)
        state = t.prepare()
        assert (token_instead.WORDS in state) is lends
        assert "targets" in state


def test_forgotten_rows_are_led_to_the_words_of_the_source(tmp_path):
    said = {}
    for lends in (True, False):
        t = make(tmp_path / str(lends), max_steps=16, learning_rate=1e-2)
        words = torch.tensor(words_beside(t))
        t.source = Source(t, t.calibrate().by_token.mean_loss, words.numpy() if lends else None)
        before = read_forget_rows(t).logits.softmax(1).gather(1, words).sum(1).mean()
        t.train()
        said[lends] = read_forget_rows(t).logits.softmax(1).gather(1, words).sum(1).mean() / before
    assert said[True] > 1.1 > said[False]


def test_a_run_asks_its_proxy(tmp_path):
    t = make(tmp_path, max_steps=2)
    assert token_instead.PLAN in t.plan() and token_instead.PLAN not in make(tmp_path, variant="rows").plan()
    t.train()
    said = read_forget_rows(t)
    places, words = said.logits.shape
    kept = t.method_state[token_instead.WORDS]
    assert kept.shape == (places, words - 1)  # the vocabulary is smaller than what is kept
    assert torch.equal(kept.long().sort().values[:, 0], (said.labels == 0).long())  # every word but the true one
    assert torch.allclose(t.method_state[token_instead.LOG_PROBS].exp().sum(1), torch.ones(places))
