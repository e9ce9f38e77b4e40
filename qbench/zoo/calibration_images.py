"""The shipped real images: a few training images, for methods that calibrate on real images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qbench.errors import DataError
from qbench.identity import file_digest
from qbench.workload import ImageSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COUNT = 1024
"""How many images ship."""


def spread(available: int) -> list[int]:
    """Indices of ``COUNT`` images, evenly spread over as many as are available.

    Raises:
        DataError: There are fewer.
    """
    if available < COUNT:
        raise DataError(f"{COUNT:,} images are to ship, and the data set has {available:,}.")
    return [index * available // COUNT for index in range(COUNT)]


def write_calibration_images(path: Path, images: NDArray[np.uint8]) -> ImageSet:
    """Writes the images that ship.

    Args:
        path: The file.
        images: All training images [N, 1, 16, 16].

    Raises:
        DataError: There are fewer than ship.
    """
    import torch

    from qbench.zoo.tensor_file import write_tensors

    chosen = torch.from_numpy(images[spread(len(images))])
    said = {
        "name": f"{COUNT:,} of {len(images):,} Fashion-MNIST training images, 16x16",
        "count": str(COUNT),
        "source": "Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747",
        "licence": "MIT, Copyright (c) 2017 Zalando SE; the text is on the card",
    }
    write_tensors(path, {"images": chosen}, said)
    return read_calibration_images(path)


def read_calibration_images(path: Path) -> ImageSet:
    """Reads what a file of images says about itself, without loading torch or the images.

    Raises:
        DataError: The file is missing, damaged, or not a file of images.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f"{path} does not exist.")
    try:
        with safe_open(path, framework="numpy") as file:
            said = file.metadata() or {}
    except SafetensorError as error:
        raise DataError(f"{path} is not a readable safetensors file: {error}.") from error
    missing = {"name", "count"} - said.keys()
    if missing:
        raise DataError(f"{path} is not a file of images: it lacks {', '.join(sorted(missing))}.")
    return ImageSet(said["name"], int(said["count"]), file_digest(path), partial(_images, path))


def _images(path: Path, indices: Sequence[int]) -> NDArray[np.uint8]:
    from safetensors.numpy import load_file

    chosen: NDArray[np.uint8] = load_file(path)["images"][list(indices)]
    return chosen
