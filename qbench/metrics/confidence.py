"""How sure a difference is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GROUPS = 20
_T_QUANTILE = 2.0930240544
"""0.975 quantile of Student's t with GROUPS - 1 degrees of freedom."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval over the drawing of images; calibration and training are not redrawn."""

    low: float
    high: float


def paired_interval(estimate: float, statistic: Callable[[NDArray[np.bool_]], float], count: int) -> Interval | None:
    """Return an interval for a statistic by leaving out groups of images.

    The delete-a-group jackknife (Kott 2001, "The delete-a-group jackknife", Journal of Official Statistics 17): image
    i belongs to group i mod 20; the statistic is computed 20 times without one group each. A bootstrap would draw
    images twice, which makes a sample covariance too small and so biases Frechet distances.

    Args:
        estimate: the statistic over all images.
        statistic: computes it over the images that a mask [count] keeps; a difference is paired if it applies the
            mask to both sides.
        count: number of images.

    Returns:
        The interval; None if there are too few images for one (fewer than 2 in a group).
    """
    if count < 2 * GROUPS:
        return None
    group = np.arange(count) % GROUPS
    without = np.array([statistic(group != left_out) for left_out in range(GROUPS)])
    error = np.sqrt((GROUPS - 1) / GROUPS * np.sum((without - without.mean()) ** 2))
    return Interval(float(estimate - _T_QUANTILE * error), float(estimate + _T_QUANTILE * error))
