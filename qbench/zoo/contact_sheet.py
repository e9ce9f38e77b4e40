"""A picture of many small images, for a card."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 8
"""Rows and columns of images."""

MAGNIFICATION = 4
"""Every pixel becomes a square of this side."""


def write_contact_sheet(images: NDArray[np.uint8], path: Path) -> None:
    """Writes 64 grey images [64, 1, H, W] as one PNG, row by row, magnified without smoothing."""
    count, _, height, width = images.shape
    if count != SIDE * SIDE:
        raise ValueError(f"a contact sheet holds {SIDE * SIDE} images, not {count}")
    rows = images.reshape(SIDE, SIDE, height, width).transpose(0, 2, 1, 3).reshape(SIDE * height, SIDE * width)
    sheet = np.kron(rows, np.ones((MAGNIFICATION, MAGNIFICATION), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path, optimize=True)
