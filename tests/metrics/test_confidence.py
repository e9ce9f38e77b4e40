from collections.abc import Callable, Iterator

import numpy as np
import pytest

from qbench.metrics.confidence import GROUPS, Interval, groups_for, jackknife_interval
from qbench.metrics.frechet import FrechetDistance
from qbench.metrics.metric import PIXELS, Gaussian, Measured
from qbench.metrics.rows import Rows
from qbench.plugins import Entry
from qbench.settings import NoSettings

NORMAL_QUANTILE = 1.959964


def paired_interval(estimate: float, statistic: Callable[[np.ndarray], float], count: int) -> Interval | None:
    """The interval of a statistic that is computed from a mask over images."""
    groups = groups_for(count)
    group = np.arange(count) % max(groups, 1)
    return jackknife_interval(estimate, [statistic(group != left_out) for left_out in range(groups)])


def mean_interval(values: np.ndarray) -> Interval | None:
    return paired_interval(values.mean(), lambda keep: float(values[keep].mean()), len(values))


def coverage(draw, truth: float, repetitions: int = 400) -> float:
    random = np.random.default_rng(0)
    found = [mean_interval(draw(random)) for _ in range(repetitions)]
    return float(np.mean([each.low <= truth <= each.high for each in found]))


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        pytest.param(lambda random: random.normal(3.0, 2.0, 200), 3.0, id="normal"),
        pytest.param(lambda random: random.normal(3.0, 2.0, 250), 3.0, id="uneven groups"),
        pytest.param(lambda random: random.uniform(0.0, 1.0, 200), 0.5, id="uniform"),
    ],
)
def test_the_interval_covers_as_often_as_it_says(draw, truth: float) -> None:
    assert 0.91 <= coverage(draw, truth) <= 0.985


def test_the_interval_of_a_statistic_that_is_no_mean_covers_too() -> None:
    random = np.random.default_rng(1)

    def covers() -> bool:
        values = random.normal(0.0, 2.0, 400)
        found = paired_interval(np.log(values.var()), lambda keep: float(np.log(values[keep].var())), 400)
        return found is not None and found.low <= np.log(4.0) <= found.high

    assert 0.90 <= np.mean([covers() for _ in range(300)]) <= 0.985


def test_the_interval_is_as_wide_as_theory_says() -> None:
    random = np.random.default_rng(2)
    widths = [np.subtract(*reversed(list(vars(mean_interval(random.normal(0, 1, 400))).values()))) for _ in range(100)]
    # Student's t with 19 degrees of freedom in place of the normal quantile.
    assert np.mean(widths) == pytest.approx(2 * 2.093024 / np.sqrt(400), rel=0.05)
    assert np.mean(widths) > 2 * NORMAL_QUANTILE / np.sqrt(400)


def test_the_estimate_is_in_the_middle() -> None:
    values = np.random.default_rng(0).normal(size=100)
    found = mean_interval(values)
    assert found is not None
    assert (found.low + found.high) / 2 == pytest.approx(values.mean())


def test_closed_form_where_groups_are_equal() -> None:
    """For a mean over groups of equal size it is the standard error of the mean of group means."""
    values = np.random.default_rng(0).normal(size=10 * GROUPS)
    group_means = values.reshape(10, GROUPS).mean(axis=0)
    error = group_means.std(ddof=1) / np.sqrt(GROUPS)
    found = mean_interval(values)
    assert found is not None
    assert found.high - values.mean() == pytest.approx(2.0930240544 * error)


def test_pairing_makes_the_interval_of_a_difference_narrower() -> None:
    random = np.random.default_rng(0)
    baseline = random.normal(size=400)
    correlated = baseline + 0.1 + random.normal(scale=0.1, size=400)
    independent = random.normal(loc=0.1, size=400)

    def width(samples: np.ndarray) -> float:
        found = paired_interval(
            samples.mean() - baseline.mean(), lambda keep: float(samples[keep].mean() - baseline[keep].mean()), 400
        )
        assert found is not None
        return found.high - found.low

    assert width(correlated) < 0.2 * width(independent)


def test_a_paired_difference_covers_as_often_as_it_says() -> None:
    def draw(random: np.random.Generator) -> np.ndarray:
        baseline = random.normal(size=200)
        return (baseline + 0.1 + random.normal(scale=0.2, size=200)) - baseline

    assert 0.91 <= coverage(draw, 0.1) <= 0.985


def test_no_difference_has_an_interval_of_no_width() -> None:
    assert paired_interval(0.0, lambda keep: 0.0, 100) == Interval(0.0, 0.0)


@pytest.mark.parametrize(("count", "is_there"), [(1, False), (20, False), (39, False), (40, True), (41, True)])
def test_too_few_images_have_no_interval(count: int, is_there: bool) -> None:
    found = mean_interval(np.random.default_rng(0).normal(size=count))
    assert (found is not None) is is_there


def test_another_number_of_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="3 values without a group, where 20 are due"):
        jackknife_interval(0.0, [1.0, 2.0, 3.0])


class FrechetDistanceOfFeatures(FrechetDistance):
    need = PIXELS
    protocol = ""


DIMENSIONS = 8
COUNT = 400


def drawn(repetitions: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Features of full precision, N(0, I), and of the same images quantized: moved, spread, with noise of their own."""
    random = np.random.default_rng(0)
    for _ in range(repetitions):
        baseline = random.normal(size=(COUNT, DIMENSIONS))
        noise = random.normal(size=baseline.shape)
        yield baseline, 0.3 + 1.2 * (0.8 * baseline + 0.6 * noise)


def distance(features: np.ndarray, groups: int = GROUPS) -> Measured:
    """From N(0, I)."""
    metric = FrechetDistanceOfFeatures(Entry("fd", "qbench", "0", "here:there"), NoSettings())
    return metric.measure(Rows([features]), Gaussian(np.zeros(DIMENSIONS), np.eye(DIMENSIONS)), groups)


def test_the_interval_of_a_difference_of_frechet_distances_covers_the_truth_as_often_as_it_says() -> None:
    """That of N(0.3, 1.2^2 I) from N(0, I) is known; that of full precision is nothing."""
    truth, hits = DIMENSIONS * (0.3**2 + 0.2**2), []
    for baseline, quantized in drawn(300):
        own, other = distance(quantized), distance(baseline)
        found = jackknife_interval(
            own.value - other.value, [a - b for a, b in zip(own.without, other.without, strict=True)]
        )
        assert found is not None
        hits.append(found.low <= truth <= found.high)
    assert 0.91 <= np.mean(hits) <= 0.985


def test_a_bootstrap_would_be_biased() -> None:
    """Images drawn twice make a sample covariance worse: nearly all bootstrap values lie above the figure."""
    random = np.random.default_rng(1)
    above = []
    for baseline, _ in drawn(40):
        value = distance(baseline, 0).value
        again = [distance(baseline[random.integers(0, COUNT, COUNT)], 0).value for _ in range(20)]
        above.append(np.mean(np.array(again) > value))
    assert np.mean(above) > 0.95
