"""Metrics on CLIP embeddings: how well images fit their captions, and how far they are from real images as a set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from qbench.metrics.metric import Against, Gaussian, Measured, Need, RowsMetric, SumMetric
from qbench.metrics.open_clip_extractor import OpenCLIPWeights
from qbench.plugins import Entry
from qbench.settings import Settings

if TYPE_CHECKING:
    from qbench.metrics.metric import Array, Sums
    from qbench.metrics.rows import Rows

SIGMA = 10.0
"""Width of the Gaussian kernel of CMMD."""

SCALE = 1000.0
"""What CMMD is multiplied with."""


class CosineScore(SumMetric):
    """Mean cosine of an image and its caption, times 100; a negative cosine counts as 0."""

    paper = "Hessel et al. 2021, arXiv 2104.08718"
    against = Against.NOTHING
    direction = "higher"
    caveat = "says how well images fit their captions, not how good they look; compare it under one model only"

    def sums(self, rows: Array, paired: Array | None) -> Sums:
        """Return count and sum of scores, from cosines [count, 1]."""
        return {"count": np.asarray(float(len(rows))), "score": np.asarray(100 * np.maximum(rows, 0).sum())}

    def compute(self, sums: Sums, reference: Gaussian | None) -> float:
        """Return the mean."""
        return float(sums["score"] / sums["count"])


class CLIPScore(CosineScore):
    """The cosine score under a model of open_clip."""

    title = "CLIP score: how well images fit their captions"
    settings_class = OpenCLIPWeights
    settings: OpenCLIPWeights

    def __init__(self, entry: Entry, settings: Settings) -> None:
        super().__init__(entry, settings)
        self.need = _need(self.settings, "cosine", captions=True)
        self.protocol = (
            "mean over samples of 100 max(cosine, 0) between embeddings of the uint8-rounded image and of its caption "
            f"under {_network(self.settings)}; the paper's factor is 2.5, and it puts 'A photo depicts' before captions"
        )


class CMMDSettings(OpenCLIPWeights):
    """Settings of CMMD."""

    model: Annotated[str, Field(description="name of the model in open_clip; the paper has the default")] = (
        "ViT-L-14-336"
    )


class CMMD(RowsMetric):
    """Squared maximum mean discrepancy between image embeddings of samples and of real images.

    With k(x, y) = exp(-|x - y|^2 / (2 sigma^2)) it is the mean of k over all pairs of samples, plus that over all
    pairs of real images, less twice that over mixed pairs. An image is paired with itself too, as in the authors'
    code (github.com/google-research/google-research, cmmd/distance.py): equation 5 of Gretton et al. 2012, JMLR 13.
    """

    title = "CMMD: discrepancy of CLIP embeddings from those of real images"
    paper = "Jayasumana et al. 2024, arXiv 2401.09603"
    settings_class = CMMDSettings
    against = Against.REFERENCE
    direction = "lower"
    caveat = "biased upwards, the more the fewer the samples: only figures of one sample count can be compared"
    settings: CMMDSettings

    def __init__(self, entry: Entry, settings: Settings) -> None:
        super().__init__(entry, settings)
        self.need = _need(self.settings, "image", captions=False)
        self.protocol = (
            "1000 times the squared maximum mean discrepancy (Gaussian kernel, sigma 10, each image paired with itself "
            "too) between unit-length embeddings of the uint8-rounded images and of the real ones "
            f"under {_network(self.settings)}"
        )

    def compute(self, samples: Rows, against: Rows | None) -> float:
        """Return the figure."""
        return self.measure(samples, against, 0).value

    def measure(self, samples: Rows, against: Gaussian | Rows | None, groups: int) -> Measured:
        """Return the figure, and the figure without each group; see ``Metric``.

        Each pair of images is met once, whatever the number of groups: sums of the kernel by group say what is left
        without one.
        """
        if against is None or isinstance(against, Gaussian):
            raise TypeError(f"{self.name} compares with features of real images")
        parts = max(groups, 1)
        among_samples = _kernel_sums(samples, samples, parts, parts)
        mixed = _kernel_sums(samples, against, parts, 1)[:, 0]
        among_real = float(_kernel_sums(against, against, 1, 1)[0, 0]) / len(against) ** 2
        sizes = np.bincount(np.arange(len(samples)) % parts, minlength=parts)

        def figure(kept: Array) -> float:
            count = float(kept @ sizes)
            own, other = kept @ among_samples @ kept / count**2, kept @ mixed / (count * len(against))
            return float(SCALE * (own + among_real - 2 * other))

        everything = np.ones(parts)
        return Measured(figure(everything), tuple(figure(everything - left_out) for left_out in np.eye(parts)[:groups]))


def _kernel_sums(rows: Rows, others: Rows, row_groups: int, other_groups: int) -> Array:
    """Return sums of k(x, y) - 1 over the pairs of two groups [row_groups, other_groups].

    The ones cancel in the figure, and the differences, some thousandths, keep all their digits without them.
    """
    found = np.zeros((row_groups, other_groups))
    row_start = 0
    for block in rows.chunks():
        of_rows = _membership(row_start, len(block), row_groups)
        row_start += len(block)
        other_start = 0
        for other in others.chunks():
            of_others = _membership(other_start, len(other), other_groups)
            other_start += len(other)
            squares = (block**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * block @ other.T
            found += of_rows.T @ np.expm1(squares / (-2 * SIGMA**2)) @ of_others
    return found


def _membership(start: int, count: int, groups: int) -> Array:
    """Return which group each of some rows belongs to [count, groups], as ones among zeros."""
    return np.eye(groups)[np.arange(start, start + count) % groups]


def _need(settings: OpenCLIPWeights, feature: str, captions: bool) -> Need:
    return Need(
        "open-clip",
        feature,
        {"model": settings.model, "pretrained": settings.pretrained, "captions": captions},
    )


def _network(settings: OpenCLIPWeights) -> str:
    return f"open_clip's {settings.model} with {settings.weights_title} and its own preprocessing"
