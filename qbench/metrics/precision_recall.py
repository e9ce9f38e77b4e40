"""Precision and recall: how many samples look real, and how much of what is real has samples that look like it.

Source: Kynkaanniemi et al. 2019, arXiv 1904.06991. A set of points covers the balls around each of its points that
reach to the k-th nearest other one. Distances are computed block by block, so memory grows with the number of images
and not with its square.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from qbench.errors import StageError
from qbench.metrics.inception import NETWORK, TENSORFLOW_RESIZED, InceptionMetric
from qbench.metrics.inception_extractor import InceptionSettings
from qbench.metrics.metric import Against, Gaussian, Measured, RowsMetric

if TYPE_CHECKING:
    from numpy import bool_
    from numpy.typing import NDArray

    from qbench.metrics.metric import Array
    from qbench.metrics.rows import Rows

NOWHERE = -1.0
"""Squared radius of a ball that covers nothing, not even its centre."""


class PrecisionRecallSettings(InceptionSettings):
    """Settings of precision and recall."""

    neighbours: Annotated[int, Field(ge=1, description="a ball reaches to the neighbour of this rank")] = 3


class _Coverage(InceptionMetric, RowsMetric):
    paper = "Kynkaanniemi et al. 2019, arXiv 1904.06991"
    settings_class = PrecisionRecallSettings
    settings: PrecisionRecallSettings
    against = Against.REFERENCE
    direction = "higher"
    protocol = (
        f"{TENSORFLOW_RESIZED}, 2,048 pooled features of {NETWORK}, balls to the neighbour of rank {{neighbours}}"
    )
    caveat = "depends on the number of samples and of real images: only figures of the same two numbers can be compared"

    def compute(self, samples: Rows, against: Rows | None) -> float:
        """Return the share; see ``measure``."""
        return self.measure(samples, against, 0).value

    def _check(self, samples: Rows, against: Gaussian | Rows | None) -> Rows:
        if against is None or isinstance(against, Gaussian):
            raise TypeError(f"{self.name} compares with features of real images")
        if not all(np.isfinite(chunk).all() for rows in (samples, against) for chunk in rows.chunks()):
            raise StageError(f"{self.name}: the features of some images are not finite")
        return against


class Precision(_Coverage):
    """Share of samples that lie in what real images cover."""

    title = "precision: share of samples that look like real images"

    def measure(self, samples: Rows, against: Gaussian | Rows | None, groups: int) -> Measured:
        """Return the figure, and the figure without each group; see ``Metric``.

        Raises:
            StageError: too few samples or real images, or features that are not finite.
        """
        real = self._check(samples, against)
        inside = covered(samples, real, squared_radii(real, self.settings.neighbours))[0]
        of_group = np.arange(len(inside)) % max(groups, 1)
        without = tuple(float(inside[of_group != group].mean()) for group in range(groups))
        return Measured(float(inside.mean()), without)


class Recall(_Coverage):
    """Share of real images that lie in what samples cover.

    Without a group of samples there are holes where balls were, so the jackknife errs on the wide side: on 400 samples
    of 4 dimensions its intervals were 1.5 times (one figure) and 1.9 times (a difference) as wide as they had to be.
    """

    title = "recall: share of real images that samples look like"

    def measure(self, samples: Rows, against: Gaussian | Rows | None, groups: int) -> Measured:
        """Return the figure, and the figure without each group; see ``Metric``.

        Raises:
            StageError: too few samples or real images, or features that are not finite.
        """
        real = self._check(samples, against)
        value, *without = covered(real, samples, squared_radii(samples, self.settings.neighbours, groups)).mean(axis=1)
        return Measured(float(value), tuple(map(float, without)))


def squared_radii(centres: Rows, neighbours: int, groups: int = 0) -> Array:
    """Return the squared radius of the ball around each point.

    Args:
        centres: points [count, D].
        neighbours: rank of the neighbour that a ball reaches to.
        groups: point i belongs to group i mod ``groups``.

    Returns:
        [1 + groups, count]: first of all points, then of the points without each group, ``NOWHERE`` for those left out.

    Raises:
        StageError: too few points.
    """
    least = len(centres.without(0, groups)) if groups else len(centres)
    if least <= neighbours:
        raise StageError(f"precision and recall need more than {neighbours} images of a kind, and there are {least}")
    of_group = np.arange(len(centres)) % max(groups, 1)
    radii = np.full((1 + groups, len(centres)), NOWHERE)
    start = 0
    for block in centres.chunks():
        rows = slice(start, start := start + len(block))
        nearest = [_nearest(block, centres.group(group, max(groups, 1)), neighbours) for group in range(max(groups, 1))]
        radii[0, rows] = _rank(nearest, neighbours)
        for group in range(groups):
            radii[1 + group, rows] = _rank(nearest[:group] + nearest[group + 1 :], neighbours)
    for group in range(groups):
        radii[1 + group, of_group == group] = NOWHERE
    return radii


def covered(points: Rows, centres: Rows, radii: Array) -> NDArray[bool_]:
    """Return whether each point lies in a ball.

    Args:
        points: [count, D].
        centres: of the balls [balls, D].
        radii: squared radii of each choice of balls [choices, balls].

    Returns:
        [choices, count].
    """
    found = np.zeros((len(radii), len(points)), np.bool_)
    start = 0
    for block in points.chunks():
        rows = slice(start, start := start + len(block))
        first = 0
        for chunk in centres.chunks():
            distances = _squared_distances(block, chunk)
            balls = radii[:, first : first + len(chunk)]
            for inside, radius in zip(found, balls, strict=True):
                inside[rows] |= (distances <= radius).any(axis=1)
            first += len(chunk)
    return found


def _nearest(block: Array, points: Rows, neighbours: int) -> Array:
    """Return the least squared distances of each row from points, at most neighbours + 1: one may be its own."""
    nearest = np.empty((len(block), 0))
    for chunk in points.chunks():
        nearest = np.hstack([nearest, _squared_distances(block, chunk)])
        if nearest.shape[1] > neighbours + 1:
            nearest = np.partition(nearest, neighbours, axis=1)[:, : neighbours + 1]
    return nearest


def _rank(nearest: list[Array], neighbours: int) -> Array:
    distances: Array = np.partition(np.hstack(nearest), neighbours, axis=1)[:, neighbours]
    return distances


def _squared_distances(first: Array, second: Array) -> Array:
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None, :]
    distances: Array = np.maximum(squares - 2 * first @ second.T, 0)
    return distances
