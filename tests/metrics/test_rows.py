from pathlib import Path

import numpy as np
import pytest

from qbench.metrics.rows import Rows


def cut(values: np.ndarray, *ends: int) -> list[np.ndarray]:
    return np.split(values, ends)


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)


@pytest.mark.parametrize("ends", [(), (7,), (1, 22), (5, 5, 6)])
def test_however_it_is_cut_the_rows_are_the_same(values: np.ndarray, ends: tuple[int, ...]) -> None:
    rows = Rows(cut(values, *ends))
    assert (len(rows), rows.shape) == (23, (3,))
    assert rows[:].dtype == np.float64
    np.testing.assert_array_equal(rows[:], values)
    np.testing.assert_array_equal(rows[4:9], values[4:9])
    order = np.array([22, 0, 7, 7, 3])
    np.testing.assert_array_equal(rows[order], values[order])


@pytest.mark.parametrize("size", [1, 5, 23, 100])
def test_chunks_are_all_rows_in_order(values: np.ndarray, size: int) -> None:
    chunks = list(Rows(cut(values, 6)).chunks(size))
    np.testing.assert_array_equal(np.concatenate(chunks), values)
    assert max(map(len, chunks)) <= size


def test_groups_share_out_the_rows(values: np.ndarray) -> None:
    rows = Rows(cut(values, 4, 15))
    np.testing.assert_array_equal(rows.group(2, 5)[:], values[2::5])
    np.testing.assert_array_equal(rows.without(2, 5)[:], np.delete(values, np.s_[2::5], axis=0))
    np.testing.assert_array_equal(rows.without(2, 5).group(0, 2)[:], np.delete(values, np.s_[2::5], axis=0)[::2])
    assert sum(len(rows.group(group, 5)) for group in range(5)) == 23


def test_images_come_as_floats_from_minus_one_to_one() -> None:
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(Rows([images])[:].ravel(), [-1, -0.6, 1], rtol=1e-15)


def test_files_are_mapped_and_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    """A file that is a hole of 8 GB on disk: reading it as a whole would not do."""
    path = tmp_path / "features.npy"
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(1_000_000, 2048))
    mapped[999_999] = 3
    del mapped
    rows = Rows([np.load(path, mmap_mode="r")])
    np.testing.assert_array_equal(rows[999_998:].mean(axis=1), [0, 3])


def test_shards_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="are no rows of one thing"):
        Rows([np.zeros((2, 3)), np.zeros((2, 4))])
