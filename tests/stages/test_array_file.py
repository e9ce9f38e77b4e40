"""Files of arrays that are written piece by piece are those that numpy writes at once."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from qbench.stages.array_file import ArrayFile

ROWS = np.arange(7 * 3 * 2, dtype=np.float32).reshape(7, 3, 2)


@pytest.mark.parametrize("pieces", [[range(7)], [range(5, 7), range(3), range(3, 5)], [range(4), range(2, 7)]])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_the_file_is_numpys_own(tmp_path: Path, pieces: list[range], dtype: type) -> None:
    rows = ROWS.astype(dtype)
    with ArrayFile(tmp_path / "pieces.npy", dtype, rows.shape) as file:
        for piece in pieces:
            file.write(piece, rows[piece.start : piece.stop])
    np.save(tmp_path / "whole.npy", rows)
    assert (tmp_path / "pieces.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_values_are_turned_into_the_type_of_the_file(tmp_path: Path) -> None:
    with ArrayFile(tmp_path / "rows.npy", np.float32, (2, 3)) as file:
        file.write(range(2), np.asfortranarray([[1.5, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert np.load(tmp_path / "rows.npy").tolist() == [[1.5, 2.0, 3.0], [4.0, 5.0, 6.0]]


@pytest.mark.parametrize(("place", "shape"), [(range(2), (3, 3, 2)), (range(6, 8), (2, 3, 2)), (range(2), (2, 2, 3))])
def test_what_does_not_fit_is_refused(tmp_path: Path, place: range, shape: tuple[int, ...]) -> None:
    with ArrayFile(tmp_path / "rows.npy", np.float32, ROWS.shape) as file, pytest.raises(ValueError, match="not fit"):
        file.write(place, np.zeros(shape, np.float32))


@contextmanager
def no_room() -> Iterator[None]:
    """Let the system refuse files of more than 1,000 bytes, with an error in place of a signal.

    Not as a fixture: what pytest prints of a test may go to a file as well.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_where_there_is_no_room_an_error_says_so(tmp_path: Path) -> None:
    with (
        no_room(),
        pytest.raises(OSError, match=os.strerror(27)),
        ArrayFile(tmp_path / "rows.npy", np.uint8, (5000,)) as file,
    ):
        file.write(range(5000), np.zeros(5000, np.uint8))
