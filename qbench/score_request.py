"""What ``qbench score`` is asked for: metrics, images and what they are compared with, as people name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qbench import plugins
from qbench.errors import DataError, SettingsError, did_you_mean
from qbench.identity import digest, file_digest
from qbench.metrics.metric import Against, Metric
from qbench.plugin import create
from qbench.settings import Location

if TYPE_CHECKING:
    from numpy import int64, uint8
    from numpy.typing import NDArray

    from qbench.workload import ImageSet

REFERENCE_PLACES = (
    "name a folder of images, an .npz or .npy file of them, or an .npz or .safetensors file of their statistics"
)
"""What real images may be given as."""


@dataclass(frozen=True)
class Images:
    """Images from one place.

    Attributes:
        path: where they are.
        images: the images.
    """

    path: Path
    images: ImageSet

    def __len__(self) -> int:
        return self.images.count

    @property
    def counted(self) -> str:
        """Their number, in words of a sentence."""
        return _counted(len(self), "image")

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""
        return tuple(self.images.read([0]).shape[1:])

    @property
    def array(self) -> NDArray[uint8]:
        """Uint8 [count, channels, height, width], each image read when it is asked for.

        It has what is needed to take some rows after others, and nothing else of an array.
        """
        return cast("NDArray[uint8]", _LazyArray(self.images, self.shape))

    def describe(self) -> dict[str, Any]:
        """Return what identifies them."""
        return {"name": self.images.name, "samples": len(self), "images": self.images.digest}


@dataclass(frozen=True)
class RealImages:
    """Real images, or published statistics of them, or both.

    Attributes:
        path: where they are.
        images: the images; None where there are only statistics.
        statistics: digest of the file that holds statistics; None where there are only images.
    """

    path: Path
    images: Images | None
    statistics: str | None

    def holds_statistics(self, feature: str) -> bool:
        """Return whether there are statistics of a feature."""
        from qbench.metrics.statistics_file import holds_statistics

        return self.statistics is not None and holds_statistics(self.path, feature)

    def describe(self) -> dict[str, Any]:
        """Return what identifies them; the number of images behind statistics is not told by any file."""
        found = {"name": self.path.stem} if self.images is None else self.images.describe()
        return found if self.statistics is None else found | {"statistics": self.statistics}


@dataclass(frozen=True)
class Captions:
    """One for each image.

    Attributes:
        path: where they are.
        texts: the captions.
    """

    path: Path
    texts: Sequence[str]

    def describe(self) -> dict[str, Any]:
        """Return what identifies them."""
        return {"name": self.path.stem, "lines": len(self.texts), "captions": digest({"captions": self.texts})}


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        metrics: what to compute.
        images: of these images.
        reference: real images, for metrics that compare with them.
        full_precision: images of the same noise in the same order, for metrics that compare with them.
        captions: of the images, for extractors that look at them.
    """

    metrics: Sequence[Metric]
    images: Images
    reference: RealImages | None = None
    full_precision: Images | None = None
    captions: Captions | None = None

    def describe(self) -> dict[str, dict[str, Any] | None]:
        """Return what identifies everything but the metrics."""
        given = {
            "images": self.images,
            "reference": self.reference,
            "full_precision": self.full_precision,
            "captions": self.captions,
        }
        return {name: None if each is None else each.describe() for name, each in given.items()}


def make_metrics(names: Sequence[str], settings: Mapping[str, Any]) -> list[Metric]:
    """Return metrics with their settings checked.

    Args:
        names: public ids.
        settings: values by ``metric.key``, or by ``metric.outer.inner`` where settings are nested.

    Raises:
        PluginError: a metric is unknown or cannot be used.
        SettingsError: there is no metric, one is there twice, or a setting does not fit.
    """
    if not names:
        raise SettingsError(f"--metrics: name at least one of {', '.join(plugins.METRICS.names())}")
    nested: dict[str, dict[str, Any]] = {}
    for name in names:
        plugins.METRICS.entry(name)
        if name in nested:
            raise SettingsError(f"--metrics: {name!r} is there twice")
        nested[name] = {}
    for key, value in settings.items():
        _put(nested, key, value)
    return [create(plugins.METRICS, name, Metric, nested[name], _option(name), SettingsError) for name in names]


def open_request(
    metrics: Sequence[Metric],
    images: Path,
    reference: Path | None = None,
    full_precision: Path | None = None,
    captions: Path | None = None,
) -> Request:
    """Open the files behind a request; what no metric compares with is left alone.

    Raises:
        DataError: one is missing or not what it should be.
    """
    compared = {metric.against for metric in metrics}
    opened = open_images(images)
    return Request(
        metrics,
        opened,
        open_reference(reference) if reference and Against.REFERENCE in compared else None,
        open_images(full_precision) if full_precision and Against.FULL_PRECISION in compared else None,
        open_captions(captions, opened) if captions else None,
    )


def open_images(path: Path) -> Images:
    """Open a folder of images, or an .npz or .npy file of them.

    Raises:
        DataError: it is not there, or not what it should be; see ``image_folder`` and ``image_array``.
    """
    from qbench.metrics.image_array import image_array
    from qbench.metrics.image_folder import image_folder

    if path.is_dir():
        return Images(path, image_folder(path))
    if not path.exists():
        raise DataError(f"{path} does not exist: name a folder of images, or an .npz or .npy file of them")
    if path.suffix not in (".npz", ".npy"):
        raise DataError(f"{path} is no place for images: name a folder of images, or an .npz or .npy file of them")
    return Images(path, image_array(path))


def open_reference(path: Path) -> RealImages:
    """Open real images, or statistics of them, or a file with both, as guided-diffusion publishes them.

    Raises:
        DataError: it is not there, or neither.
    """
    from qbench.metrics.image_array import KEY
    from qbench.metrics.statistics_file import array_names

    if not path.exists():
        raise DataError(f"{path} does not exist: {REFERENCE_PLACES}")
    if path.suffix not in (".npz", ".npy", ".safetensors") and not path.is_dir():
        raise DataError(f"{path} is no place for images: {REFERENCE_PLACES}")
    if path.suffix == ".safetensors":
        array_names(path)  # damage is told before any work
        return RealImages(path, None, file_digest(path))
    if path.suffix != ".npz" or not path.is_file():
        return RealImages(path, open_images(path), None)
    names = array_names(path)
    has_statistics = "mu" in names or "mu_s" in names
    if not has_statistics and KEY not in names:
        raise DataError(
            f"{path} holds {', '.join(names) or 'nothing'}: images ({KEY}) or statistics of them (mu, sigma) are due"
        )
    return RealImages(path, open_images(path) if KEY in names else None, file_digest(path) if has_statistics else None)


def open_captions(path: Path, images: Images) -> Captions:
    """Read a caption a line, in the order of the images.

    Raises:
        DataError: the file is missing or no text, or has another number of lines than there are images.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a text file in UTF-8") from None
    texts = text.removesuffix("\n").split("\n") if text else []
    if len(texts) != len(images):
        raise DataError(
            f"{path} holds {_counted(len(texts), 'line')} and {images.path} {images.counted}: one caption a line is "
            "due, in the order of the images' names"
        )
    return Captions(path, texts)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _option(name: str) -> Callable[[Location], str]:
    return lambda location: f"--set {'.'.join(map(str, (name, *location)))}"


def _put(nested: dict[str, dict[str, Any]], key: str, value: Any) -> None:
    name, *path = key.split(".")
    if name not in nested:
        raise SettingsError(f"--set {key}: no metric {name!r} is asked for: {did_you_mean(name, list(nested))}")
    if not path or not all(path):
        raise SettingsError(f"--set {key}: write METRIC.KEY=VALUE")
    inner = nested[name]
    for part in path[:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"--set {key}: {part!r} has a value of its own already")
    inner[path[-1]] = value


class _LazyArray:
    """Images of a set, under the part of an array's interface that takes some rows after others."""

    def __init__(self, images: ImageSet, shape: tuple[int, ...]) -> None:
        import numpy as np

        self._images = images
        self.shape = (images.count, *shape)
        self.dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[int64]) -> NDArray[uint8]:
        return self._images.read(range(len(self))[rows] if isinstance(rows, slice) else rows.tolist())
