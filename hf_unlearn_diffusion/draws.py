"""The timesteps and noises at which a row is scored: drawn from its content, the same whenever it is scored."""

import hashlib

import numpy as np
import torch

DRAWS = 8  # timesteps at which a row is scored, one in each eighth of the schedule


def seed_of(pixels: torch.Tensor, label: int) -> int:
    """A seed of 63 bits from a row's pixels and class: neither its place nor its neighbours matter."""
    content = pixels.contiguous().numpy().tobytes() + str(label).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1


def fixed_draws(
    seeds: list[int], shape: tuple[int, ...], steps: int, draws: int = DRAWS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Timesteps `(draws, rows)`, int64, and noises `(draws, rows, *shape)`, float32, each row's from its own seed.

    The k-th timestep of a row lies in the k-th of `draws` equal parts of the schedule of `steps` steps, so that the
    mean over the draws says little of luck.
    """
    times, noises = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        places = (np.arange(draws) + rng.random(draws)) / draws
        times.append(np.minimum((places * steps).astype(np.int64), steps - 1))
        noises.append(rng.standard_normal((draws, *shape), dtype=np.float32))
    if not seeds:
        return torch.zeros(draws, 0, dtype=torch.int64), torch.zeros(draws, 0, *shape)
    return torch.from_numpy(np.stack(times, 1)), torch.from_numpy(np.stack(noises, 1))
