import numpy as np
import pytest

from qbench.metrics.confidence import GROUPS, Interval, paired_interval

NORMAL_QUANTILE = 1.959964


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


def test_every_image_is_left_out_exactly_once() -> None:
    masks: list[np.ndarray] = []
    paired_interval(0.0, lambda keep: float(masks.append(keep) or 0), 47)
    assert len(masks) == GROUPS
    np.testing.assert_array_equal(np.sum([~mask for mask in masks], axis=0), np.ones(47))
    assert {int((~mask).sum()) for mask in masks} == {2, 3}
