"""Images in a NumPy file as an ``ImageSet``, as guided-diffusion writes and publishes them."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from qbench.errors import DataError
from qbench.identity import file_digest
from qbench.workload import ImageSet

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray

KEY = "arr_0"
"""Name of the images in an .npz file: what ``np.savez`` gives to its first argument."""
CHUNK_BYTES = 1 << 20
"""What is read at a time of an array whose checksum is compared."""


def image_array(path: Path) -> ImageSet:
    """Return the images of an .npy file, or of ``arr_0`` in an .npz file.

    The file is mapped into memory, so that images are read when they are asked for; a compressed .npz is read as a
    whole.

    Args:
        path: holds uint8 [N, H, W, 3] or [N, H, W, 1].

    Raises:
        DataError: the file is missing or damaged, holds no ``arr_0``, or something else than such images.
    """
    digest = file_digest(path)
    try:
        images = _mapped(path) if path.suffix == ".npz" else np.lib.format.open_memmap(path, mode="r")
    except KeyError:
        raise DataError(f"{path} holds no array {KEY!r}: save the images with `np.savez(path, images)`") from None
    except Exception as error:  # zipfile, zlib and numpy have many errors for damage
        raise DataError(f"{path} cannot be read as an array of images ({error})") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise DataError(
            f"{path} holds {images.dtype} of shape {images.shape}: images are uint8 [N, H, W, 3] or [N, H, W, 1]"
        )
    return ImageSet(path.stem, len(images), digest, partial(_read, images))


def _read(images: NDArray[uint8], indices: Sequence[int]) -> NDArray[uint8]:
    return np.ascontiguousarray(images[list(indices)].transpose(0, 3, 1, 2))


def _mapped(path: Path) -> NDArray[Any]:
    """Map an array where it lies in the archive; NumPy itself reads it into memory, however large it is."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{KEY}.npy")
        with archive.open(member) as content:
            while content.read(CHUNK_BYTES):  # zipfile compares the checksum at the end, and a map has none
                pass
        if member.compress_type != zipfile.ZIP_STORED:
            with np.load(path, allow_pickle=False) as arrays:
                found: NDArray[Any] = arrays[KEY]
            if not isinstance(found, np.ndarray):  # NumPy gives the bytes of what is no array
                raise ValueError("it holds no array")
            return found
    with path.open("rb") as file:
        file.seek(
            member.header_offset + 26
        )  # the lengths of a name and of an extra field, which lie between here and it
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        shape, is_fortran, dtype = _array_header(file)
        order: Any = "F" if is_fortran else "C"
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        return np.memmap(path, dtype, "r", file.tell(), shape, order)


def _array_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)
