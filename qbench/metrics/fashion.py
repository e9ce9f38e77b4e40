"""Metrics on the features of the small Fashion-MNIST network; never to be read as FID, sFID or IS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qbench.errors import StageError
from qbench.metrics.frechet import frechet_distance, gaussian
from qbench.metrics.metric import Against, Gaussian, Metric, Need

if TYPE_CHECKING:
    from qbench.metrics.metric import Array


class FashionFrechetDistance(Metric):
    """Frechet distance between pooled features of samples and of real images."""

    title = "Frechet distance on pooled features of the fashion network"
    paper = "the distance: Heusel et al. 2017, arXiv 1706.08500"
    need = Need("fashion", "pooled")
    against = Against.REFERENCE
    direction = "lower"
    protocol = (
        "uint8-rounded 16x16 images, the 64 pooled features of the network 'fashion', "
        "compared with all 60,000 Fashion-MNIST training images"
    )

    def compute(self, samples: Array, against: Gaussian | Array | None) -> float:
        """Return the distance of features [count, D] from a Gaussian.

        Raises:
            StageError: fewer than 2 samples have no covariance.
        """
        if len(samples) < 2:
            raise StageError(f"{self.name} needs at least 2 samples")
        if not isinstance(against, Gaussian):
            raise TypeError(f"{self.name} compares with statistics of real images")
        return frechet_distance(against, gaussian(samples))


class FashionSpatialFrechetDistance(FashionFrechetDistance):
    """Frechet distance between spatial features, as sFID has it."""

    title = "Frechet distance on spatial features of the fashion network"
    paper = "the idea: Nash et al. 2021, arXiv 2103.03841"
    need = Need("fashion", "spatial")
    protocol = (
        "uint8-rounded 16x16 images, the first 8 channels of the 4x4 map of the network 'fashion' (128 features), "
        "compared with all 60,000 Fashion-MNIST training images"
    )


class FashionInceptionScore(Metric):
    """Exponential of the mean divergence of class probabilities from their mean."""

    title = "inception score with the classes of the fashion network"
    paper = "the score: Salimans et al. 2016, arXiv 1606.03498"
    need = Need("fashion", "logits")
    against = Against.NOTHING
    direction = "higher"
    protocol = "uint8-rounded 16x16 images, the 10 classes of the network 'fashion', one split over all samples"

    def compute(self, samples: Array, against: Gaussian | Array | None) -> float:
        """Return the score of logits [count, 10]."""
        shifted = samples - samples.max(axis=1, keepdims=True)
        log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        probability = np.exp(log_probability)
        # A class whose probability underflows in every sample adds nothing: p log p goes to 0 with p.
        mean = np.maximum(probability.mean(axis=0), np.finfo(np.float64).tiny)
        divergence = (probability * (log_probability - np.log(mean))).sum(axis=1)
        return float(np.exp(divergence.mean()))
