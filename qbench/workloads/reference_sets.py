"""From settings to real images, or to statistics of them, for ``Workload.reference``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qbench.errors import DataError
from qbench.identity import digest, file_digest
from qbench.workload import ImageSet, ReferenceSet
from qbench.workloads.reference_settings import PreprocessingSettings, ReferenceSettings

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray

    from qbench.workloads.pictures import Picture, Pictures

REVISION = 1
"""Raised when the same settings give other pixels; enters the digest."""
THREADS = 4
"""Images that are decoded at the same time."""
ADVICE = "say in `reference` where they are, such as `reference: {images: FOLDER}`"


def reference_set(
    settings: ReferenceSettings,
    image_shape: tuple[int, int, int],
    name: str,
    extractor: str,
    extractor_weights: Mapping[str, str],
    files: Sequence[str] | None = None,
) -> ReferenceSet | ImageSet:
    """Return what ``Workload.reference`` is asked for: statistics where there are some, else the images.

    Args:
        settings: where they are.
        image_shape: (channels, height, width) of the samples.
        name: what the images are.
        extractor: its public id.
        extractor_weights: SHA-256 of its weight files.
        files: see ``reference_images``.

    Raises:
        DataError: as for ``reference_images`` and ``reference_statistics``.
    """
    if settings.statistics is not None:
        return reference_statistics(settings, name, extractor, extractor_weights)
    return reference_images(settings, image_shape, name, files)


def reference_images(
    settings: ReferenceSettings, image_shape: tuple[int, int, int], name: str, files: Sequence[str] | None = None
) -> ImageSet:
    """Return the real images, preprocessed when they are read.

    The bytes of all of them are read here once, for the digest: whoever asks often keeps the answer. Grey images
    become colour images of three equal channels where samples are in colour; colour is refused where they are grey.

    Args:
        settings: where they are and what is done to them.
        image_shape: (channels, height, width) of the samples, which the images must have too.
        name: what the images are.
        files: names of the files in a folder that count, in their order; by default all.

    Returns:
        Images; their digest changes with any of their bytes, their order, their number and the preprocessing.

    Raises:
        DataError: no place is given; there is nothing, or too little, or something else there; an image is damaged, is
            of a kind that ``encoded_image`` refuses, or has another size than the samples.
    """
    pictures = _pictures(settings, name, files)
    if settings.limit is not None and pictures.count < settings.limit:
        raise DataError(
            f"{pictures.place} holds {pictures.count:,} images, and `limit` asks for {settings.limit:,}: ask for fewer"
        )
    _check_sizes(pictures, settings.preprocessing, image_shape)
    description = {
        "revision": REVISION,
        "images": pictures.digest,
        "count": pictures.count,
        "channels": image_shape[0],
        "preprocessing": settings.preprocessing.model_dump(mode="json"),
    }
    read = partial(_read, pictures, settings.preprocessing, image_shape)
    return ImageSet(name, pictures.count, digest(description), read)


def reference_statistics(
    settings: ReferenceSettings, name: str, extractor: str, extractor_weights: Mapping[str, str]
) -> ReferenceSet:
    """Return published statistics of the real images, without reading their arrays.

    Which features a file has is told by ``statistics_file.features_in``; one that a metric needs and the file lacks
    fails that metric.

    Raises:
        DataError: none are given; the file is missing, damaged or of another kind; or it is of another extractor, as
            the settings say of an .npz, and a .safetensors file of itself.
    """
    from qbench.metrics.statistics_file import array_names, metadata

    if settings.statistics is None:
        raise DataError(f"there are no statistics of {name}: {ADVICE}")
    path = Path(settings.statistics).expanduser()
    array_names(path)  # damage is told before any work
    said = metadata(path)
    own = said.get("extractor_sha256")
    if settings.statistics_of != extractor if own is None else own not in extractor_weights.values():
        whose = settings.statistics_of if own is None else "other weights"
        raise DataError(
            f"{path} holds statistics of the extractor {whose!r} and none of {extractor!r}: give images, or leave out "
            "the metrics that need it" + (" (or set `statistics_of`)" if own is None else "")
        )
    counted = said.get("samples", "")
    samples = settings.statistics_samples or (int(counted) if counted.isdecimal() else 0)
    return ReferenceSet(name, samples, file_digest(path), str(path))


def _pictures(settings: ReferenceSettings, name: str, files: Sequence[str] | None) -> Pictures:
    if settings.place is None:
        raise DataError(f"the real images ({name}) are not given: {ADVICE}")
    kind, path = settings.place
    if kind == "statistics":
        raise DataError(f"{path} holds statistics only, and the images themselves ({name}) are needed: {ADVICE}")
    if kind == "images":
        return _folder(path, files, settings.limit)
    if files is not None:
        raise DataError(f"{path}: {name} are known by the names of their files, so give the folder of them as `images`")
    if kind == "lmdb":
        from qbench.workloads.lmdb_images import lmdb_pictures

        return lmdb_pictures(path, settings.limit)
    from qbench.workloads.cifar10_images import cifar10_pictures

    return cifar10_pictures(path, settings.limit)


def _folder(path: Path, names: Sequence[str] | None, limit: int | None) -> Pictures:
    from qbench.metrics.image_folder import files_digest, image_files
    from qbench.workloads.pictures import Pictures

    files = image_files(path, names, limit)
    sizes = [(each.header.width, each.header.height) for each in files]
    take: Callable[[Sequence[int]], Sequence[Picture]] = partial(_chosen, files)
    return Pictures(str(path), len(files), files_digest(files), take, sizes)


def _chosen(files: Sequence[Picture], indices: Sequence[int]) -> list[Picture]:
    return [files[index] for index in indices]


def _check_sizes(pictures: Pictures, settings: PreprocessingSettings, image_shape: tuple[int, int, int]) -> None:
    """Refuse before any work what would be refused when pixels are read."""
    from qbench.workloads.preprocessing import preprocessed_size

    if settings.size is not None:
        _check_size(f"{pictures.place}: each image", (settings.size, settings.size), image_shape)
    elif pictures.sizes is not None:
        for index, size in enumerate(pictures.sizes):
            place = pictures.take([index])[0].place
            _check_size(place, preprocessed_size(*size, settings), image_shape)


def _check_size(place: str, size: tuple[int, int], image_shape: tuple[int, int, int]) -> None:
    _, height, width = image_shape
    if size != (width, height):
        raise DataError(
            f"{place} is {size[0]}x{size[1]} pixels after preprocessing, and samples are {width}x{height}: set `crop` "
            "and `size` of `preprocessing`"
        )


def _read(
    pictures: Pictures, settings: PreprocessingSettings, shape: tuple[int, int, int], indices: Sequence[int]
) -> NDArray[uint8]:
    import numpy as np

    images = np.empty((len(indices), *shape), np.uint8)
    with ThreadPoolExecutor(THREADS) as pool:
        chosen = pictures.take(indices)
        for row, pixels in enumerate(pool.map(partial(_pixels, settings, shape), chosen)):
            images[row] = pixels
    return images


def _pixels(settings: PreprocessingSettings, shape: tuple[int, int, int], picture: Picture) -> NDArray[uint8]:
    import numpy as np

    from qbench.workloads.preprocessing import preprocessed

    channels, height, width = shape
    image = preprocessed(picture.decoded(channels), settings)
    _check_size(picture.place, image.size, shape)
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)
