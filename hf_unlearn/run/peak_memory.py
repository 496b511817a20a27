"""The most memory that a run took."""

import sys

import torch


def peak_memory_mb() -> float | None:
    """Peak memory of the GPU during unlearning, or of the whole process on a CPU, in MB; `None` where the system does
    not tell."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
