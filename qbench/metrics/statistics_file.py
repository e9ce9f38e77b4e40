"""Statistics of real images' features in a file: what papers publish in place of the images.

Two kinds of files are read. An .npz holds ``mu`` [D] and ``sigma`` [D, D], as pytorch-fid, clean-fid and
guided-diffusion write them, and ``mu_s`` and ``sigma_s`` for the spatial feature of sFID (guided-diffusion). A
.safetensors holds ``<feature>.mean`` and ``<feature>.cov``, as qbench itself writes them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qbench.errors import DataError
from qbench.metrics.frechet import checked_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qbench.metrics.metric import Gaussian

SPATIAL = "spatial"
"""The feature that ``mu_s`` and ``sigma_s`` are of; ``mu`` and ``sigma`` are of any other."""


def holds_statistics(path: Path, feature: str) -> bool:
    """Return whether a file has a mean and a covariance of a feature, reading neither.

    Raises:
        DataError: the file is missing or damaged, or of another kind.
    """
    return set(_keys(path, feature)) <= set(array_names(path))


def read_statistics(path: Path, feature: str) -> Gaussian:
    """Return the statistics of a feature.

    An .npz does not say which extractor its statistics are of, so whoever uses them compares the dimensions at least.

    Args:
        path: an .npz or .safetensors file.
        feature: name of the feature; in an .npz, ``spatial`` or any other.

    Raises:
        DataError: the file is missing or damaged or of another kind, lacks the feature, or holds arrays that are no
            statistics: of wrong shape, not finite, not symmetric, no numbers.
    """
    keys, present = _keys(path, feature), array_names(path)
    if not set(keys) <= set(present):
        raise DataError(
            f"{path} has no statistics of the feature {feature!r}: {' and '.join(keys)} are due, and it holds "
            f"{', '.join(present) or 'nothing'}"
        )
    mean, covariance = (_array(path, key) for key in keys)
    for key, array in zip(keys, (mean, covariance), strict=True):
        if array.dtype.kind not in "fiu" or not array.size:
            raise DataError(f"{path}: {key} holds {array.dtype} of shape {array.shape}, which is no statistics")
    return checked_statistics(mean, covariance, f"{path}, {' and '.join(keys)}")


def features_in(path: Path, features: Sequence[str]) -> list[str]:
    """Return which features of an extractor a file has statistics of, reading none.

    The ``mu`` and ``sigma`` of an .npz are of the extractor's first feature.

    Args:
        path: an .npz or .safetensors file.
        features: the extractor's, its main one first.

    Raises:
        DataError: the file is missing or damaged or of another kind, or has statistics of none of them.
    """
    candidates = features if path.suffix == ".safetensors" else [features[0], SPATIAL]
    found = [each for each in features if each in candidates and holds_statistics(path, each)]
    if not found:
        due = "mu and sigma" if path.suffix == ".npz" else "<feature>.mean and <feature>.cov"
        raise DataError(
            f"{path} holds no statistics of {' or '.join(features)}: {due} are due, and it holds "
            f"{', '.join(array_names(path)) or 'nothing'}"
        )
    return found


def read_all_statistics(path: Path, features: Sequence[str]) -> dict[str, Gaussian]:
    """Return the statistics of each feature of an extractor that a file has.

    Raises:
        DataError: as for ``features_in`` and ``read_statistics``.
    """
    return {feature: read_statistics(path, feature) for feature in features_in(path, features)}


def metadata(path: Path) -> dict[str, str]:
    """Return what a .safetensors file says of itself; an .npz says nothing.

    Raises:
        DataError: the file is missing or damaged.
    """
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except Exception as error:
        raise _unreadable(path, error) from error


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in an .npz or .safetensors file, sorted, reading none.

    Raises:
        DataError: the file is missing or damaged or of another kind.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise DataError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return sorted(name.removesuffix(".npy") for name in archive.namelist())
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                return sorted(file.keys())
    except Exception as error:
        raise _unreadable(path, error) from error
    raise DataError(f"{path} is neither an .npz nor a .safetensors file")


def _keys(path: Path, feature: str) -> tuple[str, str]:
    if path.suffix == ".safetensors":
        return f"{feature}.mean", f"{feature}.cov"
    return ("mu_s", "sigma_s") if feature == SPATIAL else ("mu", "sigma")


def _array(path: Path, key: str) -> NDArray[Any]:
    from safetensors import safe_open

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found: NDArray[Any] = arrays[key]
            if not isinstance(found, np.ndarray):  # NumPy gives the bytes of what is no array
                raise ValueError(f"{key} is no array")
            return found
        with safe_open(path, framework="numpy") as file:
            tensor: NDArray[Any] = file.get_tensor(key)
            return tensor
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    """Neither zipfile, NumPy nor safetensors has an error of its own for every damage."""
    return DataError(f"{path} cannot be read as statistics ({' '.join(str(error).split())})")
