import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from qbench.errors import DataError
from qbench.metrics.statistics_file import (
    array_names,
    features_in,
    holds_statistics,
    metadata,
    read_all_statistics,
    read_statistics,
)


def statistics(dimensions: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    factors = np.random.default_rng(seed).normal(size=(dimensions, 2 * dimensions))
    return factors[:, 0].copy(), factors @ factors.T


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """As guided-diffusion publishes them."""
    path = tmp_path / "published.npz"
    (mu, sigma), (mu_s, sigma_s) = statistics(5), statistics(3, seed=1)
    np.savez(path, mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s)
    return path


@pytest.mark.parametrize(("feature", "dimensions", "seed"), [("pooled", 5, 0), ("anything", 5, 0), ("spatial", 3, 1)])
def test_an_archive_has_statistics_of_two_features(published: Path, feature: str, dimensions: int, seed: int) -> None:
    mean, covariance = statistics(dimensions, seed)
    found = read_statistics(published, feature)
    np.testing.assert_array_equal(found.mean, mean)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-15)
    assert holds_statistics(published, feature)


def test_floats_of_32_bits_become_such_of_64(tmp_path: Path) -> None:
    mean, covariance = statistics(4)
    np.savez(tmp_path / "a.npz", mu=mean.astype(np.float32), sigma=covariance.astype(np.float32))
    found = read_statistics(tmp_path / "a.npz", "pooled")
    assert found.mean.dtype == found.covariance.dtype == np.float64
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-6)


def test_our_own_files_name_their_features(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    mean, covariance = statistics(4)
    save_file({"spatial.mean": mean, "spatial.cov": covariance, "logits.mean": mean}, path)
    np.testing.assert_array_equal(read_statistics(path, "spatial").mean, mean)
    assert array_names(path) == ["logits.mean", "spatial.cov", "spatial.mean"]
    assert [holds_statistics(path, each) for each in ("spatial", "logits", "pooled")] == [True, False, False]
    with pytest.raises(DataError) as caught:
        read_statistics(path, "logits")
    assert str(caught.value) == (
        f"{path} has no statistics of the feature 'logits': logits.mean and logits.cov are due, and it holds "
        "logits.mean, spatial.cov, spatial.mean"
    )


def test_what_qbench_ships_is_read(tmp_path: Path) -> None:
    import qbench

    path = Path(qbench.__file__).parent / "zoo" / "weights" / "fashion-train.safetensors"
    assert read_statistics(path, "pooled").mean.shape == (64,)
    assert read_statistics(path, "spatial").covariance.shape == (128, 128)


def test_a_missing_key(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    assert not holds_statistics(path, "spatial")
    with pytest.raises(DataError, match=r"'spatial': mu_s and sigma_s are due, and it holds mu, sigma$"):
        read_statistics(path, "spatial")
    np.savez(path)
    with pytest.raises(DataError, match=r"'pooled': mu and sigma are due, and it holds nothing$"):
        read_statistics(path, "pooled")


SKEW = np.eye(3) + np.triu(np.full((3, 3), 0.1), 1)
BAD: dict[str, tuple[Any, Any, str]] = {
    "not symmetric": (np.zeros(3), SKEW, "not symmetric"),
    "NaN in the mean": (np.array([0, np.nan, 0]), np.eye(3), "not finite"),
    "infinite covariance": (np.zeros(3), np.diag([1, np.inf, 1]), "not finite"),
    "negative eigenvalue": (np.zeros(2), np.array([[1.0, 2], [2, 1]]), "not positive semidefinite"),
    "negative variance": (np.zeros(3), np.diag([1.0, -1, 1]), "negative variance"),
    "another dimension": (np.zeros(3), np.eye(4), r"\[D\] and \[D, D\] are due"),
    "a row too many": (np.zeros(3), np.ones((4, 3)), r"\[D\] and \[D, D\] are due"),
    "a mean of two axes": (np.zeros((1, 3)), np.eye(3), r"\[D\] and \[D, D\] are due"),
    "a number": (np.float64(1), np.float64(1), r"\[D\] and \[D, D\] are due"),
    "nothing": (np.zeros(0), np.zeros((0, 0)), r"shape \(0,\), which is no statistics"),
    "text": (np.array(["a", "b"]), np.eye(2), "mu holds <U1 of shape"),
    "complex": (np.zeros(3, complex), np.eye(3), "mu holds complex128"),
}


@pytest.mark.parametrize(("mean", "covariance", "words"), BAD.values(), ids=BAD)
def test_what_is_no_statistics(tmp_path: Path, mean: Any, covariance: Any, words: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, mu=mean, sigma=covariance)
    with pytest.raises(DataError, match=words) as caught:
        read_statistics(path, "pooled")
    assert str(caught.value).startswith(str(path))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("it was unpickled",))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, mu=np.array([Bomb()], object), sigma=np.eye(1))
    with pytest.raises(DataError, match="cannot be read as statistics"):
        read_statistics(path, "pooled")
    path.write_bytes(pickle.dumps({"mu": Bomb(), "sigma": 1}))
    with pytest.raises(DataError, match="cannot be read as statistics"):
        read_statistics(path, "pooled")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_damaged_file(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    mean, covariance = statistics(8)
    if suffix == "npz":
        np.savez(path, mu=mean, sigma=covariance)
    else:
        save_file({"pooled.mean": mean, "pooled.cov": covariance}, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=f"a.{suffix} cannot be read as statistics") as caught:
        read_statistics(path, "pooled")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found(published: Path) -> None:
    content = bytearray(published.read_bytes())
    content[content.index(statistics(5)[1].tobytes()) + 40] ^= 1
    published.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_statistics(published, "pooled")


def test_no_such_file_or_another_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz does not exist"):
        read_statistics(tmp_path / "none.npz", "pooled")
    with pytest.raises(DataError, match="is not a file"):
        read_statistics(tmp_path, "pooled")
    (tmp_path / "a.pkl").touch()
    with pytest.raises(DataError, match=r"a\.pkl is neither an \.npz nor a \.safetensors file"):
        read_statistics(tmp_path / "a.pkl", "pooled")


def test_an_archive_is_of_the_main_feature_and_the_spatial_one(published: Path, tmp_path: Path) -> None:
    assert features_in(published, ("pooled", "spatial", "logits")) == ["pooled", "spatial"]
    assert features_in(published, ("image",)) == ["image"]
    found = read_all_statistics(published, ("pooled", "spatial", "logits"))
    assert {name: len(each.mean) for name, each in found.items()} == {"pooled": 5, "spatial": 3}
    path = tmp_path / "without-spatial.npz"
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    assert features_in(path, ("pooled", "spatial", "logits")) == ["pooled"]


def test_our_own_files_are_asked_for_the_features_of_an_extractor(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    mean, covariance = statistics(4)
    save_file(
        {f"{name}.{part}": array for name in ("b", "a") for part, array in (("mean", mean), ("cov", covariance))}, path
    )
    assert features_in(path, ("a", "c", "b")) == ["a", "b"]
    assert list(read_all_statistics(path, ("b", "c"))) == ["b"]


@pytest.mark.parametrize(
    ("suffix", "due"), [("npz", "mu and sigma"), ("safetensors", "<feature>.mean and <feature>.cov")]
)
def test_a_file_without_any_feature_of_an_extractor(tmp_path: Path, suffix: str, due: str) -> None:
    path = tmp_path / f"a.{suffix}"
    arrays = {"other": np.zeros(3)}
    np.savez(path, **arrays) if suffix == "npz" else save_file(arrays, path)
    with pytest.raises(DataError) as caught:
        features_in(path, ("pooled", "spatial"))
    assert str(caught.value) == f"{path} holds no statistics of pooled or spatial: {due} are due, and it holds other"


def test_what_a_file_says_of_itself(published: Path, tmp_path: Path) -> None:
    save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors", {"samples": "3"})
    save_file({"a": np.zeros(1)}, tmp_path / "b.safetensors")
    assert metadata(tmp_path / "a.safetensors") == {"samples": "3"}
    assert metadata(tmp_path / "b.safetensors") == metadata(published) == {}
    (tmp_path / "b.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read as statistics"):
        metadata(tmp_path / "b.safetensors")
