"""The Frechet distance between two Gaussians, and metrics that are one.

Source: Heusel et al. 2017, arXiv 1706.08500, equation 6: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

With C1 = R R^T the eigenvalues of C1 C2 are those of R^T C2 R, a symmetric matrix: float64 throughout, no complex
numbers, and eigenvalues that rounding made negative count as 0. R comes from Cholesky where C1 is positive definite
and from its eigenvectors where it is singular; for a reference that is done once. Where samples are fewer than
dimensions, C2 = X^T X / (n - 1) with centred rows X [n, D], and the matrix X R R^T X^T / (n - 1) [n, n] has the same
non-zero eigenvalues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qbench.errors import DataError, StageError
from qbench.metrics.metric import Against, Gaussian, Measured, SumMetric

if TYPE_CHECKING:
    from qbench.metrics.metric import Array, Sums
    from qbench.metrics.rows import Rows

SYMMETRY = 1e-6
"""How far a covariance may be from symmetric, relative to its largest entry: published files are float32."""
NEGATIVE = 1e-6
"""How far below 0 its smallest eigenvalue may be, relative to the largest one, for the same reason."""


def gaussian(features: Array) -> Gaussian:
    """Return mean and covariance of features [count, D].

    Raises:
        StageError: fewer than 2 rows, or one is not finite.
    """
    return _gaussian({"count": np.asarray(float(len(features))), **_moments(features)}, "features")


def gaussian_of(rows: Rows) -> Gaussian:
    """Return mean and covariance of features that need not fit in memory.

    Raises:
        StageError: fewer than 2 rows, or one is not finite.
    """
    sums: dict[str, Array] = {"count": np.asarray(float(len(rows)))}
    for chunk in rows.chunks():
        for name, part in _moments(chunk).items():
            sums[name] = sums[name] + part if name in sums else part
    return _gaussian(sums, "features")


def checked_statistics(mean: Array, covariance: Array, what: str) -> Gaussian:
    """Return statistics from outside as a Gaussian.

    Args:
        mean: [D].
        covariance: [D, D].
        what: begins the sentence of an error, such as a path.

    Raises:
        DataError: shapes that do not fit, a number that is not finite, or a covariance that is not symmetric, has a
            negative variance or is not positive semidefinite.
    """
    mean, covariance = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise DataError(
            f"{what}: a mean of shape {mean.shape} and a covariance of shape {covariance.shape} are no statistics: "
            "[D] and [D, D] are due"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise DataError(f"{what}: the statistics are not finite: compute them again from features that are")
    largest, half = np.abs(covariance).max(initial=0), covariance / 2  # a sum of wholes could overflow
    if np.abs(half - half.T).max(initial=0) > SYMMETRY * (largest / 2):
        raise DataError(f"{what}: the covariance is not symmetric: compute it again, in double precision")
    if (np.diagonal(covariance) < 0).any():
        raise DataError(f"{what}: the covariance has a negative variance: compute it again, in double precision")
    symmetric = half + half.T
    eigenvalues = np.linalg.eigvalsh(symmetric / (largest or 1))
    if eigenvalues.min(initial=0) < -NEGATIVE * eigenvalues.max(initial=0):
        raise DataError(
            f"{what}: the covariance is not positive semidefinite, as that of any features is: compute it again, in "
            "double precision"
        )
    return Gaussian(mean, symmetric)


def factored(statistics: Gaussian) -> Gaussian:
    """Return the same statistics with the root of their covariance."""
    if statistics.root is not None:
        return statistics
    try:
        root = np.asarray(np.linalg.cholesky(statistics.covariance), np.float64)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(statistics.covariance)
        kept = values > 0
        root = np.asarray(vectors[:, kept] * np.sqrt(values[kept]), np.float64)
    return Gaussian(statistics.mean, statistics.covariance, root)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Return the distance; the first is factored unless it is already.

    Raises:
        StageError: their dimensions differ.
    """
    _check_dimensions(first, len(second.mean))
    root = factored(first).root
    assert root is not None
    trace = float(np.trace(second.covariance))
    return _distance(first, second.mean, trace, root.T @ second.covariance @ root)


def frechet_distance_of_few(first: Gaussian, features: Array) -> float:
    """Return the distance of a Gaussian from features [count, D], for a count below D.

    Raises:
        StageError: fewer than 2 rows, one that is not finite, or another dimension.
    """
    _check_rows(len(features), bool(np.isfinite(features).all()), "features")
    _check_dimensions(first, features.shape[1])
    root = factored(first).root
    assert root is not None
    mean = features.mean(axis=0)
    centred = (features - mean) / np.sqrt(len(features) - 1)
    projected = centred @ root
    return _distance(first, mean, float((centred**2).sum()), projected @ projected.T)


class FrechetDistance(SumMetric):
    """Frechet distance between features of samples and of real images."""

    against = Against.REFERENCE
    direction = "lower"
    paper = "Heusel et al. 2017, arXiv 1706.08500"
    caveat = (
        "biased upwards, the more the fewer the samples (about as 1 / count): only figures of one sample count can be "
        "compared"
    )

    def sums(self, rows: Array, paired: Array | None) -> Sums:
        """Return count, sum [D] and sum of outer products [D, D]."""
        return {"count": np.asarray(float(len(rows))), **_moments(rows)}

    def compute(self, sums: Sums, reference: Gaussian | None) -> float:
        """Return the distance from the real images' statistics.

        Raises:
            StageError: fewer than 2 samples, features that are not finite, or of another dimension.
        """
        if reference is None:
            raise TypeError(f"{self.name} compares with statistics of real images")
        return frechet_distance(reference, _gaussian(sums, self.name))

    def measure(self, samples: Rows, against: Gaussian | Rows | None, groups: int) -> Measured:
        """Return the figure, and the figure without each group; see ``Metric``."""
        if not isinstance(against, Gaussian):
            raise TypeError(f"{self.name} compares with statistics of real images")
        reference = factored(against)
        if len(samples) > samples.shape[0]:
            return super().measure(samples, reference, groups)
        features = samples[:]  # at most D x D numbers
        group = np.arange(len(features)) % max(groups, 1)
        value = frechet_distance_of_few(reference, features)
        return Measured(
            value, tuple(frechet_distance_of_few(reference, features[group != left_out]) for left_out in range(groups))
        )


class FrechetDistanceToFullPrecision(FrechetDistance):
    """Frechet distance between features of samples and of the full-precision images of the same noise."""

    against = Against.FULL_PRECISION
    has_interval = False
    caveat = (
        "measures how far quantization moved the images as a set, not their quality; two equal sets of images give 0, "
        "and near 0 no interval means anything"
    )

    def sums(self, rows: Array, paired: Array | None) -> Sums:
        """Return the sums of both sides."""
        if paired is None:
            raise TypeError(f"{self.name} compares with full-precision images")
        own, other = super().sums(rows, None), _moments(paired)
        return {**own, **{f"full-precision {name}": part for name, part in other.items()}}

    def compute(self, sums: Sums, reference: Gaussian | None) -> float:
        """Return the distance of the two sides.

        Raises:
            StageError: fewer than 2 samples, or features that are not finite.
        """
        baseline = {name.removeprefix("full-precision "): part for name, part in sums.items() if " " in name}
        return frechet_distance(_gaussian({"count": sums["count"], **baseline}, self.name), _gaussian(sums, self.name))

    def measure(self, samples: Rows, against: Gaussian | Rows | None, groups: int) -> Measured:
        """Return the figure; see ``Metric``."""
        if against is None or isinstance(against, Gaussian):
            raise TypeError(f"{self.name} compares with full-precision images")
        if len(samples) > samples.shape[0]:
            return SumMetric.measure(self, samples, against, 0)
        baseline = against[:]
        _check_rows(len(baseline), bool(np.isfinite(baseline).all()), self.name)
        mean = baseline.mean(axis=0)
        root = ((baseline - mean) / np.sqrt(len(baseline) - 1)).T
        return Measured(frechet_distance_of_few(Gaussian(mean, root @ root.T, root), samples[:]))


def _moments(rows: Array) -> dict[str, Array]:
    return {"sum": rows.sum(axis=0), "outer": rows.T @ rows}


def _gaussian(sums: Sums, what: str) -> Gaussian:
    count = float(sums["count"])
    _check_rows(count, bool(np.isfinite(sums["outer"]).all()), what)
    mean = sums["sum"] / count
    return Gaussian(mean, (sums["outer"] - count * np.outer(mean, mean)) / (count - 1))


def _check_rows(count: float, is_finite: bool, what: str) -> None:
    if count < 2:
        raise StageError(f"{what}: a Frechet distance needs at least 2 samples")
    if not is_finite:
        raise StageError(f"{what}: the features of some images are not finite")


def _check_dimensions(first: Gaussian, dimensions: int) -> None:
    if len(first.mean) != dimensions:
        raise StageError(
            f"the features have {dimensions} dimensions and the statistics that they are compared with "
            f"{len(first.mean)}: they are of another extractor"
        )


def _distance(first: Gaussian, mean: Array, trace: float, product: Array) -> float:
    roots = np.sqrt(np.linalg.eigvalsh(product).clip(min=0)).sum()
    shift = first.mean - mean
    return float(shift @ shift + np.trace(first.covariance) + trace - 2 * roots)
