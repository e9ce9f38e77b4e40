"""The Frechet distance between two Gaussians."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qbench.metrics.metric import Gaussian

if TYPE_CHECKING:
    from qbench.metrics.metric import Array


def gaussian(features: Array) -> Gaussian:
    """Return mean and covariance of features [count, D], count at least 2."""
    return Gaussian(features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    Source: Heusel et al. 2017, arXiv 1706.08500, equation 6. The trace of the root is the sum of the roots of the
    eigenvalues of S C2 S with S the symmetric root of C1, a symmetric matrix: float64 throughout, no complex numbers,
    and eigenvalues that rounding made negative count as 0.
    """
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ second.covariance @ root)
    shift = first.mean - second.mean
    trace = np.trace(first.covariance) + np.trace(second.covariance) - 2 * np.sqrt(product.clip(min=0)).sum()
    return float(shift @ shift + trace)
