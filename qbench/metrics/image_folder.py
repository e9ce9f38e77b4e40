"""Folders of images: what other programs write, and what data sets are published as.

How each file is read, and what is refused, is said in ``encoded_image``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qbench.errors import DataError
from qbench.metrics.encoded_image import Header, decoded_image, image_header
from qbench.workload import ImageSet

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray
    from PIL.Image import Image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""How the names of image files end, in lower or upper case."""
THREADS = 4
"""Files that are decoded at the same time."""


@dataclass(frozen=True)
class ImageFile:
    """A file that was read once, for its digest and its header.

    Attributes:
        path: where it lies.
        header: what it says of itself.
        digest: SHA-256 of its bytes.
    """

    path: Path
    header: Header
    digest: bytes

    @property
    def place(self) -> str:
        """The path, to begin the sentence of an error."""
        return str(self.path)

    def decoded(self, channels: int) -> Image:
        """Return its pixels in one channel (mode L) or three (RGB).

        Raises:
            DataError: it cannot be read, or holds other bytes than before.
        """
        content = _content(self.path)
        if hashlib.sha256(content).digest() != self.digest:
            raise DataError(f"{self.path} changed since it was first read: start again")
        return decoded_image(content, self.place, channels)


def image_folder(path: Path) -> ImageSet:
    """Return the images of a folder, in natural order of their names (img2 before img10).

    Grey images have one channel, unless some image of the folder is in colour: then all have three, as the reference
    implementations of FID do it. Hidden files, other files and sub-folders are left alone. Every file is read once
    here, for the digest and its header; pixels are read when they are asked for, and only from the same bytes.

    Args:
        path: the folder.

    Returns:
        Images of one size; their digest changes with any byte of any file and with their order, not with their names.

    Raises:
        DataError: there is no such folder; no image is in it; images differ in size; a file cannot be read, or has an
            alpha channel, more than 8 bits a channel, more than one image, or colours that are not RGB. A file that is
            cut short may be found out only when its pixels are read, and one that changed since is.
    """
    files = image_files(path)
    first = files[0]
    for other in files:
        if _size(other) != _size(first):
            raise DataError(
                f"{path}: {first.path.name} is {_size(first)} pixels and {other.path.name} is {_size(other)}: resize "
                "the images to one size first"
            )
    channels = 3 if any(each.header.is_colour for each in files) else 1
    shape = (channels, first.header.height, first.header.width)
    return ImageSet(path.resolve().name, len(files), files_digest(files), partial(_read, files, shape))


def image_files(path: Path, names: Sequence[str] | None = None, limit: int | None = None) -> list[ImageFile]:
    """Read the images of a folder once, of any sizes, for their digests and headers.

    Args:
        path: the folder.
        names: of the files that count, in their order; by default all of them, in natural order of their names.
        limit: how many of the first ones; by default all.

    Raises:
        DataError: as for ``image_folder``, sizes aside; or one of the names is not there.
    """
    paths = image_paths(path)
    if names is not None:
        names = names[:limit]
        missing = sorted(set(names) - {each.name for each in paths})
        if missing:
            raise DataError(
                f"{path} lacks {len(missing):,} of the {len(names):,} images that are due, {missing[0]} for one: put "
                "them there, under these names"
            )
        paths = [path / name for name in names]
    return [_read_once(each) for each in paths[:limit]]


def files_digest(files: Sequence[ImageFile]) -> str:
    """Return the SHA-256 of the files' bytes in their order, 64 hexadecimal digits."""
    return hashlib.sha256(b"".join(each.digest for each in files)).hexdigest()


def image_stems(path: Path) -> list[str]:
    """Return the names of a folder's images without their suffixes, in the order of the images.

    Raises:
        DataError: there is no such folder, or no image is in it.
    """
    return [file.stem for file in image_paths(path)]


def image_paths(path: Path) -> list[Path]:
    """Return the image files of a folder in natural order of their names, reading none.

    Raises:
        DataError: there is no such folder, or no image is in it.
    """
    try:
        seen = [each for each in path.iterdir() if not each.name.startswith(".")]
    except NotADirectoryError:
        raise DataError(f"{path} is a file: name the folder that holds the images") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read as a folder of images ({error.strerror})") from None
    found = [each for each in seen if each.suffix.lower() in SUFFIXES and not each.is_dir()]
    for each in found:
        if not each.is_file():
            what = "is a link to a file that is not there" if each.is_symlink() else "is not a file"
            raise DataError(f"{each} {what}: remove it or write the image again")
    if not found:
        kinds = ", ".join(suffix.removeprefix(".") for suffix in SUFFIXES)
        folders = sorted(each.name for each in seen if each.is_dir())
        hint = (
            f"sub-folders such as {folders[0]!r} are not searched: name the one that holds the images"
            if folders
            else "name the folder that holds them"
        )
        raise DataError(f"{path} holds no images ({kinds}): {hint}")
    return sorted(found, key=_natural)


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Split a name into text and numbers; text comes first, so that like is compared with like."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if part.isdecimal() else part for part in parts], path.name


def _read_once(path: Path) -> ImageFile:
    content = _content(path)
    return ImageFile(path, image_header(content, str(path)), hashlib.sha256(content).digest())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read as an image ({error.strerror}): remove it or write it again") from error


def _size(file: ImageFile) -> str:
    return f"{file.header.width}x{file.header.height}"


def _read(files: Sequence[ImageFile], shape: tuple[int, int, int], indices: Sequence[int]) -> NDArray[uint8]:
    images = np.empty((len(indices), *shape), np.uint8)
    with ThreadPoolExecutor(THREADS) as pool:
        for row, pixels in enumerate(pool.map(partial(_pixels, shape), [files[index] for index in indices])):
            images[row] = pixels
    return images


def _pixels(shape: tuple[int, int, int], file: ImageFile) -> NDArray[uint8]:
    channels, height, width = shape
    return np.asarray(file.decoded(channels)).reshape(height, width, channels).transpose(2, 0, 1)
