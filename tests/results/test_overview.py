"""The overview: who is best at which bits, how sure that is, and what it costs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.records import Record
from qbench.results.leaderboard import regenerate

MakeRecord = Callable[..., Record]
WriteRecords = Callable[..., Path]
GROUPS = 20


@pytest.fixture
def cell(make_record: MakeRecord) -> MakeRecord:
    """Return a function that makes a cell with two figures that are the same without any images."""

    def make(label: str, distance: float, error: float = 0.5, seconds: float = 2.0, **changes: Any) -> Record:
        figures = {}
        for name, value in (("distance", distance), ("mse-to-fp", error)):
            figures[name] = {"value": value, "samples": 12, "without": [value] * GROUPS}
            if label != "full-precision":
                figures[name] |= {"delta": value, "low": value - 0.5, "high": value + 0.5}
        stages = [("trajectory", 1.0), ("weights", seconds), ("sample", 99.0)]
        costs = [{"stage": stage, "digest": "0" * 64, "seconds": each, "peak_memory_mb": 1.0} for stage, each in stages]
        return make_record(label, figures=figures, stages=costs, **changes)

    return make


def overview(folder: Path) -> str:
    regenerate(folder.parent)
    return (folder.parent / "README.md").read_text(encoding="utf-8")


def rows(text: str) -> list[dict[str, str]]:
    """Return the rows of all its tables; columns of one name are told apart by a number."""
    found = []
    header: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.replace("\\|", "").split("|")[1:-1]]
        if not cells:
            header = []
        elif not header:
            header = [f"{name} {cells[:place].count(name)}".removesuffix(" 0") for place, name in enumerate(cells)]
        elif not set(cells[0]) <= {"-", ":"}:
            found.append(dict(zip(header, cells, strict=True)))
    return found


def test_who_is_best_for_sure_is_in_bold_with_the_lead(cell: MakeRecord, write_records: WriteRecords):
    full = cell("full-precision", 1.0, bits="W32A32", position=0)
    folder = write_records(full, cell("a", 1.5, 0.25, seconds=40.0), cell("b", 2.0, 0.5, position=2))
    text = overview(folder)
    baseline, row = rows(text)
    assert (baseline["bits"], baseline["best distance ↓"], baseline["how sure"]) == (
        "W32A32", "full-precision 1.00", "",
    )  # fmt: skip
    assert [row] == [
        {
            "bits": "W4A8",
            "MB": "0.50",
            "best distance ↓": "**a** 1.50",
            "how sure": r"-0.500 \[-0.500, -0.500\] against b",
            "best mse-to-fp ↓": "**a** 0.250",
            "how sure 1": r"-0.250 \[-0.250, -0.250\] against b",
            "calibration": "41 s",
        }
    ]
    assert "12 samples; DDIM 4 steps, eta 0; seed 0; " in text
    assert "[table.md](micro/table.md)" in text
    assert "[index.html](index.html)" in text


def test_who_cannot_be_told_apart_is_named(cell: MakeRecord, write_records: WriteRecords):
    folder = write_records(*(cell(label, value) for label, value in (("a", 2.0), ("b", 2.0), ("c", 3.0))))
    (row,) = rows(overview(folder))
    assert (row["best distance ↓"], row["how sure"]) == ("a 2.00", "not told apart from b")
    assert (row["best mse-to-fp ↓"], row["how sure 1"]) == ("a 0.500", "not told apart from any other")


def test_each_bits_is_a_row_and_costs_are_named_where_two_are_best(cell: MakeRecord, write_records: WriteRecords):
    folder = write_records(
        cell("a", 2.0, 0.1, seconds=200.0, bits="W8A8", position=1),
        cell("b", 1.0, 0.2, seconds=0.25, bits="W8A8", position=2),
        cell("a", 1.0, bits="W4A8", position=3),
    )
    first, second = rows(overview(folder))
    assert (first["bits"], first["calibration"]) == ("W8A8", "b 1.2 s, a 3 min")
    assert (second["bits"], second["how sure"], second["calibration"]) == ("W4A8", "no other row", "3 s")


def test_over_seeds_means_and_their_range_are_shown(cell: MakeRecord, write_records: WriteRecords):
    folder = write_records(
        *(cell("a", 1.0 + seed, seed=seed, seconds=9.0 + 20 * seed) for seed in (0, 1)),
        *(cell("b", 3.0 + seed, seed=seed, position=2) for seed in (0, 1)),
    )
    (row,) = rows(overview(folder))
    assert row["best distance ↓"] == "**a** 1.50 (1.00 to 2.00)"
    assert row["calibration"] == "20 s"


def test_rows_that_do_not_compete_are_counted(cell: MakeRecord, make_record: MakeRecord, write_records: WriteRecords):
    later = make_record("later", status="pending", figures={}, profile=None, position=3)
    folder = write_records(cell("a", 1.0), cell("b", 2.0, position=2), later)
    text = overview(folder)
    assert rows(text)[0]["how sure"].endswith(" against b (1 out)")
    assert "2 complete, 1 not run" in text


def test_before_anything_is_run_there_is_nothing_to_tell(make_record: MakeRecord, write_records: WriteRecords):
    text = overview(write_records(make_record(status="pending", figures={}, profile=None)))
    assert "1 not run" in text
    assert rows(text) == []


def test_there_is_a_picture_where_there_is_something_to_choose(cell: MakeRecord, write_records: WriteRecords):
    folder = write_records(cell("a", 1.0))
    assert "![" not in overview(folder)
    write_records(cell("b", 2.0, position=2))
    text = overview(folder)
    assert "![micro: distance against size](micro/media/pareto.micro.svg)" in text
    assert (folder / "media" / "pareto.micro.svg").is_file()


def test_problems_have_a_section_of_their_own(cell: MakeRecord, write_records: WriteRecords):
    folder = write_records(cell("a", 1.0))
    assert "## Problems" not in overview(folder)
    (folder / "records" / "<b>bad.json").write_text("{")
    _, _, problems = overview(folder).partition("## Problems\n\n")
    assert problems.startswith("- micro/records/&lt;b&gt;bad.json: ")
    assert len(problems.splitlines()) == 1


def test_hostile_names_stay_text(cell: MakeRecord, make_record: MakeRecord, write_records: WriteRecords):
    hostile = "<script>alert(1)|x|**`[y](z)"
    folder = write_records(cell("b", 2.0, position=2))
    record = cell("a", 1.0).model_copy(update={"label": hostile, "workload": hostile})
    (folder / "records" / "hostile.json").write_text(record.model_dump_json(), encoding="utf-8")
    text = overview(folder)
    assert "<script" not in text
    assert "](z)" not in text.replace(r"\](z)", "")
    assert len(rows(text)) == 2
