from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qbench.zoo.contact_sheet import write_contact_sheet
from qbench.zoo.fashion_mnist import FashionMnist


def test_images_lie_row_by_row_and_magnified(tmp_path: Path, synthetic: FashionMnist) -> None:
    write_contact_sheet(synthetic.images, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (8 * 16 * 4, 8 * 16 * 4)
    tile = sheet[64:128, 128:192]  # second row, third column: image 10
    assert np.array_equal(tile[::4, ::4], synthetic.images[10, 0])
    assert np.array_equal(tile[3::4, 3::4], synthetic.images[10, 0])


def test_another_number_of_images_is_refused(tmp_path: Path, synthetic: FashionMnist) -> None:
    with pytest.raises(ValueError, match="holds 64 images, not 63"):
        write_contact_sheet(synthetic.images[:63], tmp_path / "sheet.png")
