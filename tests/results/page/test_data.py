"""What the page shows is what the records say, in the words of the tables, each thing once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qbench.cli.options import load
from qbench.records import Record
from qbench.results.best import contests
from qbench.results.page.cells import CURVE_POINTS, cell_data
from qbench.results.page.command import command
from qbench.results.page.data import page_data
from qbench.results.page.pool import Pool, flat
from qbench.results.published import Protocol, PublishedFigure, Source
from qbench.results.reading import SuiteResults, read_suite_results
from qbench.results.strips import strip, strip_path
from qbench.results.verdicts import Verdict
from qbench.yaml_file import parse_value

MakeRecord = Callable[..., Record]


def results_of(*records: Record, folder: Path = Path("results/micro")) -> SuiteResults:
    return SuiteResults(folder, records, (), ())


def shown(*records: Record) -> dict[str, Any]:
    return page_data([results_of(*records)], {}, {}, [])


def with_suite(record: Record, **changes: Any) -> Record:
    return record.model_copy(update={"suite": record.suite.model_copy(update=changes)})


def curve(steps: int) -> dict[str, Any]:
    return {
        "samples": 8,
        "step_index": list(range(steps)),
        "timestep": list(range(steps, 0, -1)),
        "teacher_forced": [0.123456] * steps,
        "free_running": [0.0] * steps + [0.5],
    }


def test_figures_are_numbers_and_the_words_of_the_tables(make_record: MakeRecord) -> None:
    cell = shown(make_record())["cells"][0]
    value, text, difference, *numbers = cell["figures"][0]
    assert (value, text, difference) == (1.5, "1.50", "+0.250 [0.125, 0.375]")
    assert numbers == [0.25, 0.125, 0.375, True]
    assert cell["figures"][1][2] == "[0.125, 0.375]"  # against the full-precision images only the interval is told


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"failures": {"distance": "no"}, "status": "failed", "figures": {}}, "failed"),
        ({"status": "pending", "figures": {}}, "not run"),
        ({"figures": {}}, "-"),
        ({"figures": {}, "metrics": {}}, None),
    ],
)
def test_a_figure_that_is_not_there_says_why(
    make_record: MakeRecord, changes: dict[str, Any], expected: str | None
) -> None:
    assert shown(make_record("other"), make_record(**changes))["cells"][1]["figures"][0] == expected


def test_an_interval_around_zero_is_not_conclusive(make_record: MakeRecord) -> None:
    figure = {"value": 1.5, "delta": 0.1, "low": -0.1, "high": 0.3, "samples": 12}
    assert shown(make_record(figures={"distance": figure}))["cells"][0]["figures"][0][-1] is False


def test_without_an_interval_nothing_is_conclusive(make_record: MakeRecord) -> None:
    figure = {"value": 1.5, "delta": 0.1, "samples": 12}
    found = shown(make_record(figures={"distance": figure}))["cells"][0]["figures"][0]
    assert found[3:] == [0.1, None, None, False]


def test_what_cells_share_is_there_once(make_record: MakeRecord) -> None:
    one = shown(make_record())
    many = shown(*(make_record(f"method-{nth}", position=nth) for nth in range(50)))
    assert len(many["cells"]) == 50
    assert len(json.dumps(many["pool"])) < 50 * 100
    assert many["cells"][0]["environment"] == many["cells"][49]["environment"]
    assert len(one["pool"]) < len(many["pool"])  # each method has a description of its own


def test_rows_over_seeds_have_the_mean_and_the_range(make_record: MakeRecord) -> None:
    def figures(value: float) -> dict[str, Any]:
        return {"distance": {"value": value, "delta": value - 1, "low": 0.0, "high": 1.0, "samples": 12}}

    records = [make_record(seed=seed, figures=figures(value)) for seed, value in enumerate((1.0, 2.0, 4.5))]
    rows = shown(make_record("alone"), *records)["rows"]
    assert [row["cells"] for row in rows] == [[0], [1, 2, 3]]
    assert "figures" not in rows[0]  # they are those of its cell
    value, text, difference, delta, low, high, is_conclusive = rows[1]["figures"][0]
    assert (value, text) == (2.5, "2.50 (1.00 to 4.50)")
    assert (difference, delta, low, high) == ("+1.50 (+0.00 to +3.50)", 1.5, None, None)  # there is no full precision
    assert is_conclusive is False


@pytest.mark.parametrize(
    ("values", "noise", "is_conclusive"),
    [((2.0, 3.0), 0.01, True), ((2.0, 3.0), 1.0, False), ((0.5, 3.0), 0.01, False)],
    ids=["sure", "not over the images", "seeds disagree"],
)
def test_rows_over_seeds_are_conclusive_as_their_mean_difference_is(
    make_record: MakeRecord, values: tuple[float, ...], noise: float, is_conclusive: bool
) -> None:
    def cell(label: str, value: float, spread: float, **changes: Any) -> Record:
        figure = {"value": value, "samples": 12, "without": [value + spread * (-1) ** group for group in range(20)]}
        figure |= {} if label == "full-precision" else {"delta": value - 1}
        return make_record(label, figures={"distance": figure}, **changes)

    full = [cell("full-precision", 1.0, 0.0, seed=seed, bits="W32A32") for seed in (0, 1)]
    records = [*full, *(cell("round", value, noise, seed=seed) for seed, value in enumerate(values))]
    baseline, row = (each["figures"][0] for each in shown(*records)["rows"])
    assert baseline[2:] == ["", None, None, None, False]
    _, _, text, delta, low, high, found = row
    assert found is is_conclusive
    assert delta == sum(values) / 2 - 1
    half = 2.093024 * (19 * noise**2) ** 0.5 / 2**0.5
    assert (low, high) == pytest.approx((delta - half, delta + half), rel=1e-4)
    assert text.startswith(f"+{delta:.2f} [")


def test_a_long_curve_is_thinned_and_keeps_its_ends(make_record: MakeRecord) -> None:
    data = shown(make_record(curve=curve(1000)))
    found = data["cells"][0]["curve"]
    steps, timesteps, behind = data["pool"][found["axis"]]
    assert (steps[0], steps[-1], behind[-1]) == (0, 999, 1000)
    assert (timesteps[0], timesteps[-1]) == (1000, 1)
    assert len(steps) <= CURVE_POINTS + 1
    assert (len(found["forced"]), len(found["free"])) == (len(steps), len(behind))
    assert (found["forced"][0], found["free"][-1]) == (0.123, 0.5)


def test_strips_are_embedded_and_bad_ones_are_named_within_the_results(make_record: MakeRecord, tmp_path: Path) -> None:
    good, bad, other = make_record("good"), make_record("bad"), make_record("other")
    images = np.zeros((2, 1, 8, 8), np.uint8)
    for record, content in (
        (good, strip(images, good.digest, ["one", "two"])),
        (bad, b"\x89PNG"),
        (other, strip(images, "of an earlier cell", [])),
    ):
        path = strip_path(tmp_path / "micro", record)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    data = page_data([results_of(good, bad, other, folder=tmp_path / "micro")], {}, {}, ["told before"])
    first, second, third = (cell["strip"] for cell in data["cells"])
    assert (first["count"], first["width"], first["height"]) == (2, 8, 8)
    assert data["pool"][first["captions"]] == ["one", "two"]
    assert second is third is None
    assert data["problems"][0] == "told before"
    assert data["problems"][1].startswith("micro/media/strips/micro.bad.W4A8.s0.png: cannot be read")
    assert str(tmp_path) not in json.dumps(data)


def test_a_problem_is_told_once(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record()
    path = strip_path(tmp_path / "micro", record)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    first = page_data([results_of(record, folder=tmp_path / "micro")], {}, {}, [])
    again = page_data([results_of(record, folder=tmp_path / "micro")], {}, {}, first["problems"])
    assert again["problems"] == first["problems"]


def test_contests_and_verdicts_stand_with_their_suite(make_record: MakeRecord) -> None:
    records = [make_record("full-precision", "W32A32", 0), make_record("a"), make_record("b", position=2)]
    figure = PublishedFigure("f", "a", "W4A8", "real", "fid", 4.5, Source("P", "1", "https://x"), Protocol())
    verdict = Verdict(figure, records[1], "distance", 1.5, "not comparable", ("because",), 0.25)
    lost = Verdict(figure, None, "fid", None, "not comparable", ("not run here",), 0.25)
    found = contests(records, ["distance"])
    data = page_data([results_of(*records)], {"micro": [verdict, lost]}, {"micro": found, "else": found}, [])
    suite = data["suites"][0]
    assert [each["ranking"] for each in suite["contests"]] == [["a", "b"]]
    assert [each["cell"] for each in suite["verdicts"]] == ["micro.a.W4A8.s0", None]
    assert [each["measured"] for each in suite["verdicts"]] == ["1.50", None]
    assert suite["verdicts"][0]["published"] == "4.5"


def test_files_of_a_suite_are_linked_only_if_they_are_there(
    make_record: MakeRecord, write_records: Callable[..., Path]
) -> None:
    folder = write_records(make_record())
    (folder / "table.csv").write_text("")
    assert page_data([read_suite_results(folder)], {}, {}, [])["suites"][0]["files"] == ["table.csv"]


def test_an_empty_suite_is_no_error() -> None:
    data = page_data([results_of()], {}, {}, [])
    assert data["suites"][0]["title"] == "micro"
    assert data["cells"] == []


def test_descriptions_are_flat_however_deep_they_are() -> None:
    value = {"a": {"b": [1, 2], "c": [], "d": {}}, "e": [{"f": None}, True], "g": 1e-05, "h": 0.1}
    assert flat(value) == [
        ("a.b", "1, 2"),
        ("a.c", "none"),
        ("a.d", "none"),
        ("e.0.f", "none"),
        ("e.1", "yes"),
        ("g", "1e-05"),
        ("h", "0.1"),
    ]
    deep: Any = 1
    for _ in range(5000):
        deep = {"x": deep}
    assert flat(deep)[0][1] == "1"


def test_a_pool_tells_a_text_from_what_it_spells() -> None:
    pool = Pool()
    assert [pool.place(each) for each in ("1", 1, [1], "[1]", "1")] == [0, 1, 2, 3, 0]


def test_the_command_is_quoted_for_a_shell(make_record: MakeRecord) -> None:
    record = make_record("a b'; rm -rf $HOME `x`\n")
    found = command(with_suite(record, file="my suite.yaml", standin=True, overrides={"samples": 10}))
    assert found is not None
    assert shlex.split(found) == [
        "qbench", "run", "my suite.yaml", "--standin", "--set", "samples=10", "--only", "workload=micro",
        "--only", "method=a b'; rm -rf $HOME `x`\n", "--only", "bits=W4A8", "--only", "seed=0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value", [10, 1e-05, 0.5, True, None, "W4", "1", "a: b", "x\ny", "ä", [1, [2]], {"a": {"b": [1.5]}}, "", "'"]
)
def test_values_of_set_are_read_back_as_they_were(make_record: MakeRecord, value: Any) -> None:
    found = command(with_suite(make_record(), file="quickstart", overrides={"key": value}))
    assert found is not None
    key, _, text = shlex.split(found)[4].partition("=")
    assert key == "key"
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_no_command_without_a_file_and_no_file_is_read_as_an_option(make_record: MakeRecord) -> None:
    assert command(make_record()) is None
    found = command(with_suite(make_record(), file="-x.yaml"))
    assert found is not None
    assert found.startswith("qbench run ./-x.yaml ")


def test_the_command_of_an_installed_suite_chooses_its_cell(make_record: MakeRecord) -> None:
    record = make_record("linear", "W4A8", workload="tiny-ddim")
    found = command(with_suite(record, file="quickstart", overrides={"samples": 40}))
    assert found is not None
    _, _, name, *options = shlex.split(found)
    values: dict[str, list[str]] = {"--set": [], "--only": []}
    for option, value in zip(options[::2], options[1::2], strict=True):
        values[option].append(value)
    suite = load(name, values["--only"], values["--set"])
    assert [cell.key for cell in suite.cells if cell.method] == [record.key]
    assert suite.cells[0].samples == 40


def test_cells_name_what_they_stand_in_for(make_record: MakeRecord) -> None:
    record = make_record(stands_in_for={"workload": "real", "metrics": {"fid": "distance"}})
    pool = Pool()
    cell = cell_data(record, ["distance"], pool, Pool())
    assert pool.values[cell["standin"]] == ["real", [("fid", "distance")]]
