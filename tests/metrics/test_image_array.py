from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qbench.errors import DataError
from qbench.metrics.image_array import image_array


def images(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 6, 8, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
def test_images_come_as_they_were_saved(tmp_path: Path, channels: int, save: Any) -> None:
    stored = images(channels)
    path = tmp_path / ("samples.npy" if save is np.save else "samples.npz")
    save(path, stored)
    found = image_array(path)
    assert (found.name, found.count, len(found.digest)) == ("samples", 5, 64)
    read = found.read([4, 0, 0])
    assert (read.dtype, read.shape) == (np.uint8, (3, channels, 6, 8))
    np.testing.assert_array_equal(read, stored[[4, 0, 0]].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("order", ["C", "F"])
def test_other_arrays_may_lie_beside_them(tmp_path: Path, order: Any) -> None:
    """Guided-diffusion adds labels, and to its reference batches statistics."""
    path = tmp_path / "batch.npz"
    np.savez(path, np.asarray(images(), order=order), np.arange(5), mu=np.zeros(3), sigma=np.eye(3))
    np.testing.assert_array_equal(image_array(path).read(range(5)), images().transpose(0, 3, 1, 2))


def test_uncompressed_images_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, images())
    found = image_array(path)
    content = path.read_bytes()
    changed = content.replace(images().tobytes(), bytes(images().size))
    assert changed != content
    with path.open("r+b") as file:
        file.write(changed)
    assert not found.read(range(5)).any()


def test_the_digest_is_of_the_file(tmp_path: Path) -> None:
    first, second = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(first, images())
    np.save(second, images()[::-1])
    assert image_array(first).digest == image_array(first).digest != image_array(second).digest


BAD: dict[str, Any] = {
    "floats": images().astype(np.float32),
    "more bits": images().astype(np.uint16),
    "channels first": images().transpose(0, 3, 1, 2),
    "alpha": images(4),
    "no channels": images()[..., 0],
    "one image": images()[0],
    "no images": images()[:0],
    "objects": np.array([{}, {}], object),
}


@pytest.mark.parametrize("array", BAD.values(), ids=BAD)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
def test_other_arrays_are_no_images(tmp_path: Path, array: Any, save: Any) -> None:
    path = tmp_path / ("samples.npy" if save is np.save else "samples.npz")
    save(path, array)
    with pytest.raises(DataError) as caught:
        image_array(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_an_archive_without_images(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, mu=np.zeros(3))
    with pytest.raises(DataError, match=r"samples\.npz holds no array 'arr_0': save the images with `np\.savez"):
        image_array(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz cannot be read \(No such file"):
        image_array(tmp_path / "none.npz")


@pytest.mark.parametrize("name", ["samples.npz", "samples.npy"])
@pytest.mark.parametrize("size", [0, 3, 100, 300, 700])
def test_a_file_that_is_cut_short(tmp_path: Path, name: str, size: int) -> None:
    path = tmp_path / name
    (np.savez if name.endswith("z") else np.save)(path, images())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=f"{name} cannot be read as an array of images"):
        image_array(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_is_found(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "samples.npz"
    save(path, images())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"samples\.npz cannot be read as an array of images \(.*arr_0.*\)") as caught:
        image_array(path)
    assert "\n" not in str(caught.value)
