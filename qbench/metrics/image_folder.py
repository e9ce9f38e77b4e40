"""A folder of images as an ``ImageSet``: what other programs write, and what data sets are published as.

Pixels are taken as they are stored: nothing is resized, and nothing is turned as a camera's notes may ask for.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from qbench.errors import DataError
from qbench.workload import ImageSet

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""How the names of image files end, in lower or upper case."""
GREY = ("1", "L")
COLOUR = ("P", "RGB")
THREADS = 4
"""Files that are decoded at the same time."""


@dataclass(frozen=True)
class _Header:
    path: Path
    width: int
    height: int
    is_colour: bool
    digest: bytes


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
    headers = [_header(file) for file in _files(path)]
    first = headers[0]
    for other in headers:
        if (other.width, other.height) != (first.width, first.height):
            raise DataError(
                f"{path}: {first.path.name} is {first.width}x{first.height} pixels and {other.path.name} is "
                f"{other.width}x{other.height}: resize the images to one size first"
            )
    shape = (3 if any(each.is_colour for each in headers) else 1, first.height, first.width)
    digest = hashlib.sha256(b"".join(each.digest for each in headers)).hexdigest()
    read = partial(_read, headers, shape)
    return ImageSet(path.resolve().name, len(headers), digest, read)


def image_stems(path: Path) -> list[str]:
    """Return the names of a folder's images without their suffixes, in the order of the images.

    Raises:
        DataError: there is no such folder, or no image is in it.
    """
    return [file.stem for file in _files(path)]


def _files(path: Path) -> list[Path]:
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


def _header(path: Path) -> _Header:
    with _naming(path):
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            _check(path, image)
            return _Header(path, *image.size, image.mode in COLOUR, hashlib.sha256(content).digest())


def _check(path: Path, image: Image.Image) -> None:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        raise DataError(
            f"{path} has an alpha channel: flatten it first, with ImageMagick for example by "
            "`mogrify -background white -alpha remove -alpha off`"
        )
    # Pillow itself cuts 16 bits of colour down to 8, and tells so only in the name of its decoder's mode.
    if image.mode[0] in "IF" or ";16" in str(getattr(image, "tile", "")):
        raise DataError(
            f"{path} has more than 8 bits a channel: convert it first, with ImageMagick for example by "
            "`mogrify -depth 8`"
        )
    if image.mode not in (*GREY, *COLOUR):
        raise DataError(
            f"{path} is in {image.mode} colours: convert it first, with ImageMagick for example by "
            "`mogrify -colorspace sRGB`"
        )
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise DataError(f"{path} holds {frames} images: write each into a file of its own")


def _read(headers: Sequence[_Header], shape: tuple[int, int, int], indices: Sequence[int]) -> NDArray[uint8]:
    images = np.empty((len(indices), *shape), np.uint8)
    with ThreadPoolExecutor(THREADS) as pool:
        for row, pixels in enumerate(pool.map(partial(_pixels, shape), [headers[index] for index in indices])):
            images[row] = pixels
    return images


def _pixels(shape: tuple[int, int, int], header: _Header) -> NDArray[uint8]:
    channels, height, width = shape
    with _naming(header.path):
        content = header.path.read_bytes()
        if hashlib.sha256(content).digest() != header.digest:
            raise DataError(f"{header.path} changed since it was first read: start again")
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
            return pixels.reshape(height, width, channels).transpose(2, 0, 1)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # Pillow has no error of its own for every damage
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as an image ({reason}): remove it or write it again") from error
