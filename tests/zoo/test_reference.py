from pathlib import Path

import numpy as np
import pytest
import torch

from qbench.errors import DataError
from qbench.identity import file_digest
from qbench.zoo.fashion_mnist import FashionMnist, load_fashion_mnist
from qbench.zoo.figures import accuracy, fashion_features
from qbench.zoo.networks import load_fashion_features
from qbench.zoo.paths import weights_path
from qbench.zoo.reference import load_statistics, read_reference, reference_statistics, write_reference
from qbench.zoo.tensor_file import read_tensors, write_tensors


def test_statistics_are_those_of_numpy_and_survive(tmp_path: Path, synthetic: FashionMnist) -> None:
    extractor = weights_path("fashion-features")
    statistics = reference_statistics(synthetic.images, extractor)
    written = write_reference(tmp_path / "r.safetensors", statistics, samples=64, extractor=extractor)
    assert written == read_reference(tmp_path / "r.safetensors")
    assert (written.samples, written.extractor_sha256) == (64, file_digest(extractor))
    assert written.sha256 == file_digest(tmp_path / "r.safetensors")
    tensors = read_tensors(tmp_path / "r.safetensors").tensors
    features = fashion_features(synthetic.images, load_fashion_features())
    for feature, width in (("pooled", 64), ("spatial", 128)):
        assert tensors[f"{feature}.mean"].dtype == torch.float64
        assert tensors[f"{feature}.cov"].shape == (width, width)
        np.testing.assert_allclose(tensors[f"{feature}.mean"].numpy(), features[feature].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(
            tensors[f"{feature}.cov"].numpy(), np.cov(features[feature], rowvar=False, ddof=1), rtol=1e-12, atol=1e-15
        )
        assert np.array_equal(load_statistics(tmp_path / "r.safetensors")[feature].mean, statistics[feature].mean)


def test_another_file_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {"name": "x"})
    with pytest.raises(DataError, match="lacks extractor_sha256, samples"):
        read_reference(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="not a readable"):
        read_reference(tmp_path / "x.safetensors")
    with pytest.raises(DataError, match="does not exist"):
        read_reference(tmp_path / "y.safetensors")


@pytest.mark.slow
def test_the_shipped_network_classifies_real_images(fashion_folder: Path) -> None:
    test = load_fashion_mnist("test", fashion_folder)
    assert accuracy(test.images, test.labels, load_fashion_features()) >= 0.88


@pytest.mark.slow
def test_the_shipped_statistics_are_those_of_the_training_images(fashion_folder: Path) -> None:
    images = load_fashion_mnist("train", fashion_folder).images
    shipped = load_statistics(weights_path("fashion-train"))
    for feature, found in reference_statistics(images, weights_path("fashion-features")).items():
        np.testing.assert_allclose(shipped[feature].mean, found.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(shipped[feature].covariance, found.covariance, rtol=1e-4, atol=1e-5)
