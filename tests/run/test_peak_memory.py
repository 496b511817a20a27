"""The figure of memory that stands in evidence and plan."""

import sys

import numpy as np
import pytest
import torch

from hf_unlearn.run.peak_memory import peak_memory_mb
from hf_unlearn.run.plan import _memory

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's memory is told instead")


@on_cpu
@pytest.mark.skipif(sys.platform == "win32", reason="there it is not told")
def test_a_large_array_shows():
    before = peak_memory_mb()
    held = np.ones(int(before + 64) * 2**17)  # more than was ever held, in MB of float64
    assert held.nbytes / 2**20 <= peak_memory_mb() < 3 * held.nbytes / 2**20


@on_cpu
def test_a_system_that_does_not_tell_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory_mb() is None
    assert _memory(None, 1000).startswith("not known")


def test_the_optimizer_takes_two_numbers_a_weight():
    assert _memory(100.0, 2**20) == "about 108 MB a process: the step that was tried, and the optimizer's state"
