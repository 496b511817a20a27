"""The Fréchet distance between two clouds of features, each taken as a normal distribution."""

import numpy as np


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float | None:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) of two clouds `(rows, features)` (Dowson and Landau 1982).

    With the features of an Inception network it is the FID (Heusel et al. 2017, arXiv 1706.08500); with others it
    compares with figures on the same features alone. It falls with the number of rows: compare clouds of like size.
    `None` for clouds of fewer than two rows.
    """
    if min(len(first), len(second)) < 2:
        return None
    means = [cloud.mean(0) for cloud in (first, second)]
    spreads = [np.atleast_2d(np.cov(cloud, rowvar=False)) for cloud in (first, second)]
    root = _root(spreads[0])
    # tr (Σ₁Σ₂)^½ is the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ spreads[1] @ root), 0, None)).sum()
    away = np.sum((means[0] - means[1]) ** 2)
    return float(max(0.0, away + np.trace(spreads[0]) + np.trace(spreads[1]) - 2 * shared))


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric root of a covariance."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
