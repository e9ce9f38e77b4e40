"""Features or images of a cell, row by row, in files that are mapped into memory and never read as a whole."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy import int64
    from numpy.typing import NDArray

    from qbench.metrics.metric import Array

CHUNK = 1024
"""Rows that are in memory at a time, at most."""
CHUNK_BYTES = 100_000_000
"""What they may take, at most, unless one row takes more."""


class Rows:
    """Rows [count, ...] in the order of sample indices.

    Args:
        shards: arrays [n, ...] one after the other, usually memory-mapped; images are uint8 and are handed out as
            floats in [-1, 1], everything else as it is.
        chosen: positions to keep, ascending; all by default.

    Raises:
        ValueError: there is no shard, or shards of different shapes.
    """

    def __init__(self, shards: Sequence[NDArray[Any]], chosen: NDArray[int64] | None = None) -> None:
        if len({shard.shape[1:] for shard in shards}) != 1:
            raise ValueError(
                f"shards of shapes {sorted({shard.shape[1:] for shard in shards})} are no rows of one thing"
            )
        self._shards = list(shards)
        self._ends = np.cumsum([len(shard) for shard in shards])
        self._chosen = np.arange(int(self._ends[-1])) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self._shards[0].shape[1:])

    def __getitem__(self, index: slice | NDArray[int64]) -> Array:
        """Return some rows, float64 [n, ...], in the order asked for."""
        positions = self._chosen[index]
        found = np.empty((len(positions), *self.shape), np.float64)
        owners = np.searchsorted(self._ends, positions, side="right")
        for owner in np.unique(owners):
            of_owner = owners == owner
            first = self._ends[owner] - len(self._shards[owner])
            found[of_owner] = self._shards[owner][positions[of_owner] - first]
            _let_go(self._shards[owner])
        if self._shards[0].dtype == np.uint8:
            found /= 127.5
            found -= 1
        return found

    def chunks(self, size: int = CHUNK) -> Iterator[Array]:
        """Yield all rows, ``size`` at a time, or fewer where rows are long."""
        size = max(1, min(size, CHUNK_BYTES // (8 * max(1, int(np.prod(self.shape))))))
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def group(self, group: int, groups: int) -> Rows:
        """Return the rows at positions i with i mod ``groups`` equal to ``group``."""
        return Rows(self._shards, self._chosen[group::groups])

    def without(self, group: int, groups: int) -> Rows:
        """Return all rows but those of a group."""
        return Rows(self._shards, self._chosen[np.arange(len(self)) % groups != group])


def _let_go(shard: NDArray[Any]) -> None:
    """Give back the memory of what was read of a mapped file: as long as it is held, all images come to be in it."""
    mapped = shard.base if isinstance(shard, np.memmap) else None
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
