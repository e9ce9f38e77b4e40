"""Metrics on the features of the small Fashion-MNIST network; never to be read as FID, sFID or IS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qbench.metrics.frechet import FrechetDistance, FrechetDistanceToFullPrecision
from qbench.metrics.metric import Against, Gaussian, Need, SumMetric

if TYPE_CHECKING:
    from qbench.metrics.metric import Array, Sums


class FashionFrechetDistance(FrechetDistance):
    """Frechet distance between pooled features of samples and of real images."""

    title = "Frechet distance on pooled features of the fashion network"
    paper = "the distance: Heusel et al. 2017, arXiv 1706.08500"
    need = Need("fashion", "pooled")
    protocol = "uint8-rounded 16x16 images, the 64 pooled features of the network 'fashion'"


class FashionSpatialFrechetDistance(FrechetDistance):
    """Frechet distance between spatial features, as sFID has it."""

    title = "Frechet distance on spatial features of the fashion network"
    paper = "the idea: Nash et al. 2021, arXiv 2103.03841"
    need = Need("fashion", "spatial")
    protocol = "uint8-rounded 16x16 images, the first 8 channels of the 4x4 map of the network 'fashion' (128 features)"


class FashionFrechetDistanceToFullPrecision(FrechetDistanceToFullPrecision):
    """Frechet distance between pooled features of samples and of full-precision images of the same noise."""

    title = "Frechet distance from the full-precision images of the same noise, on pooled fashion features"
    paper = "the distance: Heusel et al. 2017, arXiv 1706.08500"
    need = Need("fashion", "pooled")
    protocol = (
        "uint8-rounded 16x16 images, the 64 pooled features of the network 'fashion', as many images on both sides"
    )


class FashionInceptionScore(SumMetric):
    """Exponential of the mean divergence of class probabilities from their mean."""

    title = "inception score with the classes of the fashion network"
    paper = "the score: Salimans et al. 2016, arXiv 1606.03498"
    need = Need("fashion", "logits")
    against = Against.NOTHING
    direction = "higher"
    protocol = "uint8-rounded 16x16 images, the 10 classes of the network 'fashion', one split over all samples"

    def sums(self, rows: Array, paired: Array | None) -> Sums:
        """Return count, sum of class probabilities [10] and sum of p log p."""
        shifted = rows - rows.max(axis=1, keepdims=True)
        log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        probability = np.exp(log_probability)
        return {
            "count": np.asarray(float(len(rows))),
            "probability": probability.sum(axis=0),
            "negative entropy": np.asarray((probability * log_probability).sum()),
        }

    def compute(self, sums: Sums, reference: Gaussian | None) -> float:
        """Return the score: the mean of sum p (log p - log mean p) is that of p log p, less the mean's own."""
        mean = sums["probability"] / sums["count"]
        # A class whose probability underflows in every sample adds nothing: p log p goes to 0 with p.
        of_mean = (mean * np.log(np.maximum(mean, np.finfo(np.float64).tiny))).sum()
        return float(np.exp(sums["negative entropy"] / sums["count"] - of_mean))
