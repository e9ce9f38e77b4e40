"""The error at each step, as a table and as a picture."""

import csv
import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.dom import minidom

import matplotlib
import pytest

from qbench.errors import ResultsError
from qbench.records import Record
from qbench.results import curves, pareto, svg
from qbench.results.curves import curves_path, draw
from qbench.results.leaderboard import regenerate
from qbench.results.svg import COLOURS, SETTINGS, line_of_label, picture
from qbench.results.tables import write_suite_tables

MakeRecord = Callable[..., Record]
WriteRecords = Callable[..., Path]
FULL = {"label": "full-precision", "bits": "W32A32", "position": 0}
HOSTILE = "<script>--&gt; $x$ L 1 2 -->\n../../up"
BITS = ("W8A32", "W4A32", "W3A32", "W8A8", "W4A8", "W3A8", "W4A6")
METHODS = ("linear", "mse", "squant", "ptq4dm", "adaround", "brecq", "qdiffusion")


def curve(error: float = 0.01, steps: int = 4) -> dict[str, Any]:
    """Return a curve whose errors double at each step."""
    return {
        "samples": 12,
        "step_index": list(range(steps)),
        "timestep": [10 * each for each in reversed(range(steps))],
        "teacher_forced": [error * 2**step for step in range(steps)],
        "free_running": [0.0, *(error * 2**step / 3 for step in range(steps))],
    }


@pytest.fixture
def make_curve(make_record: MakeRecord) -> MakeRecord:
    """Return a function that makes the record of a complete cell with a curve."""

    def make(label: str = "round", bits: str = "W4A8", error: float = 0.01, steps: int = 4, **changes: Any) -> Record:
        return make_record(label, bits, curve=curve(error, steps), **changes)

    return make


@pytest.fixture
def failed(make_record: MakeRecord) -> Record:
    """A cell of which everything is there but the curve."""
    reason = "curve: the free-running error is not finite, first at step 3 of 4 (sample 5: inf / 1)"
    return make_record("broken", status="failed", reason=reason, failures={"curve": reason}, position=3)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def content(folder: Path, workload: str = "micro") -> bytes:
    return (folder / "media" / f"curves.{workload}.svg").read_bytes()


def words(picture: bytes) -> list[str]:
    """Return what is written in a picture; its letters are paths, the words beside them comments."""
    return [word.strip() for word in re.findall("<!--(.*?)-->", picture.decode(), flags=re.DOTALL)]


class TestCsv:
    def test_it_has_one_row_for_each_step_and_one_for_the_image(
        self, make_curve: MakeRecord, write_records: WriteRecords
    ):
        folder = write_records(make_curve(steps=2, error=0.5, seed=7))
        write_suite_tables(folder)
        keys = {"workload": "micro", "method": "round", "label": "round", "bits": "W4A8", "boundary_bits": "8"}
        errors = [
            {"step_index": "0", "timestep": "10", "teacher_forced": "0.5", "free_running": "0"},
            {"step_index": "1", "timestep": "0", "teacher_forced": "1", "free_running": "0.166667"},
            {"step_index": "2", "timestep": "", "teacher_forced": "", "free_running": "0.333333"},
        ]
        assert rows(folder) == [keys | {"seed": "7"} | each for each in errors]
        assert list(rows(folder)[0]) == [*keys, "seed", *errors[0]]

    def test_cells_come_in_the_order_of_the_suite(self, make_curve: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_curve("z", position=1), make_curve("a", position=2))
        write_suite_tables(folder)
        assert [row["label"] for row in rows(folder)] == ["z"] * 5 + ["a"] * 5

    def test_cells_without_a_curve_have_no_row(
        self, make_record: MakeRecord, make_curve: MakeRecord, failed: Record, write_records: WriteRecords
    ):
        pending = make_record("later", status="pending", figures={}, profile=None, position=2)
        folder = write_records(make_record(**FULL), make_curve(), pending, failed)
        write_suite_tables(folder)
        assert {row["label"] for row in rows(folder)} == {"round"}

    def test_without_any_curve_there_are_the_names_of_the_columns(
        self, make_record: MakeRecord, write_records: WriteRecords
    ):
        folder = write_records(make_record(**FULL))
        write_suite_tables(folder)
        assert (folder / "curves.csv").read_text().startswith("workload,method,label,bits,boundary_bits,seed,step_ind")
        assert rows(folder) == []
        assert not (folder / "media").exists()


class TestFailures:
    def test_figures_stand_beside_a_curve_that_failed(
        self, make_curve: MakeRecord, failed: Record, write_records: WriteRecords
    ):
        folder = write_records(make_curve(), failed)
        write_suite_tables(folder)
        with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        assert [row["status"] for row in table] == ["complete", "failed"]
        assert [row["distance"] for row in table] == ["1.5", "1.5"]
        assert "free-running error is not finite" in (folder / "table.md").read_text(encoding="utf-8")

    def test_the_others_are_drawn(self, make_curve: MakeRecord, failed: Record, write_records: WriteRecords):
        folder = write_records(make_curve(), failed)
        write_suite_tables(folder)
        assert "round" in words(content(folder))
        assert "broken" not in words(content(folder))

    def test_where_no_curve_is_left_no_picture_stays(
        self, make_record: MakeRecord, make_curve: MakeRecord, write_records: WriteRecords
    ):
        folder = write_records(make_curve(), make_curve(workload="other"))
        write_suite_tables(folder)
        before = content(folder, "other")
        write_records(make_record())
        write_suite_tables(folder)
        assert not curves_path(folder, "micro").exists()
        assert content(folder, "other") == before


class TestWorkloadsThatAreGone:
    @pytest.fixture
    def folder(self, make_curve: MakeRecord, write_records: WriteRecords) -> Path:
        """A suite of which pictures of two workloads were drawn, and one of them is gone."""
        cells = [make_curve(label, workload=workload) for label in "ab" for workload in ("micro", "other")]
        folder = write_records(*cells)
        write_suite_tables(folder)
        assert len(list((folder / "media").glob("*.other.svg"))) == 2
        for path in (folder / "records").glob("other.*"):
            path.unlink()
        return folder

    def names(self, folder: Path) -> list[str]:
        write_suite_tables(folder)
        return sorted(path.name for path in (folder / "media").iterdir())

    def test_nothing_drawn_of_them_stays(self, folder: Path):
        assert self.names(folder) == ["curves.micro.svg", "pareto.micro.svg"]

    def test_nothing_stays_where_all_are_gone(self, folder: Path):
        for path in (folder / "records").iterdir():
            path.unlink()
        assert self.names(folder) == []

    def test_what_somebody_else_drew_or_changed_is_left_alone(self, folder: Path):
        media = folder / "media"
        foreign = {"curves.mine.svg": b"<svg/>", "curves.stamp.svg": b"<svg/><!-- drawn from me, unspoilt you -->\n"}
        foreign["curves.other.svg"] = content(folder, "other").replace(b"<svg", b"<svg ", 1)
        foreign |= {"pareto.empty.svg": b"", "curves.other.txt": content(folder), "own.svg": content(folder)}
        for name, drawn in foreign.items():
            (media / name).write_bytes(drawn)
        (media / "curves.link.svg").symlink_to("curves.micro.svg")
        (media / "curves.folder.svg").mkdir()
        kept = [*foreign, "curves.link.svg", "curves.folder.svg", "curves.micro.svg", "pareto.micro.svg"]
        assert self.names(folder) == sorted(kept)
        assert {name: (media / name).read_bytes() for name in foreign} == foreign

    def test_one_that_cannot_be_removed_is_named(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "unlink", refuse)
        with pytest.raises(ResultsError, match=r"curves\.other\.svg cannot be removed \(Permission denied\)"):
            write_suite_tables(folder)


class TestTheFile:
    def test_a_repetition_gives_the_same_bytes(self, make_curve: MakeRecord, write_records: WriteRecords):
        folder = write_records(*[make_curve(label, bits) for label in METHODS[:3] for bits in BITS[:2]])
        regenerate(folder.parent)
        first = content(folder)
        for spoilt in (b"spoilt", first + b"spoilt", first.replace(b"<svg", b"<svg ", 1)):
            curves_path(folder, "micro").write_bytes(spoilt)
            regenerate(folder.parent)
            assert content(folder) == first
        assert b"Date" not in first
        assert b"date" not in first

    def test_what_the_user_has_set_for_pictures_makes_no_difference(self, make_curve: MakeRecord):
        expected = picture(partial(draw, [make_curve()]))
        own = {"font.size": 30.0, "svg.fonttype": "none", "svg.hashsalt": None, "axes.edgecolor": "red"}
        with matplotlib.rc_context(own):
            assert picture(partial(draw, [make_curve()])) == expected
            assert {name: matplotlib.rcParams[name] for name in own} == own
        assert not [module for module in (curves, pareto, svg) if "pyplot" in inspect.getsource(module)]

    def test_it_is_not_drawn_again_from_the_same(
        self, make_curve: MakeRecord, write_records: WriteRecords, monkeypatch: pytest.MonkeyPatch
    ):
        folder = write_records(make_curve(), make_curve("other", position=2))
        write_suite_tables(folder)
        first = content(folder)
        drawn: list[Any] = []
        monkeypatch.setattr(curves, "draw", lambda records: drawn.append(records) or draw(records))
        write_suite_tables(folder)
        assert (drawn, content(folder)) == ([], first)
        write_records(make_curve(error=0.02))
        write_suite_tables(folder)
        assert len(drawn) == 1
        assert content(folder) != first

    def test_each_workload_has_its_own(self, make_curve: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_curve("a"), make_curve("b", workload="other"))
        write_suite_tables(folder)
        assert [name in words(content(folder)) for name in ("a", "b")] == [True, False]
        assert [name in words(content(folder, "other")) for name in ("a", "b")] == [False, True]

    def test_names_are_text_and_no_more(self, make_curve: MakeRecord, write_records: WriteRecords):
        record = make_curve()
        hostile = record.model_copy(update=dict.fromkeys(("label", "workload", "bits", "method"), HOSTILE))
        drawn = picture(partial(draw, [hostile]))
        assert not minidom.parseString(drawn).getElementsByTagName("script")
        path = curves_path(Path("results/micro"), HOSTILE)
        assert path.parent == Path("results/micro/media")
        assert re.fullmatch(r"curves\.[\w+-]+\.[0-9a-f]{8}\.svg", path.name)

    def test_labels_that_look_alike_as_file_names_have_one_each(
        self, make_curve: MakeRecord, write_records: WriteRecords
    ):
        workloads = ("tiny-ddim", "tiny ddim", "tiny.ddim", "tiny\u2013ddim")
        folder = write_records(*[make_curve(f"m{place}", workload=each) for place, each in enumerate(workloads)])
        write_suite_tables(folder)
        assert curves_path(folder, workloads[0]).name == "curves.tiny-ddim.svg"
        assert len(list((folder / "media").iterdir())) == 4
        text = (folder / "table.md").read_text(encoding="utf-8")
        for place, each in enumerate(workloads):
            path = curves_path(folder, each)
            assert f"m{place}" in words(path.read_bytes())
            assert f"media/{path.name}" in text

    @pytest.mark.parametrize(
        "name", ["a\x01b\x1b[31m", "a\ud800", "a\uffff", "\u200b", "--a--b-", "--", "-->", "a\\$x$\\"], ids=ascii
    )
    def test_whatever_a_name_holds_a_browser_opens_it(self, make_curve: MakeRecord, name: str):
        record = make_curve().model_copy(update=dict.fromkeys(("label", "workload", "bits", "method"), name))
        minidom.parseString(picture(partial(draw, [record])))

    def test_errors_at_the_end_of_floating_point_are_drawn(self, make_curve: MakeRecord):
        records = [make_curve("least", error=5e-324), make_curve("most", error=1e99)]
        for each in ([records[0]], [records[1]], records):
            minidom.parseString(picture(partial(draw, each)))

    def test_that_of_the_largest_suite_is_no_burden(self, make_curve: MakeRecord):
        """Seven methods, at two of seven bits in two variants, with three seeds."""
        cells = [(method, bits) for bits in BITS for method in METHODS]
        cells += [(f"{method}-strict", bits) for bits in ("W4A32", "W4A8") for method in METHODS]
        records = [
            make_curve(
                label, bits, 1e-5 * (number + 1) * (1 + seed), 20, method=label.removesuffix("-strict"), seed=seed
            )
            for number, (label, bits) in enumerate(cells)
            for seed in range(3)
        ]
        assert len(picture(partial(draw, records))) < 300_000


class TestTheDrawing:
    @pytest.fixture(autouse=True)
    def _settings(self) -> Iterator[None]:
        """What a picture is drawn with."""
        with matplotlib.rc_context(SETTINGS):
            yield

    def panels(self, *records: Record) -> list[Any]:
        return list(draw(records).axes)

    def test_there_is_a_row_for_each_bits_and_a_column_for_each_error(self, make_curve: MakeRecord):
        panels = self.panels(*[make_curve(bits=bits) for bits in BITS])
        assert len(panels) == 2 * len(BITS)
        assert [panel.get_ylabel() for panel in panels[::2]] == list(BITS)
        assert [panel.get_title().partition(":")[0] for panel in panels[:2]] == ["teacher-forced", "free-running"]
        assert {panel.get_yscale() for panel in panels} == {"log"}

    def test_a_line_is_the_mean_over_seeds_in_the_band_of_all(self, make_curve: MakeRecord):
        forced, free = self.panels(*[make_curve(error=error, seed=seed) for seed, error in enumerate((0.01, 0.04))])
        (line,) = forced.lines
        assert list(line.get_xdata()) == [0, 1, 2, 3]
        assert list(line.get_ydata()) == pytest.approx([0.025, 0.05, 0.1, 0.2])
        (band,) = forced.collections
        edge = band.get_paths()[0].vertices
        assert {(x, round(y, 6)) for x, y in edge if x == 3} == {(3, 0.08), (3, 0.32)}
        assert list(free.lines[0].get_xdata()) == [1, 2, 3, 4]

    def test_of_many_steps_some_are_drawn_and_the_last_one(self, make_curve: MakeRecord):
        forced, free = self.panels(make_curve(error=1e-60, steps=400))
        for panel, last in ((forced, 399), (free, 400)):
            steps = list(panel.lines[0].get_xdata())
            assert 50 < len(steps) <= 61
            assert steps[-1] == last

    def test_one_seed_has_no_band(self, make_curve: MakeRecord):
        assert [len(panel.collections) for panel in self.panels(make_curve())] == [0, 0]

    def test_all_rows_of_a_column_show_the_same_decades(self, make_curve: MakeRecord):
        panels = self.panels(make_curve(bits="W8A8", error=2e-5), make_curve(bits="W4A8", error=0.02))
        assert {panel.get_ylim() for panel in panels[::2]} == {(1e-5, 1.0)}
        assert {panel.get_ylim() for panel in panels[1::2]} == {(1e-6, 0.1)}
        assert len({panel.get_xlim() for panel in panels}) == 1

    def test_no_error_is_said_in_words(self, make_curve: MakeRecord):
        panels = self.panels(make_curve(error=0.0), make_curve(bits="W2A8"))
        assert [[text.get_text() for text in panel.texts] for panel in panels] == [["no error at any step"]] * 2 + [
            [], []
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("labels", "below"),
        [(METHODS, False), ([f"method-{index}" for index in range(9)], True), (["a" * 40, "b"], True)],
        ids=["seven", "nine", "long"],
    )
    def test_a_legend_that_takes_room_stands_below(self, make_curve: MakeRecord, labels: list[str], below: bool):
        figure = draw([make_curve(label) for label in labels])
        figure.draw_without_rendering()
        legend, *panels = [each.get_window_extent() for each in (figure.legends[0], *figure.axes)]
        assert [text.get_text() for text in figure.legends[0].get_texts()] == list(labels)
        assert (legend.y1 < min(panel.y0 for panel in panels)) == below
        assert (legend.x0 > max(panel.x1 for panel in panels)) != below
        assert legend.x0 >= 0
        assert legend.x1 <= figure.bbox.x1
        assert all(panel.height > 50 for panel in panels)


class TestLines:
    def test_each_label_has_a_colour_of_its_own(self, make_curve: MakeRecord):
        lines = line_of_label([make_curve(f"label-{index}") for index in range(len(COLOURS))])
        assert [line.color for line in lines.values()] == list(COLOURS)
        assert {line.linestyle for line in lines.values()} == {"-"}

    def test_variants_of_many_methods_share_its_colour(self, make_curve: MakeRecord):
        records = [make_curve(f"{method}{variant}", method=method) for variant in ("", "-strict") for method in METHODS]
        lines = line_of_label(records)
        assert list(lines) == [f"{method}{variant}" for method in METHODS for variant in ("", "-strict")]
        for (one, line), (two, other) in list(pairwise(lines.items()))[::2]:
            assert two == f"{one}-strict"
            assert line.color == other.color
            assert line.linestyle != other.linestyle
        assert len(set(lines.values())) == len(lines)

    def test_forty_labels_of_one_method_can_be_told_apart(self, make_curve: MakeRecord):
        lines = line_of_label([make_curve(f"label-{index}", method="one") for index in range(41)])
        assert len(lines) == 41
        assert len(set(lines.values())) == 40
