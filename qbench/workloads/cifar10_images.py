"""CIFAR-10's training images from its binary version; the Python version is pickled, and pickles are never read.

Source: https://www.cs.toronto.edu/~kriz/cifar.html: five files of 10,000 records, each a label and then 1,024 bytes of
red, of green and of blue, row by row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qbench.errors import DataError
from qbench.identity import file_digest
from qbench.workloads.pictures import Pictures

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
FOLDER = "cifar-10-batches-bin"
"""What the archive unpacks to."""
RECORDS = 10_000
SIDE = 32
CLASSES = 10
ADVICE = "unpack https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz and name its folder"


@dataclass(frozen=True)
class _Record:
    pixels: NDArray[np.uint8]
    place: str

    def decoded(self, channels: int) -> Image:
        from PIL import Image

        if channels != 3:
            raise DataError(f"{self.place} is in colour, and grey images are due: CIFAR-10 is no reference for these")
        return Image.fromarray(np.ascontiguousarray(self.pixels.transpose(1, 2, 0)))


def cifar10_pictures(path: Path, limit: int | None = None) -> Pictures:
    """Return the 50,000 training images in the order of the files.

    Args:
        path: holds data_batch_1.bin to data_batch_5.bin, or a folder cifar-10-batches-bin that does.
        limit: how many of the first ones; by default all.

    Raises:
        DataError: a file is missing, cut short or something else; or it is the Python version.
    """
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    for name in FILES:
        file = folder / name
        if not file.is_file():
            pickled = [each for each in (folder, folder / "cifar-10-batches-py") if (each / "data_batch_1").is_file()]
            if pickled:
                raise DataError(f"{pickled[0]} is CIFAR-10's Python version, and pickles are not read: {ADVICE}")
            raise DataError(f"{file} does not exist: {ADVICE}")
        _check(file)
    digest = hashlib.sha256("".join(file_digest(folder / name) for name in FILES).encode()).hexdigest()
    count = min(RECORDS * len(FILES), limit or RECORDS * len(FILES))
    return Pictures(str(path), count, digest, partial(_take, folder), [(SIDE, SIDE)] * count)


def _check(file: Path) -> None:
    due = RECORDS * (1 + 3 * SIDE * SIDE)
    size = file.stat().st_size
    if size != due:
        raise DataError(f"{file} has {size:,} bytes and not the {due:,} of {RECORDS:,} images: {ADVICE}")
    if _records(file)[:, 0].max() >= CLASSES:
        raise DataError(f"{file} has labels above {CLASSES - 1}, so it is no file of CIFAR-10: {ADVICE}")


def _records(file: Path) -> NDArray[np.uint8]:
    return np.memmap(file, np.uint8, "r", shape=(RECORDS, 1 + 3 * SIDE * SIDE))


def _take(folder: Path, indices: Sequence[int]) -> list[_Record]:
    batches = {number: _records(folder / FILES[number]) for number in {index // RECORDS for index in indices}}
    return [
        _Record(
            np.array(batches[index // RECORDS][index % RECORDS, 1:]).reshape(3, SIDE, SIDE),
            f"{folder}: the image {index}",
        )
        for index in indices
    ]
