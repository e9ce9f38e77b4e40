"""Statistics of the real images under the fashion features, the reference of the Frechet distances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qbench.errors import DataError
from qbench.identity import file_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qbench.metrics.metric import Gaussian

NAME = "Fashion-MNIST training images, 16x16"
"""What the shipped statistics are of."""

FEATURES = ("pooled", "spatial")
"""The features that have statistics."""


@dataclass(frozen=True)
class Reference:
    """A file of statistics: for each feature `<feature>.mean` [D] and `<feature>.cov` [D, D], float64."""

    path: Path
    """The safetensors file."""
    sha256: str
    """Digest of the file."""
    name: str
    """What the images are."""
    samples: int
    """How many images."""
    extractor_sha256: str
    """Digest of the weights of the network that made the features."""


def read_reference(path: Path) -> Reference:
    """Reads what a file of statistics says about itself, without loading torch.

    Raises:
        DataError: The file is missing, damaged, or not a file of statistics.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f"{path} does not exist.")
    try:
        with safe_open(path, framework="numpy") as file:
            said = file.metadata() or {}
    except SafetensorError as error:
        raise DataError(f"{path} is not a readable safetensors file: {error}.") from error
    missing = {"name", "samples", "extractor_sha256"} - said.keys()
    if missing:
        raise DataError(f"{path} is not a file of reference statistics: it lacks {', '.join(sorted(missing))}.")
    return Reference(path, file_digest(path), said["name"], int(said["samples"]), said["extractor_sha256"])


def reference_statistics(images: NDArray[np.uint8], extractor: Path) -> dict[str, Gaussian]:
    """Mean and covariance of each feature over images.

    Args:
        images: Grey images [N, 1, 16, 16], N at least 2.
        extractor: Weights of the feature network, used as they lie in the file.

    Returns:
        Float64 statistics by feature; covariances are divided by N - 1.
    """
    from qbench.metrics.frechet import gaussian
    from qbench.zoo.figures import fashion_features
    from qbench.zoo.networks import load_fashion_features

    features = fashion_features(images, load_fashion_features(extractor))
    return {feature: gaussian(features[feature]) for feature in FEATURES}


def write_reference(path: Path, statistics: Mapping[str, Gaussian], samples: int, extractor: Path) -> Reference:
    """Writes statistics with what they are of and which weights made them."""
    import torch

    from qbench.zoo.tensor_file import write_tensors

    tensors = {}
    for feature, found in statistics.items():
        tensors[f"{feature}.mean"] = torch.from_numpy(found.mean)
        tensors[f"{feature}.cov"] = torch.from_numpy(found.covariance)
    said = {"name": NAME, "samples": str(samples), "extractor_sha256": file_digest(extractor)}
    write_tensors(path, tensors, said)
    return read_reference(path)


def load_statistics(path: Path) -> dict[str, Gaussian]:
    """Loads the statistics of a file, by feature.

    Raises:
        DataError: The file is missing or damaged.
    """
    from qbench.metrics.metric import Gaussian
    from qbench.zoo.tensor_file import read_tensors

    tensors = read_tensors(path).tensors
    return {
        feature: Gaussian(tensors[f"{feature}.mean"].numpy(), tensors[f"{feature}.cov"].numpy()) for feature in FEATURES
    }
