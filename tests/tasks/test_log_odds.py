"""Log-odds and losses of a vocabulary's logits, chunk by chunk, against the plain formulas."""

import math

import pytest
import torch
import torch.nn.functional as F

from hf_unlearn.tasks import row_chunks
from hf_unlearn.tasks.mean_loss import log_odds_of_mean
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.tasks.row_chunks import by_rows, log_odds

EXAMPLE = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 2, 3, 3])


def some_logits(dtype, rows=11, classes=50, scale=8.0):
    generator = torch.Generator().manual_seed(0)
    logits = (scale * torch.randn(rows, classes, generator=generator)).to(dtype).requires_grad_()
    return logits, torch.randint(classes, (rows,), generator=generator)


def plain_log_odds(logits, labels):
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return own - logits.scatter(1, labels[:, None], float("-inf")).logsumexp(1)


@pytest.fixture(params=[1, 3, 2**22], ids=["row by row", "three rows", "at once"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(row_chunks, "CHUNK", request.param * 50)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_odds_and_their_gradient_are_those_of_the_plain_form(chunks, dtype):
    logits, labels = some_logits(dtype)
    slope = torch.linspace(-1, 2, 11, dtype=dtype)
    values = []
    for function in (log_odds, plain_log_odds):
        found = function(logits, labels)
        (gradient,) = torch.autograd.grad((found * slope).sum(), logits)
        values.append((found, gradient))
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-6)


def test_the_backward_of_the_log_odds_is_their_derivative():
    logits, labels = some_logits(torch.float64, rows=3, classes=6, scale=2.0)
    assert torch.autograd.gradcheck(lambda z: log_odds(z, labels[:3] % 6), logits)


def test_half_precision_logits_get_a_gradient_of_their_own_type():
    logits, labels = some_logits(torch.bfloat16)
    found = log_odds(logits, labels)
    assert found.dtype == torch.float32
    found.sum().backward()
    wide = logits.detach().float().requires_grad_()
    plain_log_odds(wide, labels).sum().backward()
    assert logits.grad.dtype == torch.bfloat16
    torch.testing.assert_close(logits.grad, wide.grad.bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_are_cross_entropies(chunks, dtype):
    logits, labels = some_logits(dtype)
    predictions = Predictions(logits, labels, 11)
    others = (labels + 1) % 50
    for found, target in ((predictions.loss, labels), (predictions.loss_for(others), others)):
        expected = F.cross_entropy(logits, target, reduction="none")
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        ours, plain = (torch.autograd.grad(loss.sum(), logits)[0] for loss in (found, expected))
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_figures_in_chunks_keep_their_values_and_gradients(monkeypatch, dtype):
    logits, labels = some_logits(dtype)
    names = ("entropy", "confidence", "modified_entropy", "token_sd_log_prob", "log_odds", "loss")
    found = []
    for chunk in (2**22, 100):
        monkeypatch.setattr(row_chunks, "CHUNK", chunk)
        predictions = Predictions(logits, labels, 4, EXAMPLE)
        values = [getattr(predictions, name) for name in names]
        slopes = [torch.autograd.grad(value.sum(), logits, retain_graph=True)[0] for value in values]
        found.append(values + slopes)
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-7)


def test_no_chunk_is_kept_for_the_backward():
    logits, labels = some_logits(torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        log_odds(logits, labels)
        by_rows(lambda log_probs, y: log_probs.exp().amax(1), logits, labels)
    assert {t.data_ptr() for t in kept if t.numel() >= logits.numel()} <= {logits.data_ptr()}


# φ = −log expm1(mean loss), with losses down to e^−300.


def saturated(gaps, dtype):
    """Logits `(tokens, 3)` whose first one leads the others by `gaps`."""
    logits = torch.zeros(len(gaps), 3, dtype=dtype)
    logits[:, 0] = torch.tensor(gaps, dtype=dtype)
    return logits.requires_grad_()


def exact(gaps):
    """φ of the mean of log(1 + 2·e^−gap), in decimals of 400 digits; and ∂φ/∂gap of each token."""
    from decimal import Decimal, getcontext

    getcontext().prec = 400
    terms = [1 + 2 * (-Decimal(gap)).exp() for gap in gaps]
    mean = sum(term.ln() for term in terms) / len(gaps)
    phi = -(mean.exp() - 1).ln()
    slope = -mean.exp() / (mean.exp() - 1)  # dφ/dm
    slopes = [slope * (-2 * (-Decimal(gap)).exp() / term) / len(gaps) for gap, term in zip(gaps, terms, strict=True)]
    return float(phi), [float(value) for value in slopes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "gaps",
    [[300, 300], [300, 280, 299], [300, 2], [40, 31, 29.5, 29], [8, 6.5], [6.2, 7], [0, 1], [-3, 4], [-300, -250],
     [-300, 300], [300]],
)  # fmt: skip
def test_log_odds_of_an_example_are_exact_at_any_gap(dtype, gaps):
    logits = saturated(gaps, dtype)
    predictions = Predictions(logits, torch.zeros(len(gaps), dtype=torch.long), 1, torch.zeros(len(gaps)).long())
    value, slopes = exact(gaps)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-12
    assert predictions.log_odds.item() == pytest.approx(value, rel=tolerance, abs=tolerance)
    (gradient,) = torch.autograd.grad(predictions.log_odds.sum(), logits)
    rounding = 1e-4 if dtype == torch.float32 else 1e-11
    assert gradient[:, 0].tolist() == pytest.approx(slopes, rel=rounding, abs=1e-30)


def test_the_best_memorized_row_is_pushed_hardest_of_all():
    """Where every token is sure, φ falls by as much as the logits' lead does: there is a gradient to follow."""
    logits = saturated([300, 300, 300, 300], torch.float32)
    Predictions(logits, torch.zeros(4, dtype=torch.long), 1, torch.zeros(4).long()).log_odds.sum().backward()
    assert logits.grad[:, 0].sum().item() == pytest.approx(1.0)
    assert logits.grad.isfinite().all()


def test_one_token_has_the_log_odds_of_its_example():
    values = torch.tensor([-400.0, -30.0, -1.0, 0.0, 5.0, 6.9, 7.0, 29.0, 31.0, 400.0], dtype=torch.float64)
    found = log_odds_of_mean(values, torch.arange(10), 10)
    torch.testing.assert_close(found, values, rtol=1e-13, atol=1e-13)


def test_halves_share_one_gradient_of_the_logits(monkeypatch):
    logits, labels = some_logits(torch.float64)
    backwards = []
    real = row_chunks._LogOdds.backward
    monkeypatch.setattr(row_chunks._LogOdds, "backward", lambda ctx, g: backwards.append(1) or real(ctx, g))
    first, second = Predictions(logits, labels, 4, EXAMPLE).split(2)
    (first.log_odds.sum() + 2 * second.loss.sum()).backward()
    parts = Predictions(logits, labels, 4, EXAMPLE)
    expected = parts.log_odds[:2].sum() + 2 * parts.loss[2:].sum()
    assert len(backwards) == 1
    torch.testing.assert_close(logits.grad, torch.autograd.grad(expected, logits)[0])


def test_what_was_measured_without_gradients_does_not_lose_them_later():
    logits, labels = some_logits(torch.float32)
    predictions = Predictions(logits, labels, 11)
    with torch.no_grad():
        assert not predictions.loss.requires_grad
        halves = predictions.split(4)
    assert predictions.loss.requires_grad and all(half.loss.requires_grad for half in halves)
    assert predictions.label_log_odds is predictions.label_log_odds


def test_a_vocabulary_is_never_copied_as_a_whole(monkeypatch):
    """Beside the logits and their gradient, a step allocates chunks: told by the largest tensor that an op makes."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for made in out if isinstance(out, (tuple, list)) else (out,):
                if torch.is_tensor(made) and made.dtype == torch.float32:
                    largest[0] = max(largest[0], made.numel())
            return out

    monkeypatch.setattr(row_chunks, "CHUNK", 100)  # two rows
    logits, labels = some_logits(torch.bfloat16)
    with Watch():
        for name in ("loss", "log_odds", "entropy", "confidence", "modified_entropy", "correct", "token_sd_log_prob"):
            figure = getattr(Predictions(logits, labels, 4, EXAMPLE), name).sum()
            if figure.requires_grad:
                figure.backward()
    assert largest[0] <= 100 and math.isfinite(float(logits.grad.float().sum()))
