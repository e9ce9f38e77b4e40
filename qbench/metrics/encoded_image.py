"""One encoded image: what is said of it before any pixel is decoded, and its pixels.

Pixels are taken as they are stored: nothing is turned as a camera's notes (EXIF) may ask for, and no colour profile is
applied. What could be read in more than one way (alpha, more than 8 bits, CMYK, several pictures) is refused.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from qbench.errors import DataError

GREY = ("1", "L")
COLOUR = ("P", "RGB")


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are decoded.

    Attributes:
        width: in pixels.
        height: in pixels.
        is_colour: whether it has colours, if only in a palette.
    """

    width: int
    height: int
    is_colour: bool


def image_header(content: bytes, place: str) -> Header:
    """Return what an image's header says.

    Args:
        content: the encoded image.
        place: begins the sentence of an error, such as a path.

    Raises:
        DataError: it is no image, or has an alpha channel, more than 8 bits a channel, more than one picture, or
            colours that are not RGB.
    """
    with _naming(place), Image.open(io.BytesIO(content)) as image:
        _check(place, image)
        return Header(*image.size, image.mode in COLOUR)


def decoded_image(content: bytes, place: str, channels: int) -> Image.Image:
    """Return an image in mode L (one channel) or RGB (three); grey becomes colour of three equal channels.

    Raises:
        DataError: as for ``image_header``; or it is damaged, or in colour where grey is due.
    """
    with _naming(place), Image.open(io.BytesIO(content)) as image:
        _check(place, image)
        if channels == 1 and image.mode in COLOUR:
            raise DataError(
                f"{place} is in colour, and grey images are due: convert it first, with ImageMagick for example by "
                "`mogrify -colorspace Gray`"
            )
        return image.convert("L" if channels == 1 else "RGB")


def _check(place: str, image: Image.Image) -> None:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        raise DataError(
            f"{place} has an alpha channel: flatten it first, with ImageMagick for example by "
            "`mogrify -background white -alpha remove -alpha off`"
        )
    # Pillow itself cuts 16 bits of colour down to 8, and tells so only in the name of its decoder's mode.
    if image.mode[0] in "IF" or ";16" in str(getattr(image, "tile", "")):
        raise DataError(
            f"{place} has more than 8 bits a channel: convert it first, with ImageMagick for example by "
            "`mogrify -depth 8`"
        )
    if image.mode not in (*GREY, *COLOUR):
        raise DataError(
            f"{place} is in {image.mode} colours: convert it first, with ImageMagick for example by "
            "`mogrify -colorspace sRGB`"
        )
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise DataError(f"{place} holds {frames} images: write each into a file of its own")


@contextmanager
def _naming(place: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # Pillow has no error of its own for every damage
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise DataError(f"{place} cannot be read as an image ({reason}): remove it or write it again") from error
