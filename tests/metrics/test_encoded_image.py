import io

import numpy as np
import pytest
from PIL import Image

from qbench.errors import DataError
from qbench.metrics.encoded_image import Header, decoded_image, image_header


def encoded(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize(("mode", "is_colour"), [("1", False), ("L", False), ("P", True), ("RGB", True)])
def test_the_header_is_told_without_pixels(mode: str, is_colour: bool) -> None:
    content = encoded(Image.new(mode, (5, 3)))
    assert image_header(content[: content.index(b"IDAT") + 8], "here") == Header(5, 3, is_colour)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_is_had_in_one_channel_and_in_three(channels: int) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (4, 6), np.uint8)
    found = np.asarray(decoded_image(encoded(Image.fromarray(grey)), "here", channels)).reshape(4, 6, channels)
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], channels, axis=2))


def test_colour_is_not_had_in_one() -> None:
    with pytest.raises(DataError) as caught:
        decoded_image(encoded(Image.new("RGB", (2, 2))), "here", 1)
    assert str(caught.value).startswith(
        "here is in colour, and grey images are due: convert it first, with ImageMagick"
    )


def test_nothing_is_turned() -> None:
    """As latent-diffusion and pytorch-fid read images, which look at no EXIF."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation: turn by 90 degrees
    content = encoded(Image.fromarray(pixels), exif=exif)
    assert image_header(content, "here") == Header(6, 4, True)
    np.testing.assert_array_equal(np.asarray(decoded_image(content, "here", 3)), pixels)


def test_damage_is_told_with_the_place() -> None:
    content = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
    with pytest.raises(DataError, match=r"^here cannot be read as an image [(].*: remove it or write it again$"):
        decoded_image(content[: len(content) // 2], "here", 3)
