"""The sheet of same-noise images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from qbench.results.pictures import COLUMNS, GAP, LABEL_WIDTH, _write


@pytest.mark.parametrize("length", [5, 30, 120])
def test_labels_are_not_hidden_under_images(tmp_path: Path, length: int) -> None:
    """White images on white: what is dark is the label, and all of it is there."""
    label = "m" * length
    images = np.full((COLUMNS, 1, 16, 16), 255, np.uint8)
    _write({label: images}, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    wide = ImageFont.load_default().getlength(label)
    dark = np.flatnonzero((sheet < 128).any(axis=0))
    assert dark[-1] >= GAP + wide - 3
    assert dark[-1] < sheet.shape[1] - COLUMNS * (48 + GAP)
    assert sheet.shape[1] >= LABEL_WIDTH + COLUMNS * (48 + GAP)
