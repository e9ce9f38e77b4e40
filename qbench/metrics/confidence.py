"""How sure a difference is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GROUPS = 20
_T_QUANTILE = 2.0930240544
"""0.975 quantile of Student's t with GROUPS - 1 degrees of freedom."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval over the drawing of images; calibration and training are not redrawn."""

    low: float
    high: float


def groups_for(count: int) -> int:
    """Return how many groups of images are left out in turn; 0 if there are too few for an interval."""
    return GROUPS if count >= 2 * GROUPS else 0


def jackknife_interval(estimate: float, without: Sequence[float]) -> Interval | None:
    """Return an interval for a statistic from its values without each group of images.

    The delete-a-group jackknife (Kott 2001, "The delete-a-group jackknife", Journal of Official Statistics 17): image
    i belongs to group i mod 20, on both sides of a difference, which pairs it. A bootstrap would draw images twice,
    which makes a sample covariance too small and so biases Frechet distances upwards.

    Args:
        estimate: the statistic over all images.
        without: the statistic without each of the 20 groups.

    Returns:
        The interval; None if ``without`` is empty.

    Raises:
        ValueError: another number of groups.
    """
    if not without:
        return None
    if len(without) != GROUPS:
        raise ValueError(f"{len(without)} values without a group, where {GROUPS} are due")
    values = np.asarray(without)
    error = np.sqrt((GROUPS - 1) / GROUPS * np.sum((values - values.mean()) ** 2))
    return Interval(float(estimate - _T_QUANTILE * error), float(estimate + _T_QUANTILE * error))
