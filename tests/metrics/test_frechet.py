import tracemalloc
import warnings
from importlib.metadata import version

import numpy as np
import pytest
import torch
from cleanfid import fid as cleanfid
from numpy.typing import NDArray
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from qbench.errors import DataError, StageError
from qbench.metrics.frechet import (
    FrechetDistance,
    FrechetDistanceToFullPrecision,
    checked_statistics,
    factored,
    frechet_distance,
    frechet_distance_of_few,
    gaussian,
    gaussian_of,
)
from qbench.metrics.metric import Gaussian, Metric
from qbench.metrics.rows import Rows
from qbench.plugins import Entry
from qbench.settings import NoSettings

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


def test_two_unit_gaussians_one_apart_in_2048_dimensions() -> None:
    identity = np.eye(2048)
    reference = factored(Gaussian(np.zeros(2048), identity))
    assert frechet_distance(reference, Gaussian(np.ones(2048), identity)) == pytest.approx(2048, rel=1e-12)


class TestFewSamples:
    """Fewer samples than dimensions take another route to the same distance."""

    @pytest.mark.parametrize("count", [2, 3, 40, 63])
    @pytest.mark.parametrize("rank", [64, 20])
    def test_both_routes_agree(self, count: int, rank: int) -> None:
        factors = random(1).normal(size=(64, rank))
        reference = Gaussian(np.ones(64), factors @ factors.T)
        features = random(2).normal(size=(count, 64)) @ np.diag(np.linspace(0.01, 3, 64))
        expected = frechet_distance(reference, gaussian(features))
        assert frechet_distance_of_few(reference, features) == pytest.approx(expected, rel=1e-5)

    def test_it_is_the_definition_where_that_is_known(self) -> None:
        """One direction only: |m|^2 + tr I - 2 s + s^2 for features m + s u, in the direction of u."""
        direction = random(1).normal(size=16)
        direction /= np.linalg.norm(direction)
        features = np.outer([1.0, -1.0], direction) * np.sqrt(2)  # variance 4 in one direction
        found = frechet_distance_of_few(Gaussian(np.zeros(16), np.eye(16)), features)
        assert found == pytest.approx(16 + 4 - 2 * 2, rel=1e-10)


def make(metric: type[Metric]) -> Metric:
    return metric(Entry("fd", "qbench", "0", "here:there"), NoSettings())


REFERENCE = Gaussian(np.linspace(-1, 1, 6), covariance(6, 1))


class TestMetric:
    @pytest.mark.parametrize("ends", [(), (1,), (100, 101), (300, 600, 900), tuple(range(50, 1000, 50))])
    def test_any_split_gives_the_same(self, ends: tuple[int, ...]) -> None:
        features = random().normal(size=(1000, 6))
        whole = make(FrechetDistance).measure(Rows([features]), REFERENCE, 20)
        split = make(FrechetDistance).measure(Rows(np.split(features, ends)), REFERENCE, 20)
        assert split.value == pytest.approx(whole.value, rel=1e-12)
        assert split.without == pytest.approx(whole.without, rel=1e-12)

    def test_sums_of_shards_add_up_in_any_order(self) -> None:
        metric, features = (
            FrechetDistance(Entry("fd", "qbench", "0", "here:there"), NoSettings()),
            random().normal(size=(3000, 6)),
        )
        parts = [metric.sums(part, None) for part in np.split(features, [10, 700, 2999])]
        whole = metric.sums(features, None)
        for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
            for name, expected in whole.items():
                merged = sum((parts[index][name] for index in order), np.zeros(()))
                scale = np.abs(expected).max()
                np.testing.assert_allclose(merged, expected, rtol=1e-12, atol=1e-12 * scale)

    @pytest.mark.parametrize("count", [100, 1500])
    def test_the_order_of_images_makes_no_difference(self, count: int) -> None:
        features = random().normal(size=(count, 6))
        shuffled = random(1).permutation(features)
        found = [make(FrechetDistance).measure(Rows([each]), REFERENCE, 0).value for each in (features, shuffled)]
        assert found[0] == pytest.approx(found[1], rel=1e-10)

    @pytest.mark.parametrize("count", [90, 60])
    def test_without_a_group_it_is_the_distance_of_the_other_images(self, count: int) -> None:
        features = random().normal(size=(count, 80))
        reference = Gaussian(np.zeros(80), covariance(80, 1))
        found = make(FrechetDistance).measure(Rows([features]), reference, 20)
        group = np.arange(count) % 20
        expected = [frechet_distance(reference, gaussian(features[group != left_out])) for left_out in range(20)]
        assert found.without == pytest.approx(expected, rel=1e-5)

    def test_memory_does_not_grow_with_the_number_of_images(self, tmp_path) -> None:
        """A million rows that are a hole on disk: only sums of them are kept."""
        mapped = np.lib.format.open_memmap(tmp_path / "rows.npy", mode="w+", dtype=np.float32, shape=(1_000_000, 16))
        del mapped
        rows = Rows([np.load(tmp_path / "rows.npy", mmap_mode="r")])
        tracemalloc.start()
        found = gaussian_of(rows)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert not found.covariance.any()
        assert peak < 30e6  # the positions of a million rows take 8 MB; the rows themselves, as float64, 128 MB

    @pytest.mark.parametrize("count", [50, 4])
    def test_a_number_that_is_none_is_told(self, count: int) -> None:
        features = random().normal(size=(count, 6))
        features[2, 3] = np.nan
        with pytest.raises(StageError, match="the features of some images are not finite"):
            make(FrechetDistance).measure(Rows([features]), REFERENCE, 0)

    @pytest.mark.parametrize("count", [0, 1])
    def test_one_image_has_no_distance(self, count: int) -> None:
        with pytest.raises(StageError, match="needs at least 2 samples"):
            make(FrechetDistance).measure(Rows([np.zeros((count, 6))]), REFERENCE, 0)

    def test_two_images_have_one(self) -> None:
        assert make(FrechetDistance).measure(Rows([random().normal(size=(2, 6))]), REFERENCE, 0).value > 0

    @pytest.mark.parametrize("count", [50, 4])
    def test_features_of_another_dimension_are_told(self, count: int) -> None:
        with pytest.raises(StageError, match=r"the features have 5 dimensions .* 6: they are of another extractor"):
            make(FrechetDistance).measure(Rows([np.zeros((count, 5))]), REFERENCE, 0)


class TestToFullPrecision:
    @pytest.mark.parametrize(("count", "dimensions"), [(500, 6), (20, 40)])
    def test_it_is_the_distance_of_the_two_sets(self, count: int, dimensions: int) -> None:
        one, other = random(1).normal(size=(count, dimensions)), random(2).normal(0.5, 2.0, size=(count, dimensions))
        found = make(FrechetDistanceToFullPrecision).measure(Rows([one]), Rows([other]), 20)
        assert found.value == pytest.approx(frechet_distance(gaussian(other), gaussian(one)), rel=1e-5)
        assert found.without == ()

    @pytest.mark.parametrize(("count", "dimensions"), [(500, 6), (20, 40)])
    def test_a_set_has_none_from_itself(self, count: int, dimensions: int) -> None:
        rows = Rows([random(1).normal(size=(count, dimensions))])
        assert abs(make(FrechetDistanceToFullPrecision).measure(rows, rows, 0).value) < 1e-5


class TestStatisticsFromOutside:
    def test_sound_ones_are_taken(self) -> None:
        found = checked_statistics(REFERENCE.mean, REFERENCE.covariance, "the.npz")
        np.testing.assert_array_equal(found.covariance, REFERENCE.covariance)

    def test_rounding_to_single_precision_is_no_asymmetry(self) -> None:
        matrix = covariance(6, 1).astype(np.float32)
        matrix[0, 1] *= 1 + 1e-7
        found = checked_statistics(np.zeros(6), matrix, "the.npz")
        np.testing.assert_array_equal(found.covariance, found.covariance.T)

    def test_rounding_to_single_precision_is_no_negative_eigenvalue(self) -> None:
        factors = random(1).normal(size=(64, 3))
        matrix = (factors @ factors.T).astype(np.float32)
        assert np.linalg.eigvalsh(matrix.astype(float)).min() < -1e-8
        np.testing.assert_array_equal(checked_statistics(np.zeros(64), matrix, "the.npz").covariance, matrix)

    @pytest.mark.parametrize("variance", [0.0, 1e-300, 1e308])
    def test_numbers_of_any_size(self, variance: float) -> None:
        found = checked_statistics(np.zeros(2), np.diag([variance, variance]), "the.npz")
        np.testing.assert_array_equal(found.covariance, np.diag([variance, variance]))

    @pytest.mark.parametrize(
        ("mean", "matrix", "message"),
        [
            (np.zeros(3), np.eye(2), "a mean of shape .3,. and a covariance of shape .2, 2. are no statistics"),
            (np.zeros((1, 2)), np.eye(2), "a mean of shape .1, 2. and"),
            (np.array([0, np.nan]), np.eye(2), "the statistics are not finite: compute them again"),
            (np.zeros(2), np.diag([1, np.inf]), "the statistics are not finite: compute them again"),
            (np.zeros(2), np.array([[1, 0.5], [0.4, 1]]), "the covariance is not symmetric: compute it again"),
            (np.zeros(2), np.array([[1, 1e308], [-1e308, 1]]), "the covariance is not symmetric: compute it again"),
            (np.zeros(2), np.diag([1.0, -1.0]), "the covariance has a negative variance: compute it again"),
            (
                np.zeros(2),
                np.array([[1.0, 2], [2, 1]]),
                "the covariance is not positive semidefinite.*compute it again",
            ),
            (np.zeros(2), np.array([[0.0, 1], [1, 0]]), "the covariance is not positive semidefinite"),
            (np.zeros(2), 1e307 * np.array([[1.0, 2], [2, 1]]), "the covariance is not positive semidefinite"),
        ],
    )
    def test_others_are_refused(self, mean: Array, matrix: Array, message: str) -> None:
        with pytest.raises(DataError, match=f"^the.npz: {message}"):
            checked_statistics(mean, matrix, "the.npz")


@pytest.mark.parametrize("rank", [1, 5, 16])
def test_a_factored_covariance_is_the_product_of_its_root(rank: int) -> None:
    factors = random(1).normal(size=(16, rank))
    found = factored(Gaussian(np.zeros(16), factors @ factors.T))
    assert found.root is not None
    np.testing.assert_allclose(found.root @ found.root.T, factors @ factors.T, atol=1e-12)
    assert factored(found) is found


@pytest.mark.parametrize("smallest", [1e-6, 1e-12, 1e-15, 0.0])
def test_nearly_singular_covariances(smallest: float) -> None:
    values, turn = np.append(np.linspace(0.5, 2, 15), smallest), rotation(16)
    near = Gaussian(np.zeros(16), turn @ np.diag(values) @ turn.T)
    found = frechet_distance(near, Gaussian(np.zeros(16), np.eye(16)))
    assert found == pytest.approx(((np.sqrt(values) - 1) ** 2).sum(), rel=1e-6)


class TestLibraries:
    """On the same features the libraries give the same distance."""

    def features(self, count: int) -> tuple[Array, Array]:
        spread = np.diag(np.linspace(0.02, 1.5, 64))
        return random(1).normal(0.4, 1.0, (count, 64)) @ spread, random(2).normal(0.5, 1.1, (2000, 64)) @ spread

    def ours(self, samples: Array, real: Array) -> float:
        return make(FrechetDistance).measure(Rows([samples]), gaussian(real), 0).value

    @pytest.mark.parametrize(("count", "tolerance"), [(500, 1e-6), (65, 1e-6), (40, 1e-5)])
    def test_torch_fidelity(self, count: int, tolerance: float) -> None:
        samples, real = self.features(count)
        statistics = [fid_features_to_statistics(torch.from_numpy(each)) for each in (samples, real)]
        found = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        assert self.ours(samples, real) == pytest.approx(float(found), rel=tolerance)

    @pytest.mark.skipif(
        tuple(map(int, version("scipy").split(".")[:2])) >= (1, 18), reason="clean-fid 0.1.35 needs scipy below 1.18"
    )
    @pytest.mark.parametrize(("count", "tolerance"), [(500, 1e-6), (65, 1e-6), (40, 1e-5)])
    def test_clean_fid(self, count: int, tolerance: float) -> None:
        samples, real = self.features(count)
        moments = [part for each in (samples, real) for part in (each.mean(0), np.cov(each, rowvar=False))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scipy, about singular matrices and its own future
            found = cleanfid.frechet_distance(*moments)
        assert self.ours(samples, real) == pytest.approx(float(found), rel=tolerance)
