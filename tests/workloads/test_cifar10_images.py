import pickle
from pathlib import Path

import numpy as np
import pytest

from qbench.errors import DataError
from qbench.workload import ImageSet
from qbench.workloads import cifar10_images
from qbench.workloads.reference_sets import reference_images
from qbench.workloads.reference_settings import ReferenceSettings


@pytest.fixture
def pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Write files of 4 records each."""
    monkeypatch.setattr(cifar10_images, "RECORDS", 4)
    stored = np.random.default_rng(0).integers(0, 256, (5, 4, 3 * 32 * 32), np.uint8)
    labels = np.full((4, 1), 9, np.uint8)
    for number, batch in enumerate(stored, 1):
        (tmp_path / f"data_batch_{number}.bin").write_bytes(np.hstack([labels, batch]).tobytes())
    return stored.reshape(20, 3, 32, 32)


def images(path: Path, **options: object) -> ImageSet:
    return reference_images(ReferenceSettings(cifar10=str(path), **options), (3, 32, 32), "CIFAR-10")  # type: ignore[arg-type]


def test_real_files_hold_50_000_images() -> None:
    assert cifar10_images.RECORDS * len(cifar10_images.FILES) == 50_000


def test_images_are_untouched_and_in_order(tmp_path: Path, pixels: np.ndarray) -> None:
    found = images(tmp_path)
    assert found.count == 20
    np.testing.assert_array_equal(found.read(range(20)), pixels)
    np.testing.assert_array_equal(found.read([19, 3, 4]), pixels[[19, 3, 4]])


def test_the_unpacked_archive_is_found(tmp_path: Path, pixels: np.ndarray) -> None:
    before = images(tmp_path).digest
    inner = tmp_path / "cifar-10-batches-bin"
    inner.mkdir()
    for file in tmp_path.glob("*.bin"):
        file.rename(inner / file.name)
    assert images(tmp_path).digest == images(inner).digest == before


def test_the_first_ones(tmp_path: Path, pixels: np.ndarray) -> None:
    found = images(tmp_path, limit=6)
    assert found.count == 6
    assert found.digest != images(tmp_path).digest
    with pytest.raises(DataError, match="holds 20 images, and `limit` asks for 21"):
        images(tmp_path, limit=21)


def test_a_file_cut_short(tmp_path: Path, pixels: np.ndarray) -> None:
    file = tmp_path / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin has 12,291 bytes and not the 12,292 of 4 images: unpack"):
        images(tmp_path)


def test_a_file_of_something_else(tmp_path: Path, pixels: np.ndarray) -> None:
    (tmp_path / "data_batch_2.bin").write_bytes(bytes([10]) * 12_292)
    with pytest.raises(DataError, match=r"data_batch_2\.bin has labels above 9, so it is no file of CIFAR-10"):
        images(tmp_path)


def test_a_missing_file(tmp_path: Path, pixels: np.ndarray) -> None:
    (tmp_path / "data_batch_5.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_5\.bin does not exist: unpack https://.*cifar-10-binary\.tar\.gz"):
        images(tmp_path)


@pytest.mark.parametrize("folder", [".", "cifar-10-batches-py"])
def test_pickles_are_not_read(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "data_batch_1").write_bytes(pickle.dumps({}))
    with pytest.raises(DataError, match="Python version, and pickles are not read: unpack"):
        images(tmp_path)


def test_grey_samples_are_compared_with_something_else(tmp_path: Path, pixels: np.ndarray) -> None:
    found = reference_images(ReferenceSettings(cifar10=str(tmp_path)), (1, 32, 32), "CIFAR-10")
    with pytest.raises(DataError, match="the image 0 is in colour, and grey images are due"):
        found.read([0])
