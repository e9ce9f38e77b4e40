"""Metrics of any images, outside every suite: what ``qbench score`` does.

What a request lacks is told before any work; what fails later fails its figure and no other.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbench import plugins
from qbench.errors import DataError, PluginError, QbenchError, StageError, did_you_mean
from qbench.identity import canonical_json
from qbench.metrics.extractor import Extractor
from qbench.metrics.metric import Against, Metric, RowsMetric
from qbench.plugin import blaming, create
from qbench.records import MetricInfo
from qbench.stages.stage import Runtime, Work

if TYPE_CHECKING:
    from qbench.metrics.metric import Gaussian
    from qbench.metrics.rows import Rows
    from qbench.score_request import Captions, Images, RealImages, Request

Started = Callable[[str, int], Callable[[float], None]]
"""Is told what begins and how many images it takes; returns what is told of images that are done."""


@dataclass(frozen=True)
class Scored:
    """What became of a metric.

    Attributes:
        metric: its public id.
        samples: how many images it was asked of.
        info: what the figure stands for; None if that could not be found out.
        value: the figure; None if there is none.
        failure: why there is none.
    """

    metric: str
    samples: int
    info: MetricInfo | None
    value: float | None = None
    failure: str | None = None


@dataclass(frozen=True)
class _Figure:
    request: Request
    metric: Metric
    extractor: Extractor | None


def score(request: Request, runtime: Runtime, started: Started) -> list[Scored]:
    """Measure images.

    Features are extracted once for each extractor and its settings, into files in a temporary folder (in $TMPDIR)
    that is removed at the end, whatever ends it.

    Args:
        request: what is to be measured.
        runtime: device and batch size.
        started: shows progress.

    Returns:
        One for each metric of the request, in its order.

    Raises:
        DataError: a metric needs what the request lacks, or images of another shape.
        PluginError: a metric needs an extractor or a feature that does not exist.
    """
    figures = _figures(request)
    for figure in figures:
        _check(figure)
    with tempfile.TemporaryDirectory(prefix="qbench-score-") as folder:
        features = _Features(Path(folder), runtime, started)
        return [_scored(figure, features) for figure in figures]


def _figures(request: Request) -> list[_Figure]:
    """Make each extractor once: it may have to read large files for its digests."""
    extractors: dict[tuple[str, str], Extractor] = {}
    figures = []
    for metric in request.metrics:
        with blaming(f"the metric {metric.name!r}"):
            name, settings = metric.need.extractor, metric.need.settings
        if name is None:
            figures.append(_Figure(request, metric, None))
            continue
        key = (name, canonical_json(dict(settings)))
        if key not in extractors:
            extractors[key] = _extractor(metric, name, settings)
        figures.append(_Figure(request, metric, extractors[key]))
    return figures


def _extractor(metric: Metric, name: str, settings: Mapping[str, Any]) -> Extractor:
    who = f"the extractor {name!r} that {metric.name!r} needs"
    return create(plugins.EXTRACTORS, name, Extractor, settings, lambda _: who, PluginError)


def _check(figure: _Figure) -> None:
    """Refuse what the request lacks for a metric."""
    request, metric, extractor = figure.request, figure.metric, figure.extractor
    looked_at = [request.images]
    if metric.against is Against.REFERENCE:
        reference = _reference(figure)
        if reference.images is not None and not _uses_statistics(figure):
            looked_at.append(reference.images)
    if metric.against is Against.FULL_PRECISION:
        looked_at.append(_full_precision(figure))
        _check_pairs(request.images, _full_precision(figure))
    if extractor is None:
        return
    if metric.need.feature not in extractor.features:
        raise PluginError(
            f"{metric.name} needs the feature {metric.need.feature!r}, which the extractor {extractor.name!r} has not: "
            f"{did_you_mean(metric.need.feature, list(extractor.features))}"
        )
    for images in looked_at:
        if not extractor.takes(images.shape):
            raise DataError(
                f"{metric.name} takes images of shape {extractor.shapes_in_words()} (channels, height, width), and "
                f"those of {images.path} have {images.shape}: convert them first"
            )
    if extractor.needs_captions and request.captions is None:
        raise DataError(
            f"{metric.name} looks at the images' captions: name a file of them, one a line, with --captions"
        )


def _reference(figure: _Figure) -> RealImages:
    found = figure.request.reference
    if found is None:
        raise DataError(
            f"{figure.metric.name} compares with real images: name a folder of them, or a file of their statistics, "
            "with --reference"
        )
    if found.images is None and isinstance(figure.metric, RowsMetric):
        raise DataError(
            f"{figure.metric.name} compares with the features of real images, and {found.path} holds only statistics: "
            "name a folder or an .npz of images with --reference"
        )
    return found


def _uses_statistics(figure: _Figure) -> bool:
    """Published statistics come before the images beside them, which may be fewer."""
    return not isinstance(figure.metric, RowsMetric) and _reference(figure).holds_statistics(figure.metric.need.feature)


def _full_precision(figure: _Figure) -> Images:
    images, found = figure.request.images, figure.request.full_precision
    if found is None:
        raise DataError(
            f"{figure.metric.name} compares with the full-precision images of the same noise: name them with "
            "--full-precision"
        )
    if (len(images), images.shape) != (len(found), found.shape):
        raise DataError(
            f"{images.path} holds {images.counted} of shape {images.shape} and {found.path} {len(found):,} of "
            f"shape {found.shape}: images of the same noise are compared in pairs, in the order of their names"
        )
    return found


def _check_pairs(images: Images, full_precision: Images) -> None:
    """Refuse folders whose names, which alone say what belongs together, are not the same; an array has no names."""
    from qbench.metrics.image_folder import image_stems

    if not (images.path.is_dir() and full_precision.path.is_dir()):
        return
    for own, other in zip(image_stems(images.path), image_stems(full_precision.path), strict=False):
        if own != other:
            raise DataError(
                f"{images.path} has {own!r} where {full_precision.path} has {other!r}: images of the same noise are "
                "compared in pairs, so give them the same names, suffixes aside"
            )


def _scored(figure: _Figure, features: _Features) -> Scored:
    name, samples = figure.metric.name, len(figure.request.images)
    info = None
    try:
        info = _info(figure)
        return Scored(name, samples, info, value=_value(figure, features))
    except QbenchError as error:
        reason = str(error)
    except (Exception, SystemExit) as error:  # whatever a plugin raises must not stop the other figures
        reason = " ".join(f"{type(error).__name__}: {error}".split())
    return Scored(name, samples, info, failure=reason)


def _value(figure: _Figure, features: _Features) -> float:
    statistics = _statistics(figure)  # first, so that a bad file is told before features are extracted
    samples = features.rows(figure, figure.request.images, _captions(figure))
    if statistics is not None and statistics.mean.shape != samples.shape:
        raise DataError(
            f"{_reference(figure).path} holds statistics of {len(statistics.mean):,} dimensions, and the feature "
            f"{figure.metric.need.feature!r} of {figure.metric.need.extractor} has {math.prod(samples.shape):,}: they "
            "are of something else"
        )
    against = _compared(figure, features) if statistics is None else statistics
    value = figure.metric.measure(samples, against, groups=0).value
    if not math.isfinite(value):
        raise StageError(f"{figure.metric.name} is not finite for these images ({value})")
    return value


def _statistics(figure: _Figure) -> Gaussian | None:
    if figure.metric.against is not Against.REFERENCE:
        return None
    reference = _reference(figure)
    if reference.images is not None and not _uses_statistics(figure):
        return None
    from qbench.metrics.statistics_file import read_statistics

    return read_statistics(reference.path, figure.metric.need.feature)


def _compared(figure: _Figure, features: _Features) -> Gaussian | Rows | None:
    if figure.metric.against is Against.NOTHING:
        return None
    if figure.metric.against is Against.FULL_PRECISION:
        return features.rows(figure, _full_precision(figure), _captions(figure))
    images = _reference(figure).images
    assert images is not None
    rows = features.rows(figure, images, None)
    if isinstance(figure.metric, RowsMetric):
        return rows
    from qbench.metrics.frechet import gaussian_of

    try:
        return gaussian_of(rows)
    except StageError as error:
        raise StageError(f"{images.path}: {error}") from error


def _captions(figure: _Figure) -> Captions | None:
    return figure.request.captions if figure.extractor is not None and figure.extractor.needs_captions else None


def _info(figure: _Figure) -> MetricInfo:
    request, metric, extractor = figure.request, figure.metric, figure.extractor
    used = {
        "reference": request.reference if metric.against is Against.REFERENCE else None,
        "full_precision": request.full_precision if metric.against is Against.FULL_PRECISION else None,
        "captions": _captions(figure),
    }
    described = {name: None if each is None else each.describe() for name, each in used.items()}
    return MetricInfo.of(metric, extractor, images=request.images.describe(), **described)


@dataclass(frozen=True)
class _Features:
    """Extracts everything once, and remembers where it lies or why it does not."""

    folder: Path
    runtime: Runtime
    started: Started
    known: dict[tuple[str, str, bool], Path | Exception] = field(default_factory=dict)

    def rows(self, figure: _Figure, images: Images, captions: Captions | None) -> Rows:
        """Return pixels or features, as the metric needs them."""
        import numpy as np

        from qbench.metrics.rows import Rows
        from qbench.stages.features import feature_file

        if figure.extractor is None:
            return Rows([images.array])
        key = (images.images.digest, canonical_json(figure.extractor.describe()), captions is not None)
        if key not in self.known:
            try:
                self.known[key] = self._extracted(figure.extractor, images, captions)
            except Exception as error:  # fails whatever else needs the same
                self.known[key] = error
        found = self.known[key]
        if isinstance(found, Exception):
            raise found
        return Rows([np.load(found / feature_file(figure.metric.need.feature), mmap_mode="r", allow_pickle=False)])

    def _extracted(self, extractor: Extractor, images: Images, captions: Captions | None) -> Path:
        from qbench.stages.features import extract_to
        from qbench.stages.precision import tensor_float_32

        folder = self.folder / str(len(self.known))
        folder.mkdir()
        report = self.started(f"{extractor.name} of {images.path}", len(images))
        texts = None if captions is None else captions.texts
        with tensor_float_32(self.runtime.tf32):  # as a run has it
            extract_to(folder, extractor, images.array, texts, Work({}, folder, self.runtime, report))
        return folder
