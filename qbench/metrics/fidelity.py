"""Metrics against the full-precision images of the same noise: fidelity, not quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qbench.metrics.metric import PIXELS, Against, Metric

if TYPE_CHECKING:
    from qbench.metrics.metric import Array, Gaussian


class MeanSquaredDifference(Metric):
    """Mean squared difference from the full-precision image of the same noise."""

    title = "mean squared difference from the full-precision image of the same noise"
    need = PIXELS
    against = Against.FULL_PRECISION
    direction = "lower"
    protocol = "mean over samples and pixels of the squared difference between uint8-rounded images scaled to [-1, 1]"

    def compute(self, samples: Array, against: Gaussian | Array | None) -> float:
        """Return the mean squared difference of images [count, C, H, W]."""
        if not isinstance(against, np.ndarray):
            raise TypeError(f"{self.name} compares with images")
        return float(np.mean((samples - against) ** 2))
