import numpy as np
import pytest

from qbench.metrics.fidelity import MeanOverPairs, MeanSquaredDifference, PeakSignalToNoiseRatio
from qbench.metrics.metric import PIXELS, Against, Gaussian
from qbench.metrics.rows import Rows
from qbench.plugins import Entry
from qbench.settings import NoSettings

SHAPE = (6, 1, 4, 4)
METRICS = [MeanSquaredDifference, PeakSignalToNoiseRatio]


def make(metric: type[MeanOverPairs]) -> MeanOverPairs:
    return metric(Entry("the-metric", "qbench", "0", "here:there"), NoSettings())


def figure(metric: type[MeanOverPairs], images: np.ndarray, others: np.ndarray) -> float:
    return make(metric).measure(Rows([images]), Rows([others]), 0).value


def noise(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def flat(level: int) -> np.ndarray:
    return np.full(SHAPE, level, np.uint8)


def test_equal_images_differ_by_nothing() -> None:
    assert figure(MeanSquaredDifference, noise(0), noise(0)) == 0.0


def test_black_and_white_differ_most() -> None:
    assert figure(MeanSquaredDifference, flat(0), flat(255)) == 4.0
    assert figure(PeakSignalToNoiseRatio, flat(0), flat(255)) == pytest.approx(0.0, abs=1e-12)


def test_one_pixel_in_one_image() -> None:
    images = flat(100)
    images[2, 0, 1, 3] += 51
    assert figure(MeanSquaredDifference, images, flat(100)) == pytest.approx((2 * 51 / 255) ** 2 / (6 * 16))


@pytest.mark.parametrize("step", [1, 5, 51])
def test_the_ratio_of_a_shift(step: int) -> None:
    found = figure(PeakSignalToNoiseRatio, flat(100 + step), flat(100))
    assert found == pytest.approx(20 * np.log10(255 / step))


def test_the_ratio_is_taken_of_each_image_and_then_averaged() -> None:
    images = flat(100)
    images[:3] += 51
    images[3:] += 5
    expected = (20 * np.log10(255 / 51) + 20 * np.log10(255 / 5)) / 2
    assert figure(PeakSignalToNoiseRatio, images, flat(100)) == pytest.approx(expected)


def test_what_differs_by_less_than_rounding_counts_as_rounding() -> None:
    limit = 10 * np.log10(255**2 * 12)
    assert limit == pytest.approx(58.9, abs=0.05)
    assert figure(PeakSignalToNoiseRatio, noise(0), noise(0)) == pytest.approx(limit)
    nearly = noise(0) // 2
    nearly[:, 0, 0, 0] += 1  # a mean squared difference of 1/16, below 1/12
    assert figure(PeakSignalToNoiseRatio, nearly, noise(0) // 2) == pytest.approx(limit)
    nearly[:, 0, 0, 1] += 1
    assert figure(PeakSignalToNoiseRatio, nearly, noise(0) // 2) == pytest.approx(10 * np.log10(255**2 * 8))


@pytest.mark.parametrize("metric", METRICS)
def test_images_are_compared_in_pairs(metric: type[MeanOverPairs]) -> None:
    straight = figure(metric, noise(0), noise(1))
    assert figure(metric, noise(0), noise(0)[::-1]) != pytest.approx(figure(metric, noise(0), noise(0)))
    order = np.random.default_rng(1).permutation(6)
    assert figure(metric, noise(0)[order], noise(1)[order]) == pytest.approx(straight)


@pytest.mark.parametrize("metric", METRICS)
def test_however_the_images_are_cut_the_figure_is_the_same(metric: type[MeanOverPairs]) -> None:
    images, others = noise(0, (2100, 1, 2, 2)), noise(1, (2100, 1, 2, 2))
    whole = make(metric).measure(Rows([images]), Rows([others]), 0).value
    cut = make(metric).measure(Rows(np.split(images, [7, 1500])), Rows(np.split(others, [1030])), 0).value
    assert cut == pytest.approx(whole, rel=1e-12)
    assert whole == pytest.approx(np.mean([figure(metric, images[i : i + 1], others[i : i + 1]) for i in range(2100)]))


@pytest.mark.parametrize("metric", METRICS)
def test_the_figure_without_a_group(metric: type[MeanOverPairs]) -> None:
    images, others = noise(0, (47, 1, 2, 2)), noise(1, (47, 1, 2, 2))
    found = make(metric).measure(Rows([images]), Rows([others]), 20)
    assert len(found.without) == 20
    for group, without in enumerate(found.without):
        left = [np.delete(each, np.s_[group::20], axis=0) for each in (images, others)]
        assert without == pytest.approx(figure(metric, *left))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("against", [None, Gaussian(np.zeros(2), np.eye(2))])
def test_it_compares_with_images(metric: type[MeanOverPairs], against: Gaussian | None) -> None:
    with pytest.raises(TypeError, match="the-metric compares with full-precision images"):
        make(metric).measure(Rows([noise(0)]), against, 0)


def test_what_they_say_of_themselves() -> None:
    assert (MeanSquaredDifference.direction, PeakSignalToNoiseRatio.direction) == ("lower", "higher")
    for metric in METRICS:
        assert metric.against is Against.FULL_PRECISION
        assert metric.need == PIXELS
