from collections.abc import Callable, Sequence
from math import hypot, sqrt
from typing import Any

import numpy as np
import pytest

from qbench.records import Record
from qbench.results.comparing import Difference, difference, have_same_noise, mean_difference

MakeRecord = Callable[..., Record]
GROUPS = 20
T_19 = 2.0930240544
WAVE = [(-1.0) ** group for group in range(GROUPS)]
SLOPE = [group / GROUPS for group in range(GROUPS)]


def half_width(values: Sequence[float]) -> float:
    """Return what the delete-a-group jackknife gives, written out."""
    mean = sum(values) / len(values)
    return T_19 * sqrt((len(values) - 1) / len(values) * sum((value - mean) ** 2 for value in values))


@pytest.fixture
def make(make_record: MakeRecord) -> MakeRecord:
    """Return a function that makes a cell with a figure, and its value without each group of images."""

    def cell(value: float, without: Sequence[float] = (), label: str = "round", **changes: Any) -> Record:
        figure = {"value": value, "samples": 12, "without": list(without)} | changes.pop("interval", {})
        return make_record(label, figures={"distance": figure}, **changes)

    return cell


class TestPairs:
    def test_what_rows_have_in_common_cancels(self, make: MakeRecord):
        one = make(3.0, [3.0 + wave for wave in WAVE])
        other = make(1.0, [1.0 + wave for wave in WAVE], label="other")
        assert difference(one, other, "distance") == Difference(2.0, 2.0, 2.0)

    def test_the_interval_is_that_of_the_differences(self, make: MakeRecord):
        one = make(3.0, [3.0 + wave + slope for wave, slope in zip(WAVE, SLOPE, strict=True)])
        other = make(1.0, [1.0 + wave for wave in WAVE], label="other")
        found = difference(one, other, "distance")
        assert found is not None
        half = half_width(SLOPE)
        assert (found.delta, found.low, found.high) == pytest.approx((2.0, 2.0 - half, 2.0 + half))
        assert not found.is_conclusive  # 2.0 +- 2.63

    def test_the_other_way_round_it_has_the_other_sign(self, make: MakeRecord):
        one, other = make(3.0, SLOPE), make(1.0, WAVE, label="other")
        there, back = difference(one, other, "distance"), difference(other, one, "distance")
        assert there is not None
        assert back is not None
        assert there.low is not None
        assert there.high is not None
        assert (back.delta, back.low, back.high) == pytest.approx((-there.delta, -there.high, -there.low))

    def test_full_precision_is_a_row_like_others(self, make: MakeRecord):
        full = make(1.0, [1.0 + wave for wave in WAVE], label="full-precision", bits="W32A32")
        found = difference(make(1.5, [1.5 + wave for wave in WAVE]), full, "distance")
        assert found == Difference(0.5, 0.5, 0.5)
        assert found.is_conclusive

    def test_an_interval_covers_what_it_says(self, make: MakeRecord):
        """Means of images that two rows share the noise of, drawn again and again: 95 % hold the true difference."""
        draws = np.random.default_rng(0)
        held = 0
        for _ in range(400):
            common = draws.normal(size=200)
            images = [common + 0.3 * draws.normal(size=200) + shift for shift in (0.5, 0.0)]
            one, other = (
                make(
                    float(each.mean()),
                    [float(np.delete(each, np.s_[group::GROUPS]).mean()) for group in range(GROUPS)],
                    label,
                )
                for each, label in zip(images, ("one", "other"), strict=True)
            )
            found = difference(one, other, "distance")
            assert found is not None
            assert found.low is not None
            assert found.high is not None
            held += found.low <= 0.5 <= found.high
            assert found.high - found.low < 0.25  # unpaired it would be 0.4
        assert 0.92 <= held / 400 <= 0.98


class TestOthers:
    @pytest.mark.parametrize(
        "changes",
        [{"seed": 1}, {"samples": 40}, {"description": {"workload": {"name": "another"}}}],
        ids=["seed", "samples", "workload"],
    )
    def test_other_noise_is_not_paired(self, make: MakeRecord, changes: dict[str, Any]):
        one, other = make(3.0, WAVE), make(1.0, WAVE, label="other", **changes)
        assert not have_same_noise(one, other)
        found = difference(one, other, "distance")
        assert found is not None
        half = hypot(half_width(WAVE), half_width(WAVE))
        assert (found.delta, found.low, found.high) == pytest.approx((2.0, 2.0 - half, 2.0 + half))

    @pytest.mark.parametrize(
        ("settings", "are_paired"),
        [
            ({"images": "ab", "denoiser": None, "same_noise": False}, False),
            ({"images": "ab", "denoiser": None, "same_noise": True}, True),
            ({"images": None, "denoiser": "cd", "same_noise": False}, True),
            ("none of ours", True),
        ],
        ids=["images", "images of the same noise", "denoiser", "hostile"],
    )
    def test_images_made_elsewhere_are_paired_only_if_their_makers_say_so(
        self, make: MakeRecord, settings: Any, are_paired: bool
    ):
        ours = make(1.0, WAVE)
        description = ours.description | {"method": {"name": "external", "settings": settings}}
        theirs = make(3.0, WAVE, "theirs", method="external", description=description)
        assert have_same_noise(ours, theirs) is are_paired

    @pytest.mark.parametrize("metric", ["another", "distance"])
    def test_without_a_figure_there_is_no_difference(self, make: MakeRecord, make_record: MakeRecord, metric: str):
        assert difference(make(1.0, WAVE), make_record(figures={}), metric) is None
        assert difference(make_record(figures={}), make(1.0, WAVE), metric) is None


class TestOlderRecords:
    """Those of version 1 do not hold figures without groups of images."""

    @pytest.mark.parametrize(
        ("intervals", "is_conclusive"),
        [(((0.1, 0.3), (0.4, 0.6)), True), (((0.1, 0.5), (0.4, 0.6)), False), (((0.1, 0.4), (0.4, 0.6)), False)],
        ids=["apart", "overlapping", "touching"],
    )
    def test_they_differ_where_their_intervals_do_not_overlap(
        self, make: MakeRecord, intervals: Sequence[tuple[float, float]], is_conclusive: bool
    ):
        one, other = (
            make(1 + (low + high) / 2, interval={"delta": (low + high) / 2, "low": low, "high": high}, label=label)
            for (low, high), label in zip(intervals, ("one", "other"), strict=True)
        )
        found = difference(one, other, "distance")
        assert found is not None
        assert found.is_conclusive is is_conclusive

    def test_from_full_precision_they_have_their_own_interval(self, make: MakeRecord):
        full = make(1.0, label="full-precision", bits="W32A32")
        row = make(1.25, interval={"delta": 0.25, "low": 0.125, "high": 0.375})
        assert difference(row, full, "distance") == Difference(0.25, 0.125, 0.375)

    def test_another_full_precision_says_nothing(self, make: MakeRecord):
        interval = {"delta": 0.25, "low": 0.125, "high": 0.375}
        one, other = make(1.0, interval=interval), make(2.0, interval=interval, baseline="f" * 64)
        assert difference(one, other, "distance") == Difference(-1.0)

    @pytest.mark.parametrize("without", [[], WAVE, [1.0] * 3])
    def test_one_that_lacks_them_is_no_error(self, make: MakeRecord, without: list[float]):
        found = difference(make(2.0, [1.0] * 3), make(1.0, without, label="other"), "distance")
        assert found == Difference(1.0)
        assert not found.is_conclusive


class TestSeeds:
    def pairs(self, make: MakeRecord, deltas: Sequence[float], without: Sequence[float]) -> list[tuple[Record, Record]]:
        return [
            (
                make(1.0 + delta, [1.0 + delta + each for each in without], seed=seed),
                make(1.0, [1.0] * GROUPS, label="other", seed=seed),
            )
            for seed, delta in enumerate(deltas)
        ]

    def test_it_is_the_mean_with_the_variances_together(self, make: MakeRecord):
        found = mean_difference(self.pairs(make, [1.0, 2.0, 6.0], SLOPE), "distance")
        assert found is not None
        half = half_width(SLOPE) / sqrt(3)
        assert (found.delta, found.low, found.high) == pytest.approx((3.0, 3.0 - half, 3.0 + half))
        assert found.seeds == 3
        assert found.is_conclusive

    def test_one_seed_is_the_difference_itself(self, make: MakeRecord):
        pairs = self.pairs(make, [1.0], SLOPE)
        found, expected = mean_difference(pairs, "distance"), difference(*pairs[0], "distance")
        assert found is not None
        assert expected is not None
        assert (found.delta, found.low, found.high) == pytest.approx((expected.delta, expected.low, expected.high))

    @pytest.mark.parametrize("odd", [-0.5, 0.0])
    def test_a_seed_of_another_sign_leaves_it_open(self, make: MakeRecord, odd: float):
        found = mean_difference(self.pairs(make, [4.0, 4.0, odd], [0.0] * GROUPS), "distance")
        assert found is not None
        assert found.low is not None
        assert found.low > 0
        assert not found.seeds_agree
        assert not found.is_conclusive

    def test_a_seed_without_the_figure_leaves_nothing(self, make: MakeRecord, make_record: MakeRecord):
        pairs = [*self.pairs(make, [1.0], WAVE), (make(1.0, WAVE), make_record(figures={}))]
        assert mean_difference(pairs, "distance") is None
        assert mean_difference([], "distance") is None

    def test_a_seed_without_an_interval_leaves_none(self, make: MakeRecord):
        pairs = [*self.pairs(make, [1.0], WAVE), (make(3.0), make(2.0, label="other"))]
        found = mean_difference(pairs, "distance")
        assert found == Difference(1.0, None, None, 2)
