"""Metrics against the full-precision images of the same noise: fidelity, not quality."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from qbench.metrics.metric import PIXELS, Against, Gaussian, SumMetric

if TYPE_CHECKING:
    from qbench.metrics.metric import Array, Sums

ROUNDING_ERROR = (2 / 255) ** 2 / 12
"""Mean squared error of rounding to uint8 itself, where the range of a pixel is 2."""


class MeanOverPairs(SumMetric):
    """The mean over images of a figure for each pair of images."""

    need = PIXELS
    against = Against.FULL_PRECISION

    @abstractmethod
    def of_pairs(self, images: Array, others: Array) -> Array:
        """Return the figure of each pair [count], from images [count, C, H, W] in [-1, 1]."""

    def sums(self, rows: Array, paired: Array | None) -> Sums:
        """Return count and sum of figures."""
        if paired is None:
            raise TypeError(f"{self.name} compares with full-precision images")
        return {"count": np.asarray(float(len(rows))), "figure": np.asarray(self.of_pairs(rows, paired).sum())}

    def compute(self, sums: Sums, reference: Gaussian | None) -> float:
        """Return the mean."""
        return float(sums["figure"] / sums["count"])


class MeanSquaredDifference(MeanOverPairs):
    """Mean squared difference from the full-precision image of the same noise."""

    title = "mean squared difference from the full-precision image of the same noise"
    direction = "lower"
    protocol = "mean over samples and pixels of the squared difference between uint8-rounded images scaled to [-1, 1]"

    def of_pairs(self, images: Array, others: Array) -> Array:
        """Return the mean squared difference of each pair [count]."""
        return _squared_differences(images, others)


class PeakSignalToNoiseRatio(MeanOverPairs):
    """Peak signal-to-noise ratio against the full-precision image of the same noise."""

    title = "peak signal-to-noise ratio against the full-precision image of the same noise, in dB"
    direction = "higher"
    protocol = (
        "mean over samples of 10 log10(255^2 / mean squared difference) between uint8-rounded images; a difference "
        "below that of rounding itself (1/12) counts as it, so that equal images give 58.9 dB"
    )

    def of_pairs(self, images: Array, others: Array) -> Array:
        """Return the ratio of each pair in dB [count]."""
        ratios: Array = 10 * np.log10(4 / np.maximum(_squared_differences(images, others), ROUNDING_ERROR))
        return ratios


def _squared_differences(images: Array, others: Array) -> Array:
    differences: Array = ((images - others) ** 2).reshape(len(images), -1).mean(axis=1)
    return differences
