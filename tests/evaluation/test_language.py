"""Metrics and attacks of language models, from per-token arrays."""

import math
import zlib

import numpy as np
import pytest
from scipy.stats import kstest
from scipy.stats.mstats import hmean

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation import language_attacks as attacks
from hf_unlearn.evaluation import language_metrics as metrics
from hf_unlearn.evaluation.token_scores import TokenScores

ROWS = [[-0.1, -3.0, -0.5, -0.2, -2.0], [-1.0], [-4.0, -0.4]]
HITS = [[1, 0, 1, 1, 1], [1], [0, 0]]


def tokens(rows=ROWS, hits=HITS, mean=-1.0, sd=0.5):
    log_prob = np.array([value for row in rows for value in row])
    flat = np.array([hit for row in hits for hit in row], float)
    count = np.array([len(row) for row in rows], int)
    return TokenScores(log_prob, flat, np.full_like(log_prob, mean), np.full_like(log_prob, sd), count)


def test_rows_come_back():
    t = tokens()
    assert [row.tolist() for row in t.of_rows(t.log_prob)] == ROWS and len(t) == 3
    empty = tokens([], [])
    assert len(empty) == 0 and empty.of_rows(empty.log_prob) == [] and metrics.extraction_strength(empty).shape == (0,)
    holes = tokens([[], [-1.0], []], [[], [1], []])
    for function in (
        metrics.probability,
        metrics.exact_memorization,
        metrics.extraction_strength,
        attacks.min_k_score,
    ):
        assert np.isnan(function(holes)).tolist() == [True, False, True]


def test_probability_and_recall_by_hand():
    assert metrics.probability(tokens()) == pytest.approx([math.exp(-5.8 / 5), math.exp(-1), math.exp(-2.2)])
    assert metrics.exact_memorization(tokens()) == pytest.approx([0.8, 1.0, 0.0])
    assert metrics.normalised_probability([0.2, 0.5], [[0.1, 0.1], [0.0, 0.0]]) == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize(
    "hits, strength",
    [([0, 0, 0, 0], 0.0), ([1, 1, 1, 1], 1.0), ([0, 1, 1, 1], 0.75), ([1, 0, 1, 1], 0.5), ([1, 1, 1, 0], 0.0),
     ([0, 0, 0, 1], 0.25), ([0], 0.0), ([1], 1.0)],
)  # fmt: skip
def test_extraction_strength(hits, strength):
    assert metrics.extraction_strength(tokens([[-1.0] * len(hits)], [hits])).tolist() == [strength]


def test_extraction_strength_is_the_longest_suffix_that_completes_itself():
    rng = np.random.default_rng(0)
    for _ in range(50):
        hits = rng.integers(0, 2, rng.integers(1, 9))
        k = next(k for k in range(len(hits) + 1) if all(hits[k:]))
        assert metrics.extraction_strength(tokens([hits], [hits])) == pytest.approx([1 - k / len(hits)])


def test_rouge_l_recall():
    found = metrics.rouge_l_recall(["the cat sat down", "", "cats"], ["the cat lay down", "a b", "cat"])
    assert found == pytest.approx([0.75, 0.0, 1.0])  # three of four words in order; nothing; the same stem


def test_truth_ratio_by_hand():
    """The paraphrase has probability 0.5 a token, the wrong answers 0.1 and 0.4: their geometric mean is 0.2."""
    ratio = metrics.truth_ratio([-math.log(0.5)], [[-math.log(0.1), -math.log(0.4)]])
    assert ratio == pytest.approx([0.4])
    both = np.array([0.4, 2.5])
    assert metrics.truth_ratio_forget(both) == pytest.approx(0.4)
    assert metrics.truth_ratio_utility(both) == pytest.approx(0.3)
    assert metrics.truth_ratio_forget(np.array([0.0, np.inf])) == 0.0
    for undefined in (np.empty(0), np.array([np.nan, 1.0])):
        assert metrics.truth_ratio_forget(undefined) is metrics.truth_ratio_utility(undefined) is None


def test_forget_quality_is_the_two_sample_test():
    rng = np.random.default_rng(0)
    ratio, twin = rng.random(40), rng.random(40) ** 2
    expected = kstest(ratio, twin)
    assert metrics.forget_quality(ratio, twin) == pytest.approx(
        {"distance": expected.statistic, "p_value": expected.pvalue}
    )
    assert metrics.forget_quality(ratio, ratio) == {"distance": 0.0, "p_value": 1.0}
    assert metrics.forget_quality(ratio, np.empty(0)) == {"distance": None, "p_value": None}


def test_forget_quality_of_samples_wholly_apart():
    """Two of all the ways in which 400 rows can be dealt to two sides look like this."""
    found = metrics.forget_quality(np.linspace(0, 1, 200), np.linspace(2, 3, 200))
    assert found["distance"] == 1.0 and found["p_value"] == pytest.approx(2 / math.comb(400, 200), rel=1e-6)


def test_model_utility():
    three = dict(zip(metrics.RETAIN_FIGURES, (0.9, 0.5, 0.3), strict=True))
    assert (
        metrics.model_utility(three)
        == pytest.approx(3 / (1 / 0.9 + 2 + 1 / 0.3))
        == pytest.approx(hmean(list(three.values())))
    )
    nine = dict.fromkeys(metrics.UTILITY_FIGURES, 0.5)
    assert len(nine) == 9 and metrics.model_utility(nine) == pytest.approx(0.5)
    assert metrics.model_utility(nine | {"world_facts_rouge": 0.0}) == 0.0
    assert metrics.model_utility(three | {"retain_rouge": None}) is None
    with pytest.raises(UserError, match="retain_rouge"):
        metrics.model_utility({"retain_rouge": 0.5})


def test_priv_leak():
    assert metrics.priv_leak(0.5, 0.5) == 0.0
    assert metrics.priv_leak(1.0, 0.5) == -100.0  # as well told from unseen rows as can be
    assert metrics.priv_leak(0.0, 0.5) == 100.0
    assert metrics.priv_leak(0.7, 0.6) == pytest.approx(100 * ((1 - 0.7) - (1 - 0.6)) / (1 - 0.6))
    assert metrics.priv_leak(0.5, 1.0) is metrics.priv_leak(None, 0.5) is None


def test_min_k_by_hand():
    assert attacks.min_k_score(tokens(), 0.4) == pytest.approx([-2.5, -1.0, -4.0])  # of one or two tokens, one
    assert attacks.min_k_score(tokens(), 1.0) == pytest.approx(attacks.loss_score(tokens()))
    assert attacks.min_k_plus_plus_score(tokens(), 0.4) == pytest.approx([-3.0, 0.0, -6.0])
    with pytest.raises(UserError, match="share"):
        attacks.min_k_score(tokens(), 20)


def test_min_k_plus_plus_where_only_one_token_is_possible():
    sure = tokens([[0.0, -2.0]], [[1, 1]], mean=0.0, sd=0.0)
    assert attacks.min_k_plus_plus_score(sure, 0.5).tolist() == [0.0]


def test_loss_zlib_and_reference_scores():
    t, reference = tokens(), tokens([[-1.0] * 5, [-2.0], [-2.2, -2.2]])
    loss = np.array([-5.8 / 5, -1.0, -2.2])
    assert attacks.loss_score(t) == pytest.approx(loss)
    assert attacks.reference_score(t, reference) == pytest.approx(loss - [-1.0, -2.0, -2.2])
    texts = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ein Bär saß dort", "x"]
    sizes = attacks.zlib_bytes(texts)
    assert sizes.tolist() == [len(zlib.compress(text.encode())) for text in texts]
    assert attacks.zlib_score(t, sizes) == pytest.approx(loss / sizes)
    with pytest.raises(UserError, match="same rows"):
        attacks.reference_score(t, tokens([[-1.0]], [[1]]))


def test_definitions_differ_in_the_end_token_and_in_rows_that_never_match():
    tofu = metrics.DEFINITIONS["tofu"]
    # Right, wrong, right, and an end token that is wrong; a row of one token.
    hits = np.array([1.0, 0, 1, 0, 1])
    tokens = TokenScores(np.log([0.9, 0.1, 0.8, 0.2, 0.5]), hits, np.zeros(5), np.ones(5), np.array([4, 1]))
    assert metrics.exact_memorization(tokens).tolist() == [0.5, 1.0]
    assert metrics.exact_memorization(tokens, tofu) == pytest.approx([2 / 3, 1.0])
    assert metrics.extraction_strength(tokens).tolist() == [0.0, 1.0]
    assert metrics.extraction_strength(tokens, tofu) == pytest.approx([1 / 3, 1.0])
    never = TokenScores(np.zeros(4), np.zeros(4), np.zeros(4), np.ones(4), np.array([4]))
    assert metrics.extraction_strength(never).tolist() == [0.0]
    assert metrics.extraction_strength(never, tofu) == pytest.approx([1 / 3])
