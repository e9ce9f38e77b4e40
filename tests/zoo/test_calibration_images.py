import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qbench.errors import DataError
from qbench.identity import file_digest
from qbench.zoo.calibration_images import COUNT, read_calibration_images, spread, write_calibration_images
from qbench.zoo.fashion_mnist import FashionMnist, load_fashion_mnist
from qbench.zoo.finish import ship_calibration_images
from qbench.zoo.paths import card_path, weights_path
from qbench.zoo.tensor_file import read_tensors, write_tensors


def test_indices_are_spread_over_all_images() -> None:
    assert spread(COUNT) == list(range(COUNT))
    found = spread(60_000)
    assert (len(set(found)), found[0], found[-1]) == (COUNT, 0, 59_941)
    assert set(np.diff(found).tolist()) == {58, 59}
    with pytest.raises(DataError, match=r"1,024 images are to ship, and the data set has 1,023\."):
        spread(COUNT - 1)


def test_images_survive(tmp_path: Path, synthetic: FashionMnist) -> None:
    images = np.tile(synthetic.images, (40, 1, 1, 1))
    written = write_calibration_images(tmp_path / "c.safetensors", images)
    found = read_calibration_images(tmp_path / "c.safetensors")
    assert (found.name, found.count, found.digest) == (written.name, COUNT, file_digest(tmp_path / "c.safetensors"))
    assert found.name == "1,024 of 2,560 Fashion-MNIST training images, 16x16"
    assert np.array_equal(found.read(range(COUNT)), images[spread(2_560)])
    assert np.array_equal(found.read([7, 0, 7]), images[[17, 0, 17]])
    assert found.read([]).shape == (0, 1, 16, 16)


def test_another_file_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {"name": "x"})
    with pytest.raises(DataError, match="lacks count"):
        read_calibration_images(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="not a readable"):
        read_calibration_images(tmp_path / "x.safetensors")
    with pytest.raises(DataError, match="does not exist"):
        read_calibration_images(tmp_path / "y.safetensors")


def test_what_ships_says_whose_it_is() -> None:
    file = read_tensors(weights_path("fashion-calibration"))
    assert file.metadata["licence"].startswith("MIT, Copyright (c) 2017 Zalando SE")
    assert "arXiv:1708.07747" in file.metadata["source"]
    images = file.tensors["images"]
    assert (images.dtype, images.shape) == (torch.uint8, (COUNT, 1, 16, 16))
    assert len({image.numpy().tobytes() for image in images}) > COUNT - 5


def test_asking_for_the_images_loads_no_torch() -> None:
    code = (
        "import sys; from qbench.zoo.paths import weights_path; "
        "from qbench.zoo.calibration_images import read_calibration_images; "
        "read_calibration_images(weights_path('fashion-calibration')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_the_shipped_file_is_what_the_command_writes(fashion_folder: Path, tmp_path: Path) -> None:
    card = ship_calibration_images(load_fashion_mnist("train", fashion_folder), tmp_path)
    written = tmp_path / "weights" / "fashion-calibration.safetensors"
    assert written.read_bytes() == weights_path("fashion-calibration").read_bytes()
    assert card.read_bytes() == card_path("fashion-calibration").read_bytes()
