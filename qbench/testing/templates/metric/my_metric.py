"""my-metric: how far apart neighbouring pixels are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field
from qbench.metrics.metric import PIXELS, Against, Gaussian, SumMetric
from qbench.settings import Settings

if TYPE_CHECKING:
    from qbench.metrics.metric import Array, Sums


class MyMetricSettings(Settings):
    """Settings of my-metric. Each has a default and a description."""

    power: Annotated[float, Field(gt=0, description="exponent of the differences")] = 1.0


class MyMetric(SumMetric):
    """Say here what it measures: `qbench metrics show` prints this.

    Noise makes it larger and blur makes it smaller, so read it beside full precision's.
    """

    settings_class = MyMetricSettings
    title = "mean difference between pixels that are side by side"
    paper = ""  # authors, year, where
    revision = 1  # raise it when its numbers change: what was cached of it is then computed again
    need = PIXELS  # or Need("inception", "pool3"): an extractor's feature
    against = Against.NOTHING  # or REFERENCE (statistics of real images), or FULL_PRECISION (the same noise)
    direction = "lower"
    protocol = "mean over images of |difference|^power of horizontal neighbours, uint8-rounded pixels in [-1, 1]"
    settings: MyMetricSettings

    def sums(self, rows: Array, paired: Array | None) -> Sums:
        """Return sums over images [count, channels, height, width]; those of all shards are added up."""
        differences = np.abs(np.diff(rows, axis=3)) ** self.settings.power
        return {"count": np.asarray(float(len(rows))), "sum": differences.mean(axis=(1, 2, 3)).sum()}

    def compute(self, sums: Sums, reference: Gaussian | None) -> float:
        """Return the figure from the sums over all images."""
        return float(sums["sum"] / sums["count"])
