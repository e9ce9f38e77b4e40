import numpy as np
import pytest
from PIL import Image

from qbench.workloads.preprocessing import preprocessed, preprocessed_size
from qbench.workloads.reference_settings import UNTOUCHED, PreprocessingSettings


def picture(width: int, height: int, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


@pytest.mark.parametrize(("width", "height"), [(9, 4), (4, 9), (8, 5), (5, 5), (341, 256)])
def test_the_square_is_that_of_latent_diffusion(width: int, height: int) -> None:
    """Rows (h - c) // 2 to (h + c) // 2, c the shorter side, and columns likewise: ldm/data/lsun.py."""
    image = picture(width, height)
    side = min(width, height)
    rows, columns = (slice((each - side) // 2, (each + side) // 2) for each in (height, width))
    found = preprocessed(image, PreprocessingSettings(crop="center"))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image)[rows, columns])


def bicubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2."""
    a, x = -0.5, np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def along_rows(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize [height, width] to [height, size], each value rounded to 0..255."""
    scale = pixels.shape[1] / size
    widen = max(scale, 1)
    centres = (np.arange(size) + 0.5) * scale
    weights = bicubic((np.arange(pixels.shape[1]) + 0.5 - centres[:, None]) / widen)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(np.floor(pixels @ weights.T + 0.5), 0, 255)


@pytest.mark.parametrize(("width", "height", "size"), [(40, 40, 16), (16, 16, 24), (30, 20, 12)])
def test_bicubic_is_the_stated_kernel_with_the_stated_rounding(width: int, height: int, size: int) -> None:
    image = picture(width, height, channels=1)
    rows = along_rows(np.asarray(image).astype(float), size)
    expected = along_rows(rows.T, size).T
    found = np.asarray(preprocessed(image, PreprocessingSettings(size=size))).astype(int)
    # Pillow's weights have 22 bits, so a value half way may fall to the other side.
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.98


@pytest.mark.parametrize("name", ["lanczos", "bicubic", "bilinear", "box"])
def test_filters(name: str) -> None:
    found = preprocessed(picture(40, 20), PreprocessingSettings(size=8, filter=name))  # type: ignore[arg-type]
    expected = picture(40, 20).resize((8, 8), getattr(Image.Resampling, name.upper()))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_what_is_not_asked_for_is_not_done() -> None:
    image = picture(7, 5)
    np.testing.assert_array_equal(np.asarray(preprocessed(image, UNTOUCHED)), np.asarray(image))


@pytest.mark.parametrize("crop", ["none", "center"])
@pytest.mark.parametrize("size", [None, 6])
def test_the_size_is_known_before(crop: str, size: int | None) -> None:
    settings = PreprocessingSettings(crop=crop, size=size)  # type: ignore[arg-type]
    assert preprocessed(picture(9, 4), settings).size == preprocessed_size(9, 4, settings)
