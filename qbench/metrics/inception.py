"""FID and its kin: metrics on features of the Inception network, each equal to what its own library computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from qbench.errors import StageError
from qbench.metrics.frechet import FrechetDistance, FrechetDistanceToFullPrecision
from qbench.metrics.inception_extractor import InceptionSettings
from qbench.metrics.metric import Against, Gaussian, Measured, Metric, Need, RowsMetric
from qbench.plugins import Entry
from qbench.settings import Settings

if TYPE_CHECKING:
    from numpy import bool_
    from numpy.typing import NDArray

    from qbench.metrics.metric import Array
    from qbench.metrics.rows import Rows

NETWORK = "the Inception network of 2015-12-05 in torch-fidelity's port"
TENSORFLOW_RESIZED = "uint8-rounded images, resized to 299x299 bilinearly as TensorFlow 1 does"
KID_SEED = 2020
"""What torch-fidelity draws subsets with, unless it is told another."""


class InceptionMetric(Metric):
    """A metric on features of the Inception network.

    Attributes:
        extractor: which of the two extractors.
        feature: which of its features.
        protocol: as for every metric; in the class, settings stand in it by name in braces.
    """

    settings_class: ClassVar[type[Settings]] = InceptionSettings
    settings: InceptionSettings
    extractor: ClassVar[str] = "inception"
    feature: ClassVar[str] = "pooled"

    def __init__(self, entry: Entry, settings: Settings) -> None:
        super().__init__(entry, settings)
        self.need = Need(self.extractor, self.feature, self.settings.model_dump(include={"weights"}))
        self.protocol = self.protocol.format(**self.settings.model_dump())
        if self.settings.weights is not None:
            self.protocol += "; the network has the weights of a file that was named"

    def describe(self) -> dict[str, Any]:
        """Return what identifies it; the weights are told apart by their digest, which is the extractor's to tell."""
        described = super().describe()
        del described["settings"]["weights"]
        return described


class FID(InceptionMetric, FrechetDistance):
    """Frechet inception distance: equal to torch-fidelity's, and so to the original one."""

    title = "Frechet inception distance"
    protocol = f"{TENSORFLOW_RESIZED}, 2,048 pooled features of {NETWORK}"


class SFID(InceptionMetric, FrechetDistance):
    """Frechet distance between spatial features, as the evaluator of guided-diffusion has it."""

    title = "spatial Frechet inception distance"
    paper = "Nash et al. 2021, arXiv 2103.03841"
    feature = "spatial"
    protocol = f"{TENSORFLOW_RESIZED}, the first 7 channels of the 17x17 map mixed_6/conv (2,023 features) of {NETWORK}"


class CleanFID(InceptionMetric, FrechetDistance):
    """Frechet inception distance of images that are resized without aliasing: equal to clean-fid's."""

    title = "Frechet inception distance with clean-fid's resizing"
    paper = "Parmar et al. 2022, arXiv 2104.11222"
    extractor = "inception-clean"
    protocol = (
        "uint8-rounded images, resized to 299x299 as clean-fid does (antialiased bicubic, without rounding), "
        f"2,048 pooled features of {NETWORK}"
    )


class FIDToFullPrecision(InceptionMetric, FrechetDistanceToFullPrecision):
    """Frechet inception distance from the full-precision images of the same noise."""

    title = "Frechet inception distance from the full-precision images of the same noise"
    paper = "the distance: Heusel et al. 2017, arXiv 1706.08500"
    protocol = f"{FID.protocol}, as many images on both sides"


class InceptionScoreSettings(InceptionSettings):
    """Settings of the inception score."""

    splits: Annotated[int, Field(ge=1, description="parts of the samples, over whose scores the mean is taken")] = 10


class InceptionScore(InceptionMetric, RowsMetric):
    """Exponential of the mean divergence of class probabilities from their mean, averaged over splits.

    Equal to torch-fidelity's with ``samples_shuffle=False``.
    """

    title = "inception score"
    paper = "Salimans et al. 2016, arXiv 1606.03498"
    settings_class = InceptionScoreSettings
    settings: InceptionScoreSettings
    feature = "logits"
    against = Against.NOTHING
    direction = "higher"
    protocol = (
        f"{TENSORFLOW_RESIZED}, the 1,008 classes of {NETWORK} without bias, mean of {{splits}} splits in the order of "
        "samples"
    )
    caveat = "looks at no real image, and says little of images that are not like those of ImageNet"

    def compute(self, samples: Rows, against: Rows | None) -> float:
        """Return the mean of the splits' scores.

        Raises:
            StageError: fewer samples than splits.
        """
        from torch import from_numpy
        from torch_fidelity import KEY_METRIC_ISC_MEAN
        from torch_fidelity.metric_isc import isc_features_to_metric

        count, splits = len(samples), self.settings.splits
        if count < splits:
            raise StageError(f"{self.name}: {count} samples cannot be parted in {splits} splits")
        parts = (from_numpy(samples[i * count // splits : (i + 1) * count // splits]) for i in range(splits))
        scores = [isc_features_to_metric(part, splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN] for part in parts]
        return float(np.mean(scores))


class KIDSettings(InceptionSettings):
    """Settings of the kernel distance."""

    subsets: Annotated[int, Field(ge=1, description="how often samples and real images are drawn")] = 100
    subset_size: Annotated[int, Field(ge=2, description="images in a draw, of samples and of real images")] = 1000
    degree: Annotated[int, Field(ge=1, description="degree of the polynomial kernel")] = 3


class KID(InceptionMetric, RowsMetric):
    """Kernel inception distance: equal to torch-fidelity's, of the same subsets.

    Source: Binkowski et al. 2018, arXiv 1801.01401: the unbiased estimate of the squared maximum mean discrepancy with
    the kernel (x . y / D + 1)^3.
    """

    title = "kernel inception distance"
    paper = "Binkowski et al. 2018, arXiv 1801.01401"
    settings_class = KIDSettings
    settings: KIDSettings
    against = Against.REFERENCE
    direction = "lower"
    protocol = (
        f"{TENSORFLOW_RESIZED}, 2,048 pooled features of {NETWORK}, polynomial kernel of degree {{degree}}, mean of "
        "{subsets} subsets of {subset_size} images (torch-fidelity's, seed 2020)"
    )
    caveat = "has no bias, so that a figure below 0 is as good as 0"

    def compute(self, samples: Rows, against: Rows | None) -> float:
        """Return the distance; see ``measure``."""
        return self.measure(samples, against, 0).value

    def measure(self, samples: Rows, against: Gaussian | Rows | None, groups: int) -> Measured:
        """Return the figure, and the figure without each group; see ``Metric``.

        A group is left out of the subsets that were drawn for the figure. To draw others would add the noise of
        drawing, many times over, to the interval.

        Raises:
            StageError: fewer samples or real images than a subset has.
        """
        if against is None or isinstance(against, Gaussian):
            raise TypeError(f"{self.name} compares with features of real images")
        size = self.settings.subset_size
        if min(len(samples), len(against)) < size:
            raise StageError(
                f"{self.name}: {len(samples)} samples and {len(against)} real images are too few for subsets of "
                f"{size}: set subset_size"
            )
        random = np.random.RandomState(KID_SEED)
        sums = np.zeros((6, 1 + groups))
        for _ in range(self.settings.subsets):
            drawn = random.choice(len(samples), size, replace=False)
            kept = np.vstack([np.full(size, True), *(drawn % groups != group for group in range(groups))])
            real = against[random.choice(len(against), size, replace=False)]
            sums += self._sums(samples[drawn], real, kept)
        within, pairs_within, real_within, real_pairs, across, pairs_across = sums
        value, *without = within / pairs_within + real_within / real_pairs - 2 * across / pairs_across
        return Measured(float(value), tuple(map(float, without)))

    def _sums(self, samples: Array, real: Array, kept: NDArray[bool_]) -> Array:
        """Return sums of the kernel and numbers of pairs, for each choice of samples [choices, count]."""
        among_samples, among_real = self._kernel(samples, samples), self._kernel(real, real)
        np.fill_diagonal(among_samples, 0)
        np.fill_diagonal(among_real, 0)
        chosen = kept.astype(np.float64)
        number = chosen.sum(axis=1)
        every = np.ones(len(kept))
        return np.stack(
            [
                ((chosen @ among_samples) * chosen).sum(axis=1),
                number * (number - 1),
                among_real.sum() * every,
                len(real) * (len(real) - 1) * every,
                chosen @ self._kernel(samples, real).sum(axis=1),
                number * len(real),
            ]
        )

    def _kernel(self, first: Array, second: Array) -> Array:
        kernel: Array = (first @ second.T / first.shape[1] + 1) ** self.settings.degree
        return kernel
