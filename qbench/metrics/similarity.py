"""Similarity of each image to the full-precision image of the same noise, as people see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qbench.errors import StageError
from qbench.metrics.fidelity import MeanOverPairs
from qbench.workloads.assets import FETCH_FOR_METRICS, Asset
from qbench.workloads.published_files import ALEXNET, ALEXNET_BYTES

if TYPE_CHECKING:
    from qbench.metrics.metric import Array

WINDOW = 11
"""Side of the window of structural similarity."""

SIGMA = 1.5
"""Standard deviation of that window, in pixels."""

K1, K2 = 0.01, 0.03
"""What keeps luminance and contrast from dividing by nothing, relative to the range of a pixel."""

PATCH = 64
"""Side of the patches that people were shown for LPIPS."""

BACKBONE = ALEXNET
"""torchvision's AlexNet, which torchmetrics loads from the same folder."""

NUMBERS_AT_A_TIME = 2**20
"""How many numbers of images are worked on at a time: each metric makes many copies of them."""


class StructuralSimilarity(MeanOverPairs):
    """Structural similarity to the full-precision image of the same noise.

    Intensities are shifted to 0..1, as the definition has them: its luminance term means nothing where they may be
    negative. Windows lie inside the image. Computed here because torchmetrics 1.4 averages over these windows and 1.9
    over mirrored edges too, both are off by 2e-4 in float32 where an image is flat, and slow in float64.
    """

    title = "structural similarity to the full-precision image of the same noise"
    paper = "Wang et al. 2004, IEEE Transactions on Image Processing 13(4)"
    direction = "higher"
    protocol = (
        "mean over samples of SSIM between uint8-rounded images (11x11 Gaussian windows of sigma 1.5 inside the image, "
        "K1 0.01, K2 0.03, range 255, mean over channels)"
    )

    def of_pairs(self, images: Array, others: Array) -> Array:
        """Return the similarity of each pair [count], from images [count, C, H, W] in [-1, 1].

        Raises:
            StageError: no window fits into the images.
        """
        _check_side(self.name, images, WINDOW, f"its window is {WINDOW}x{WINDOW}")
        return _in_pieces(_structural_similarity, images, others)


class LPIPS(MeanOverPairs):
    """Distance of AlexNet features, weighted as people judged, from the full-precision image of the same noise."""

    title = "LPIPS from the full-precision image of the same noise"
    paper = "Zhang et al. 2018, arXiv 1801.03924"
    direction = "lower"
    protocol = (
        "mean over samples of LPIPS 0.1 with AlexNet (torchvision's weights 7be5be79) between uint8-rounded images of "
        "64x64 and more at their own size, grey ones as three equal channels"
    )
    caveat = "people judged patches of 64x64, so it is not given for smaller images, and says less of much larger ones"

    def assets(self) -> Sequence[Asset]:
        """Return AlexNet; what weighs its features comes with torchmetrics."""
        return (Asset("AlexNet of torchvision, which LPIPS looks through", BACKBONE, ALEXNET_BYTES),)

    @cached_property
    def _network(self) -> Any:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        for asset in self.assets():
            asset.require(FETCH_FOR_METRICS)
        return LearnedPerceptualImagePatchSimilarity("alex").net.requires_grad_(False)

    def of_pairs(self, images: Array, others: Array) -> Array:
        """Return the distance of each pair [count], from images [count, 1 or 3, H, W] in [-1, 1].

        Raises:
            StageError: images are smaller than 64x64.
            DataError: the weights of AlexNet are missing or damaged.
        """
        import torch

        _check_side(self.name, images, PATCH, f"it was fitted to what people said of patches of {PATCH}x{PATCH}")
        network = self._network

        def distance(first: Array, second: Array) -> Array:
            colour = [torch.from_numpy(each).float().expand(-1, 3, -1, -1) for each in (first, second)]
            with torch.inference_mode():
                found: Array = network(*colour).flatten().double().numpy()
            return found

        return _in_pieces(distance, images, others)


def _structural_similarity(images: Array, others: Array) -> Array:
    """Return the mean over windows and channels [count] of equation 13 of the paper."""
    x, y = (images + 1) / 2, (others + 1) / 2
    mean_x, mean_y = _windowed(x), _windowed(y)
    variances = _windowed(x * x) - mean_x**2 + _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    found: Array = (luminance * (2 * covariance + K2**2) / (variances + K2**2)).mean(axis=(1, 2, 3))
    return found


def _windowed(images: Array) -> Array:
    """Return Gaussian means over windows, of each that lies inside [count, C, H - 10, W - 10]."""
    weights = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    weights /= weights.sum()
    height, width = (side - WINDOW + 1 for side in images.shape[2:])
    rows: Array = sum(weight * images[..., start : start + height, :] for start, weight in enumerate(weights))
    found: Array = sum(weight * rows[..., start : start + width] for start, weight in enumerate(weights))
    return found


def _check_side(name: str, images: Array, least: int, why: str) -> None:
    height, width = images.shape[2:]
    if min(height, width) < least:
        raise StageError(f"{name} is not for images of {height}x{width}: {why}")


def _in_pieces(figure: Callable[[Array, Array], Array], images: Array, others: Array) -> Array:
    """Return a figure of each pair [count], from some pairs at a time."""
    size = max(1, NUMBERS_AT_A_TIME // images[0].size)
    starts = range(0, len(images), size)
    return np.concatenate([figure(*(each[start : start + size] for each in (images, others))) for start in starts])
