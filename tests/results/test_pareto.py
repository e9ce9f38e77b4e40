"""Quality against size, as a picture."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.dom import minidom

import matplotlib
import pytest

from qbench.records import Record
from qbench.results.pareto import Drawn, Point, draw, drawn_metric, front, points_of
from qbench.results.svg import SETTINGS, Line, line_of_label, picture
from qbench.results.tables import write_suite_tables

MakeRecord = Callable[..., Record]
WriteRecords = Callable[..., Path]
DRAWN = Drawn("micro", "distance", "lower", 12, [0])


@pytest.fixture
def cell(make_record: MakeRecord) -> MakeRecord:
    def make(label: str, bits: str, size: float, value: float, **changes: Any) -> Record:
        profile = {"size_mb": size, "coverage_macs": 1.0, "coverage_parameters": 1.0, "left_out": []}
        figure = {"value": value, "samples": 12, "delta": value - 1, "low": value - 1.25, "high": value - 0.75}
        return make_record(label, bits, figures={"distance": figure}, profile=profile, **changes)

    return make


def point(size: float, mean: float, label: str = "a", activations: str = "A8") -> Point:
    return Point(label, "W4", activations, True, size, mean, mean, mean)


def words(svg: bytes) -> list[str]:
    return [word.strip() for word in re.findall("<!--(.*?)-->", svg.decode(), flags=re.DOTALL)]


class TestFront:
    def test_it_is_what_nothing_smaller_is_better_than(self):
        points = [point(4.0, 1.0), point(1.0, 3.0), point(2.0, 4.0), point(2.0, 2.0), point(3.0, 2.0)]
        assert [(each.size_mb, each.mean) for each in front(points, False)] == [(1.0, 3.0), (2.0, 2.0), (4.0, 1.0)]

    def test_more_may_be_better(self):
        points = [point(1.0, 3.0), point(2.0, 4.0), point(3.0, 2.0)]
        assert [each.size_mb for each in front(points, True)] == [1.0, 2.0]

    def test_a_few_bytes_less_are_no_merit(self):
        points = [point(1.0, 9.0), point(1.005, 2.0), point(1.2, 1.0)]
        assert [each.size_mb for each in front(points, False)] == [1.005, 1.2]

    def test_size_without_merit_is_not_on_it(self):
        assert [each.size_mb for each in front([point(1.0, 2.0), point(2.0, 2.0)], False)] == [1.0]


class TestPoints:
    def test_seeds_are_one_point_with_their_range(self, cell: MakeRecord):
        records = [cell("a", "W4A8S16", 0.5, value, seed=seed) for seed, value in enumerate((1.0, 2.0, 6.0))]
        assert points_of(records, "distance") == [Point("a", "W4", "A8S16", True, 0.5, 3.0, 1.0, 6.0)]

    def test_one_seed_has_the_interval_of_its_difference(self, cell: MakeRecord):
        assert points_of([cell("a", "W4A8", 0.5, 2.0, boundary_bits=None)], "distance") == [
            Point("a", "W4", "A8", False, 0.5, 2.0, 1.75, 2.25)
        ]

    def test_what_has_no_size_or_failed_or_is_full_precision_has_none(self, cell: MakeRecord, make_record: MakeRecord):
        records = [
            cell("a", "W4A8", 0.5, 2.0).model_copy(update={"profile": None}),
            cell("b", "W4A8", 0.5, 2.0, status="failed", failures={"distance": "no"}),
            make_record("c", figures={}),
            cell("full-precision", "W32A32", 0.5, 2.0),
        ]
        assert points_of(records, "distance") == []

    def test_size_0_has_no_place_on_a_logarithmic_axis(self, cell: MakeRecord, make_record: MakeRecord):
        records = [cell(label, "W4A8", size, 2.0) for label, size in (("a", 0.0), ("b", 1e-9), ("c", -1.0), ("d", 0.5))]
        assert [each.label for each in points_of(records, "distance")] == ["d"]
        assert drawn_metric(records, make_record().metrics) is None

    def test_the_first_metric_of_quality_that_two_rows_have_is_drawn(self, cell: MakeRecord, make_record: MakeRecord):
        metrics = make_record().metrics
        turned = dict(reversed(metrics.items()))
        assert drawn_metric([cell("a", "W4A8", 0.5, 2.0), cell("b", "W4A8", 0.5, 2.0)], turned) == "distance"
        assert drawn_metric([cell("a", "W4A8", 0.5, 2.0)], metrics) is None


class TestTheFile:
    def test_it_is_there_as_long_as_there_is_something_to_choose(self, cell: MakeRecord, write_records: WriteRecords):
        folder = write_records(cell("a", "W4A8", 0.5, 2.0), cell("b", "W8A8", 1.0, 1.0, position=2))
        path = folder / "media" / "pareto.micro.svg"
        write_suite_tables(folder)
        first = path.read_bytes()
        assert {"a", "b", "Pareto front"} <= set(words(first))
        assert "[media/pareto.micro.svg](media/pareto.micro.svg)" in (folder / "table.md").read_text(encoding="utf-8")
        path.write_bytes(first + b" ")
        write_suite_tables(folder)
        assert path.read_bytes() == first
        (folder / "records" / "micro.b.W8A8.s0.json").unlink()
        write_suite_tables(folder)
        assert not path.exists()
        assert "pareto" not in (folder / "table.md").read_text(encoding="utf-8")

    def test_names_are_text_and_no_more(self):
        hostile = "<script>--&gt; $x$ -->\n../../up"
        points = [point(1.0, 1.0)._replace(label=hostile, weights=hostile, activations=hostile), point(2.0, 0.5)]
        lines = dict.fromkeys(("a", hostile), Line("#1f77b4", "-"))
        drawn = DRAWN._replace(workload=hostile, metric=hostile)
        svg = picture(partial(draw, points, [0.5], lines, drawn))
        assert not minidom.parseString(svg).getElementsByTagName("script")

    @pytest.mark.parametrize("name", ["a\x01b\x1b[31m", "a\ud800", "\u200b", "--a--b-", "-->"], ids=ascii)
    def test_whatever_a_name_holds_a_browser_opens_it(self, name: str):
        points = [point(1.0, 1.0)._replace(label=name, weights=name, activations=name), point(2.0, 0.5)]
        lines = dict.fromkeys(("a", name), Line("#1f77b4", "-"))
        drawn = DRAWN._replace(workload=name, metric=name)
        minidom.parseString(picture(partial(draw, points, [0.5], lines, drawn)))

    @pytest.mark.parametrize("values", [(5e-324, 1e100), (-1e100, 1e100), (1e100, 1e100)])
    def test_numbers_at_the_end_of_what_is_read_are_drawn(self, values: tuple[float, float]):
        points = [point(size, value) for size, value in zip((1e-6, 1e100), values, strict=True)]
        minidom.parseString(picture(partial(draw, points, [], {"a": Line("#1f77b4", "-")}, DRAWN)))


class TestTheDrawing:
    @pytest.fixture(autouse=True)
    def _settings(self) -> Iterator[None]:
        with matplotlib.rc_context(SETTINGS):
            yield

    def test_there_is_a_panel_for_each_activation_bits(self, cell: MakeRecord):
        records = [cell("a", bits, 0.5, 2.0) for bits in ("W4A32", "W4A8", "W8A8")]
        figure = draw(points_of(records, "distance"), [1.0], line_of_label(records), DRAWN)
        assert [panel.get_title() for panel in figure.axes] == ["activations in full precision", "activations A8"]
        assert figure.axes[0].get_ylabel() == "distance (lower is better)"

    @pytest.mark.parametrize(("values", "scale"), [((1.0, 2.0), "linear"), ((1.0, 9.0), "log"), ((0.0, 9.0), "linear")])
    def test_figures_far_apart_have_a_logarithmic_axis(self, cell: MakeRecord, values: tuple[float, float], scale: str):
        records = [cell(f"l{value}", "W4A8", 0.5, value) for value in values]
        figure = draw(points_of(records, "distance"), [], line_of_label(records), DRAWN)
        assert figure.axes[0].get_yscale() == scale

    def test_labels_of_one_size_stand_side_by_side(self, cell: MakeRecord):
        records = [cell(label, "W4A8", 0.5, 2.0) for label in "abc"]
        figure = draw(points_of(records, "distance"), [], line_of_label(records), DRAWN)
        places = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
        assert places == sorted(set(places))
        assert places[1] == pytest.approx(0.5)
