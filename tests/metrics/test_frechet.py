import numpy as np
import pytest
from numpy.typing import NDArray

from qbench.metrics.frechet import frechet_distance, gaussian
from qbench.metrics.metric import Gaussian

Array = NDArray[np.float64]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def covariance(dimensions: int, seed: int) -> Array:
    factors = random(seed).normal(size=(dimensions, 2 * dimensions))
    return factors @ factors.T / dimensions


def rotation(dimensions: int) -> Array:
    return np.linalg.qr(random(9).normal(size=(dimensions, dimensions)))[0]


@pytest.mark.parametrize("dimensions", [1, 2, 64])
def test_a_shift_by_one_in_each_dimension(dimensions: int) -> None:
    identity = np.eye(dimensions)
    first, second = Gaussian(np.zeros(dimensions), identity), Gaussian(np.ones(dimensions), identity)
    assert frechet_distance(first, second) == pytest.approx(dimensions, rel=1e-12)


def test_diagonal_covariances() -> None:
    shift, one, other = random().normal(size=16), random(1).uniform(0, 5, 16), random(2).uniform(0, 5, 16)
    expected = (shift**2).sum() + ((np.sqrt(one) - np.sqrt(other)) ** 2).sum()
    found = frechet_distance(Gaussian(np.zeros(16), np.diag(one)), Gaussian(shift, np.diag(other)))
    assert found == pytest.approx(expected, rel=1e-10)


def test_the_distance_does_not_depend_on_the_axes() -> None:
    one, other, turn = random(1).uniform(0, 5, 16), random(2).uniform(0, 5, 16), rotation(16)
    found = frechet_distance(
        Gaussian(np.zeros(16), turn @ np.diag(one) @ turn.T),
        Gaussian(turn @ np.ones(16), turn @ np.diag(other) @ turn.T),
    )
    assert found == pytest.approx(16 + ((np.sqrt(one) - np.sqrt(other)) ** 2).sum(), rel=1e-10)


def test_covariances_that_do_not_commute() -> None:
    """The trace of the root of C1 C2 is the sum of the roots of its own, unsymmetric, eigenvalues."""
    one, other, shift = covariance(12, 1), covariance(12, 2), random(3).normal(size=12)
    roots = np.sqrt(np.linalg.eigvals(one @ other).real).sum()
    expected = shift @ shift + np.trace(one) + np.trace(other) - 2 * roots
    found = frechet_distance(Gaussian(np.zeros(12), one), Gaussian(shift, other))
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_distance_is_symmetric() -> None:
    first, second = Gaussian(np.zeros(12), covariance(12, 1)), Gaussian(np.ones(12), covariance(12, 2))
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-10)


@pytest.mark.parametrize("count", [200, 20])
def test_a_set_has_no_distance_from_itself(count: int) -> None:
    features = random().normal(size=(count, 64))
    found = frechet_distance(gaussian(features), gaussian(features.copy()))
    assert abs(found) < 1e-6 * 64


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_singular_covariances_give_a_finite_distance(rank: int) -> None:
    factors = random(1).normal(size=(16, rank))
    singular = Gaussian(np.zeros(16), factors @ factors.T)
    found = frechet_distance(singular, Gaussian(np.zeros(16), np.eye(16)))
    roots = np.sqrt(np.linalg.eigvalsh(factors @ factors.T).clip(min=0)).sum()
    assert found == pytest.approx(np.trace(singular.covariance) + 16 - 2 * roots, rel=1e-6)


@pytest.mark.parametrize("count", [2, 10, 63])
def test_fewer_samples_than_dimensions_give_a_finite_distance(count: int) -> None:
    found = frechet_distance(Gaussian(np.zeros(64), np.eye(64)), gaussian(random().normal(size=(count, 64))))
    assert np.isfinite(found)
    assert found > 0


def test_small_differences_are_not_lost_to_rounding() -> None:
    first = Gaussian(np.full(8, 1e3), covariance(8, 1))
    second = Gaussian(np.full(8, 1e3) + 1e-4, covariance(8, 1))
    assert frechet_distance(first, second) == pytest.approx(8e-8, rel=1e-3)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_mean_and_covariance(dimensions: int) -> None:
    features = random().normal(size=(50, dimensions))
    found = gaussian(features)
    assert found.mean.shape == (dimensions,)
    assert found.covariance.shape == (dimensions, dimensions)
    centred = features - features.mean(0)
    np.testing.assert_allclose(found.covariance, centred.T @ centred / 49)


def test_the_distance_of_samples_approaches_that_of_their_distributions() -> None:
    one, other = random(1).normal(size=(20_000, 4)), random(2).normal(1.0, 2.0, size=(20_000, 4))
    assert frechet_distance(gaussian(one), gaussian(other)) == pytest.approx(4 + 4, rel=0.05)
