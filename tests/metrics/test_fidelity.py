import numpy as np
import pytest

from qbench.metrics.fidelity import MeanSquaredDifference
from qbench.metrics.metric import PIXELS, Against, Gaussian
from qbench.plugins import Entry
from qbench.settings import NoSettings

SHAPE = (6, 1, 4, 4)


@pytest.fixture
def metric() -> MeanSquaredDifference:
    return MeanSquaredDifference(Entry("mse-to-fp", "qbench", "0", "here:there"), NoSettings())


def test_equal_images_differ_by_nothing(metric: MeanSquaredDifference) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, SHAPE)
    assert metric.compute(images, images.copy()) == 0.0


def test_black_and_white_differ_most(metric: MeanSquaredDifference) -> None:
    assert metric.compute(np.full(SHAPE, -1.0), np.full(SHAPE, 1.0)) == 4.0


def test_one_pixel_in_one_image(metric: MeanSquaredDifference) -> None:
    images = np.zeros(SHAPE)
    images[2, 0, 1, 3] = 0.5
    assert metric.compute(images, np.zeros(SHAPE)) == pytest.approx(0.25 / (6 * 16))


def test_images_are_compared_in_pairs(metric: MeanSquaredDifference) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, SHAPE)
    assert metric.compute(images, images[::-1]) > 0.1
    order = np.random.default_rng(1).permutation(6)
    other = np.random.default_rng(2).uniform(-1, 1, SHAPE)
    assert metric.compute(images[order], other[order]) == pytest.approx(metric.compute(images, other))


@pytest.mark.parametrize("against", [None, Gaussian(np.zeros(2), np.eye(2))])
def test_it_compares_with_images(metric: MeanSquaredDifference, against: Gaussian | None) -> None:
    with pytest.raises(TypeError, match="mse-to-fp compares with images"):
        metric.compute(np.zeros(SHAPE), against)


def test_what_it_says_of_itself() -> None:
    assert MeanSquaredDifference.direction == "lower"
    assert MeanSquaredDifference.against is Against.FULL_PRECISION
    assert MeanSquaredDifference.need == PIXELS
