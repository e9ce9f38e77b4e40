import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from qbench.errors import DataError
from qbench.zoo import fashion_mnist
from qbench.zoo.fashion_mnist import load_fashion_mnist, pad, read_idx, shrink, unpad


def idx(array: np.ndarray) -> bytes:
    shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def publish(monkeypatch: pytest.MonkeyPatch, path: Path, packed: bytes) -> None:
    path.write_bytes(packed)
    monkeypatch.setitem(fashion_mnist.MD5, path.name, hashlib.md5(packed).hexdigest())


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: np.ndarray) -> Path:
    publish(monkeypatch, tmp_path / "t10k-images-idx3-ubyte.gz", gzip.compress(idx(images)))
    labels = np.array([3, 1, 4, 1, 5], np.uint8)
    publish(monkeypatch, tmp_path / "t10k-labels-idx1-ubyte.gz", gzip.compress(idx(labels)))
    return tmp_path


def test_a_split_is_read_and_shrunk(folder: Path, images: np.ndarray) -> None:
    split = load_fashion_mnist("test", folder)
    assert split.images.dtype == np.uint8
    assert split.images.shape == (5, 1, 16, 16)
    assert np.array_equal(split.images, shrink(images))
    assert split.labels.tolist() == [3, 1, 4, 1, 5]


def test_idx_values_survive(folder: Path, images: np.ndarray) -> None:
    assert np.array_equal(read_idx(folder / "t10k-images-idx3-ubyte.gz"), images)


def test_shrinking_averages_areas() -> None:
    # 32 to 16: every pixel is the mean of a 2x2 block, so the result is known in closed form.
    blocks = np.random.default_rng(1).integers(0, 256, (2, 16, 16), dtype=np.uint8)
    assert np.array_equal(shrink(blocks.repeat(2, axis=1).repeat(2, axis=2))[:, 0], blocks)


def test_shrinking_rounds_and_does_not_truncate() -> None:
    quarter = np.zeros((1, 32, 32), np.uint8)
    quarter[:, ::2, ::2] = 7  # the mean 1.75 becomes 2
    assert (shrink(quarter) == 2).all()


def test_a_file_that_is_not_the_published_one_is_refused(folder: Path) -> None:
    path = folder / "t10k-images-idx3-ubyte.gz"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="not the published file"):
        load_fashion_mnist("test", folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz does not exist"):
        load_fashion_mnist("train", folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (bytes([0, 0, 13, 1]) + (4).to_bytes(4, "big") + b"0000", "not an idx file"),
        (idx(np.zeros((3, 4, 4), np.uint8))[:-1], "is truncated"),
        (bytes([0, 0, 8, 3, 0, 0]), "is truncated"),
    ],
)
def test_content_that_is_no_idx_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    publish(monkeypatch, path, gzip.compress(content))
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_a_broken_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    publish(monkeypatch, path, gzip.compress(idx(np.zeros((3, 4, 4), np.uint8)))[:-9])
    with pytest.raises(DataError, match="cannot be unpacked"):
        read_idx(path)


def test_files_that_do_not_belong_together_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, folder / "t10k-labels-idx1-ubyte.gz", gzip.compress(idx(np.zeros(4, np.uint8))))
    with pytest.raises(DataError, match="do not belong together"):
        load_fashion_mnist("test", folder)


def test_padding_puts_black_around_and_is_undone(images: np.ndarray) -> None:
    padded = pad(images)
    assert padded.shape == (5, 1, 32, 32)
    assert np.array_equal(unpad(padded), images)
    assert padded.sum(dtype=int) == images.sum(dtype=int)


def test_a_split_can_be_read_at_another_size(folder: Path, images: np.ndarray) -> None:
    split = load_fashion_mnist("test", folder, pad)
    assert np.array_equal(split.images, pad(images))
    assert split.labels.tolist() == [3, 1, 4, 1, 5]
