"""Crop and resize of real images; see ``PreprocessingSettings`` for what exactly is done."""

from __future__ import annotations

from PIL import Image

from qbench.workloads.reference_settings import PreprocessingSettings

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
}


def preprocessed(image: Image.Image, settings: PreprocessingSettings) -> Image.Image:
    """Return an image, of mode L or RGB, cropped and resized."""
    if settings.crop == "center":
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if settings.size is not None:
        image = image.resize((settings.size, settings.size), FILTERS[settings.filter])
    return image


def preprocessed_size(width: int, height: int, settings: PreprocessingSettings) -> tuple[int, int]:
    """Return the (width, height) that an image will have."""
    if settings.size is not None:
        return settings.size, settings.size
    return (min(width, height),) * 2 if settings.crop == "center" else (width, height)
