"""Fashion-MNIST: reading, verifying, and bringing it to 16x16 or 32x32.

The data set is by Zalando SE (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747), under the MIT licence.
"""

import gzip
import hashlib
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qbench.errors import DataError

Split = Literal["train", "test"]

MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""The published md5 sums of the four files."""

IMAGE_SIZE = 16
"""Height and width after shrinking, pixels."""

MARGIN = 2
"""Black pixels around an image that ``pad`` adds: 28 + 2 * 2 = 32."""

_STEMS: dict[Split, str] = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class FashionMnist:
    """One split of the data set."""

    images: NDArray[np.uint8]
    """Grey images [N, 1, 16, 16], or of the size that was asked for."""
    labels: NDArray[np.int64]
    """Classes [N], 0 to 9."""


def load_fashion_mnist(
    split: Split,
    folder: Path | None = None,
    prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
) -> FashionMnist:
    """Reads one split and brings its images to their size.

    Args:
        split: `train` (60,000 images) or `test` (10,000 images).
        folder: Folder with the four published .gz files. None downloads them to the user's cache folder.
        prepare: Maps images [N, 28, 28] to [N, 1, H, W]; None is ``shrink``.

    Raises:
        DataError: A file is missing, damaged, or not the published one.
    """
    folder = _downloaded() if folder is None else folder
    stem = _STEMS[split]
    images = read_idx(folder / f"{stem}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{stem}-labels-idx1-ubyte.gz")
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"The {split} files in {folder} do not belong together: images {images.shape}, labels {labels.shape}."
        )
    return FashionMnist((prepare or shrink)(images), labels.astype(np.int64))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads one gzipped idx file of bytes after checking its md5 sum.

    Raises:
        DataError: The file is missing, damaged, or not the published one.
    """
    advice = "Fetch the four Fashion-MNIST .gz files again, or leave the folder out to have them downloaded."
    if not path.is_file():
        raise DataError(f"{path} does not exist. {advice}")
    packed = path.read_bytes()
    found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    if found != MD5[path.name]:
        raise DataError(f"{path} is not the published file: its md5 sum is {found}, not {MD5[path.name]}. {advice}")
    try:
        content = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}. {advice}") from error
    return _parse_idx(content, path)


def shrink(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrinks grey images to 16x16 by area averaging, rounded to whole grey values once.

    Args:
        images: Grey images [N, H, W].

    Returns:
        Grey images [N, 1, 16, 16].
    """
    import torch
    from torch.nn.functional import interpolate

    pixels = torch.from_numpy(images).unsqueeze(1).float()
    small = interpolate(pixels, size=(IMAGE_SIZE, IMAGE_SIZE), mode="area")
    rounded: NDArray[np.uint8] = small.round().clamp(0, 255).to(torch.uint8).numpy()
    return rounded


def pad(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Puts black pixels around grey images [N, 28, 28]: [N, 1, 32, 32], without changing any of theirs."""
    margins = ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN))
    return np.pad(images, margins)[:, None]


def unpad(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Takes away what ``pad`` puts around images [N, 1, 32, 32]: [N, 28, 28]."""
    return images[:, 0, MARGIN:-MARGIN, MARGIN:-MARGIN]


def _parse_idx(content: bytes, path: Path) -> NDArray[np.uint8]:
    unsigned_byte = 8
    if len(content) < 4 or content[:3] != bytes([0, 0, unsigned_byte]):
        raise DataError(f"{path} is not an idx file of unsigned bytes.")
    rank = content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise DataError(f"{path} is truncated: its header is incomplete.")
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], dtype=">u4"))
    if len(content) - start != math.prod(shape):
        raise DataError(f"{path} is truncated: its header promises {shape}, {len(content) - start} bytes follow.")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()


def _downloaded() -> Path:
    import platformdirs
    from torchvision.datasets import FashionMNIST

    root = Path(platformdirs.user_cache_dir("qbench")) / "datasets"
    try:
        FashionMNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"Fashion-MNIST could not be downloaded ({error}). Name a folder with its four .gz files instead."
        ) from error
    return root / "FashionMNIST" / "raw"
