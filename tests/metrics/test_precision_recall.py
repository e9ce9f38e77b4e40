import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch_fidelity.metric_prc import calculate_precision_recall_full

from qbench.errors import StageError
from qbench.metrics.metric import Gaussian, RowsMetric
from qbench.metrics.precision_recall import Precision, Recall
from qbench.metrics.rows import CHUNK, Rows
from qbench.plugins import Entry

Array = NDArray[np.float64]


def make(metric: type[Precision | Recall], **settings: Any) -> Precision | Recall:
    entry = Entry("the-metric", "qbench", "0", f"here:{metric.__name__}")
    return metric(entry, metric.settings_class(**settings))


def both(samples: Array, real: Array, **settings: Any) -> tuple[float, ...]:
    return tuple(make(each, **settings).measure(Rows([samples]), Rows([real]), 0).value for each in (Precision, Recall))


def clouds(samples: int, real: int, dimensions: int) -> tuple[Array, Array]:
    """Samples that are too much alike, and a little off."""
    random = np.random.default_rng(0)
    return random.normal(0.3, 0.7, (samples, dimensions)), random.normal(size=(real, dimensions))


@pytest.mark.parametrize("neighbours", [1, 3, 5])
@pytest.mark.parametrize(
    ("samples", "real", "dimensions"),
    [(200, 300, 5), (40, 20, 8), pytest.param(CHUNK + 300, 2 * CHUNK + 1, 3, id="several chunks")],
)
def test_they_are_those_of_torch_fidelity(samples: int, real: int, dimensions: int, neighbours: int) -> None:
    pair = clouds(samples, real, dimensions)
    expected = calculate_precision_recall_full(*map(torch.from_numpy, pair), neighbours)
    assert both(*pair, neighbours=neighbours) == pytest.approx(expected, rel=1e-6)
    assert 0 < expected[1] < expected[0]


def test_by_hand() -> None:
    """Balls of real images cover -3 to 3 and 97 to 103; those of samples cover 0.5 to 4.5 and 7 to 13."""
    real = np.array([[-2.0], [-1.0], [1.0], [2.0], [99.0], [101.0]])
    samples = np.array([[1.5], [2.5], [3.5], [9.0], [11.0]])
    assert both(samples, real, neighbours=1) == (2 / 5, 2 / 6)


def test_equal_sets_cover_each_other() -> None:
    points = clouds(100, 1, 8)[0]
    assert both(points, points[::-1]) == (1.0, 1.0)


def test_sets_far_apart_do_not() -> None:
    points = clouds(100, 1, 8)[0]
    assert both(points, points + 100) == (0.0, 0.0)


def test_samples_that_are_all_one_real_image_are_precise_and_recall_it_alone() -> None:
    real = clouds(1, 100, 8)[1]
    assert both(np.repeat(real[:1], 50, axis=0), real) == (1.0, 1 / 100)


def test_a_large_common_offset_makes_no_difference() -> None:
    samples, real = clouds(200, 300, 8)
    assert both(samples + 1e3, real + 1e3) == both(samples, real)


@pytest.mark.parametrize("metric", [Precision, Recall])
@pytest.mark.parametrize("count", [43, CHUNK + 77])
def test_without_a_group_it_is_the_figure_of_the_other_samples(metric: type[RowsMetric], count: int) -> None:
    samples, real = (Rows([each]) for each in clouds(count, 60, 3))
    found = make(metric, neighbours=1).measure(samples, real, 20)
    expected = RowsMetric.measure(make(metric, neighbours=1), samples, real, 20)
    assert found.value == expected.value
    assert found.without == pytest.approx(expected.without, rel=1e-12)
    assert len(set(found.without)) > 1


def test_memory_does_not_grow_with_the_square_of_the_number_of_images() -> None:
    count = 5 * CHUNK
    samples, real = (Rows([each]) for each in clouds(count, count, 4))
    tracemalloc.start()
    make(Recall).measure(samples, real, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < count**2 * 8 / 3


@pytest.mark.parametrize(("metric", "samples", "real"), [(Precision, 10, 3), (Recall, 3, 10)])
def test_too_few_images_have_no_neighbours(metric: type[Precision | Recall], samples: int, real: int) -> None:
    first, second = (Rows([each]) for each in clouds(samples, real, 2))
    with pytest.raises(StageError, match="need more than 3 images of a kind, and there are 3"):
        make(metric).measure(first, second, 0)


def test_a_group_that_is_left_out_must_leave_neighbours() -> None:
    samples, real = (Rows([each]) for each in clouds(40, 10, 2))
    with pytest.raises(StageError, match="need more than 38 images of a kind, and there are 38"):
        make(Recall, neighbours=38).measure(samples, real, 20)


@pytest.mark.parametrize("metric", [Precision, Recall])
@pytest.mark.parametrize("side", [0, 1])
def test_features_that_are_not_finite_are_refused(metric: type[Precision | Recall], side: int) -> None:
    pair = clouds(20, 20, 2)
    pair[side][7, 1] = np.nan
    with pytest.raises(StageError, match="the-metric: the features of some images are not finite"):
        make(metric).measure(*(Rows([each]) for each in pair), 0)


@pytest.mark.parametrize("metric", [Precision, Recall])
@pytest.mark.parametrize("against", [None, Gaussian(np.zeros(2), np.eye(2))])
def test_they_need_features_of_real_images(metric: type[Precision | Recall], against: Gaussian | None) -> None:
    with pytest.raises(TypeError, match="the-metric compares with features of real images"):
        make(metric).measure(Rows([np.zeros((10, 2))]), against, 0)
