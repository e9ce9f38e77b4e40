"""What can be said of a Fashion-MNIST image: its class, and attributes that can be seen in its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""The ten classes, in the order of their labels."""

TONES = ("dark", "grey", "bright")
SHAPES = {
    name: ("low", "tall") if name in ("sandal", "sneaker", "bag", "ankle boot") else ("slim", "wide") for name in NAMES
}
"""What is small and what is large of each class: shoes and bags fill the width, so their height tells them apart."""
TEXTURES = ("plain", "patterned")

VISIBLE = 24
"""Grey value from which a pixel is part of the garment, 0 to 255."""


@dataclass(frozen=True)
class Garment:
    """One garment in words."""

    name: str
    """One of ``NAMES``."""
    tone: str
    """One of ``TONES``: in which third of all training images its mean grey value lies."""
    shape: str
    """One of its class' ``SHAPES``: on which side of the class' median its width or height lies."""
    texture: str
    """One of ``TEXTURES``: on which side of its class' median its local contrast lies."""


TEMPLATES = (
    "a {tone} {shape} {texture} {name}",
    "a photo of a {texture} {tone} {name}, {shape}",
    "a {shape} {name} in {tone}, {texture}",
    "{name}, {tone} and {texture}",
    "a {tone} {name}",
)
"""How captions are worded; the first says everything that is known."""


def caption(garment: Garment, template: int = 0) -> str:
    """Words a garment's caption.

    Args:
        garment: The garment.
        template: Index into ``TEMPLATES``.
    """
    words = {"name": garment.name, "tone": garment.tone, "shape": garment.shape, "texture": garment.texture}
    return TEMPLATES[template].format(**words)


@dataclass(frozen=True)
class Thresholds:
    """Where one attribute ends and the next begins, found on the training images."""

    tone: tuple[float, float]
    """Mean grey values that cut all images in thirds."""
    extent: tuple[float, ...]
    """Median width or height of each class, pixels."""
    texture: tuple[float, ...]
    """Median local contrast of each class, grey values."""


def find_thresholds(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Thresholds:
    """Finds the thresholds.

    Args:
        images: Training images [N, 28, 28].
        labels: Their classes [N].
    """
    tone, extent, texture = _measured(images, labels)
    first, second = np.quantile(tone, [1 / 3, 2 / 3]).tolist()
    classes = range(len(NAMES))
    return Thresholds(
        (first, second),
        tuple(float(np.median(extent[labels == each])) for each in classes),
        tuple(float(np.median(texture[labels == each])) for each in classes),
    )


def describe(images: NDArray[np.uint8], labels: NDArray[np.int64], thresholds: Thresholds) -> list[Garment]:
    """Puts images [N, 28, 28] of classes [N] into words."""
    tone, extent, texture = _measured(images, labels)
    tones = np.searchsorted(thresholds.tone, tone, side="right")
    return [
        Garment(
            NAMES[label],
            TONES[tones[index]],
            SHAPES[NAMES[label]][int(extent[index] > thresholds.extent[label])],
            TEXTURES[int(texture[index] > thresholds.texture[label])],
        )
        for index, label in enumerate(labels.tolist())
    ]


def every_caption() -> list[str]:
    """All captions that there can be, each once, in a fixed order."""
    garments = [
        Garment(name, tone, shape, texture)
        for name in NAMES
        for tone in TONES
        for shape in SHAPES[name]
        for texture in TEXTURES
    ]
    return list(dict.fromkeys(caption(each, index) for each in garments for index in range(len(TEMPLATES))))


def _measured(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Sequence[NDArray[np.float64]]:
    """Mean grey value of the garment, its width or height, and its contrast from pixel to pixel, each [N]."""
    grey = images.astype(np.float64)
    visible = images >= VISIBLE
    pixels = np.maximum(visible.sum(axis=(1, 2)), 1)
    tone = (grey * visible).sum(axis=(1, 2)) / pixels
    width, height = (visible.any(axis=axis).sum(axis=1).astype(np.float64) for axis in (1, 2))
    is_tall = np.array([SHAPES[name][1] == "tall" for name in NAMES])[labels]
    inside = visible[:, :, 1:] & visible[:, :, :-1]
    texture = (np.abs(np.diff(grey, axis=2)) * inside).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
    return tone, np.where(is_tall, height, width), texture
