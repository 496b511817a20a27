"""Exactly the k largest, by a reference that sorts, whatever the values and however the tensors are sharded."""

import threading

import pytest
import torch

from hf_unlearn.errors import UserError
from hf_unlearn.saliency import selection
from hf_unlearn.saliency.selection import matching_names, select_top

SHAPES = {"a.weight": (37, 11), "a.bias": (37,), "b.weight": (5, 3, 2, 2), "scale": (), "none": (0, 4)}


def by_sorting(scores, k):
    """Stable descending order over all values: ties go to the first."""
    flat = torch.cat([value.reshape(-1) for value in scores.values()])
    keep = torch.zeros(len(flat), dtype=torch.bool)
    keep[torch.argsort(flat, descending=True, stable=True)[:k]] = True
    parts = keep.split([value.numel() for value in scores.values()])
    return {name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def values(kind, shape, generator):
    x = torch.randn(shape, generator=generator).abs()
    if kind == "heavy":
        return x * torch.exp(6 * torch.randn(shape, generator=generator))
    if kind == "ties":
        return (3 * x).round() / 7
    if kind == "near":  # ties, and values that differ from them in the last bits only
        return 1 + (3 * x).round() * 2.0**-23
    if kind == "zeros":
        return torch.where(torch.rand(shape, generator=generator) < 0.8, 0.0, x)
    if kind == "denormal":
        return x * 1e-42
    if kind == "equal":
        return torch.full(shape, 0.25)
    return x * 1e-6


def scores_of(kind, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = {name: values(kind, shape, generator) for name, shape in SHAPES.items()}
    if kind == "huge":
        scores["a.bias"][3] = 3.4e38
    return scores


def same(found, expected):
    return all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["plain", "heavy", "ties", "near", "zeros", "denormal", "equal", "huge"])
@pytest.mark.parametrize("chunk", [7, 1 << 18])
def test_equals_sorting(kind, chunk, monkeypatch):
    monkeypatch.setattr(selection, "_CHUNK", chunk)
    scores = scores_of(kind)
    total = sum(value.numel() for value in scores.values())
    for k in (1, 2, 50, total // 2, total - 1, total):
        masks, threshold = select_top(scores, count=k)
        expected = by_sorting(scores, k)
        assert same(masks, expected)
        assert threshold == min(scores[name][mask].min() for name, mask in masks.items() if mask.any())
        assert all(masks[name].shape == shape and masks[name].dtype == torch.bool for name, shape in SHAPES.items())


def test_denormals_count_where_arithmetic_flushes_them():
    scores = scores_of("denormal")
    expected = by_sorting(scores, 100)
    torch.set_flush_denormal(True)
    try:
        masks, _ = select_top(scores, count=100)
    finally:
        torch.set_flush_denormal(False)
    assert same(masks, expected)


@pytest.mark.parametrize("share, kept", [(1.0, 11), (0.5, 6), (0.05, 1), (0.4, 4)])
def test_share_is_rounded_halves_up(share, kept):
    masks, _ = select_top({"x": torch.arange(11.0)}, share=share)
    assert int(masks["x"].sum()) == kept and masks["x"][11 - kept :].all()


def test_per_tensor_keeps_the_share_of_each():
    scores = scores_of("heavy")
    scores["a.weight"] *= 1e6
    masks, threshold = select_top(scores, share=0.25, scope="per_tensor")
    expected = {name: by_sorting({name: s}, int(0.25 * s.numel() + 0.5))[name] for name, s in scores.items()}
    assert same(masks, expected)
    assert threshold == min(scores[name][mask].min() for name, mask in masks.items() if mask.any())


def test_patterns_leave_tensors_out_of_mask_and_share():
    scores = scores_of("plain")
    masks, _ = select_top(scores, share=0.5, include=["a.*", "b.*"], exclude=["*.bias"])
    inside = {name: scores[name] for name in ("a.weight", "b.weight")}
    assert same(masks, by_sorting(inside, int(0.5 * (37 * 11 + 60) + 0.5)))
    assert list(masks) == list(scores) and not masks["a.bias"].any() and not masks["scale"].any()


def test_patterns_that_match_nothing_name_the_nearest():
    with pytest.raises(UserError, match=r"'a.wieght' matches no trainable parameter; the nearest: a.weight"):
        matching_names(list(SHAPES), include=["a.wieght"])
    with pytest.raises(UserError, match="leave no trainable parameter"):
        matching_names(list(SHAPES), exclude=["*"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("nan"), -1.0])
def test_what_is_not_finite_is_refused(bad):
    scores = scores_of("plain")
    scores["b.weight"][0, 0, 0, 0] = bad
    with pytest.raises(UserError, match="not finite"):
        select_top(scores, share=0.5)


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"share": -0.1}, {"share": float("nan")},
                                   {"share": 1e-6}, {"count": 0}, {"count": 10**6},
                                   {"share": 0.5, "scope": "layer"}, {"count": 3, "scope": "per_tensor"}])  # fmt: skip
def test_wrong_requests_are_refused(wrong):
    with pytest.raises(UserError):
        select_top(scores_of("plain"), **wrong)


class Ranks:
    """Threads that play processes: `reduce` sums over all of them."""

    def __init__(self, size):
        self.size, self.barrier, self.given = size, threading.Barrier(size), [None] * size

    def run(self, work):
        results = [None] * self.size

        def one(rank):
            def reduce(tensor):
                self.given[rank] = tensor
                self.barrier.wait(10)
                total = torch.stack(self.given).sum(0)
                self.barrier.wait(10)
                return total

            results[rank] = work(rank, reduce)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


@pytest.mark.parametrize("kind", ["heavy", "ties", "near", "zeros", "equal"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("scope", ["global", "per_tensor"])
def test_bit_identical_however_it_is_sharded(kind, size, scope):
    scores = {name: value for name, value in scores_of(kind).items() if value.dim()}
    expected, threshold = select_top(scores, share=0.37, scope=scope)
    # As FSDP splits them: equal parts of the first dimension, a short one, then nothing.
    parts = {name: [*value.chunk(size), *[value[:0]] * size] for name, value in scores.items()}

    def work(rank, reduce):
        mine = {name: part[rank] for name, part in parts.items()}
        return select_top(mine, share=0.37, scope=scope, reduce=reduce, rank=rank, world_size=size)

    results = Ranks(size).run(work)
    assert all(found == threshold for _, found in results)
    assert same({name: torch.cat([masks[name] for masks, _ in results]) for name in scores}, expected)
