"""An array of any size, written into a file piece by piece."""

from __future__ import annotations

from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


class ArrayFile:
    """A ``.npy`` file that rows are written into, in any order; a context that closes it.

    It is not mapped into memory: where a disk is full, the system ends a process that writes to a map (SIGBUS), and
    tells one that writes to a file.

    Args:
        path: of the file, which is made.
        dtype: of the array.
        shape: of the array.
    """

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        import numpy as np
        from numpy.lib import format as npy

        self._dtype = np.dtype(dtype)
        self._shape = shape
        self._file = path.open("wb")
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, header)
        self._begin = self._file.tell()

    def write(self, place: range, rows: NDArray[Any]) -> None:
        """Write rows to their place.

        Args:
            place: their indices, one after the other.
            rows: [count, ...], as the array's own from its second axis on.

        Raises:
            ValueError: they do not fit the array.
            OSError: there is no room for them.
        """
        if rows.shape != (len(place), *self._shape[1:]) or not 0 <= place.start <= place.stop <= self._shape[0]:
            raise ValueError(f"an array {rows.shape} does not fit rows {place.start} to {place.stop} of {self._shape}")
        size = self._dtype.itemsize * prod(self._shape[1:])
        self._file.seek(self._begin + place.start * size)
        self._file.write(rows.astype(self._dtype, order="C", copy=False).tobytes())

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()
