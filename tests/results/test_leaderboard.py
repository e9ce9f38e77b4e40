import re
from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.errors import ResultsError
from qbench.records import Record
from qbench.results.leaderboard import regenerate

MakeRecord = Callable[..., Record]
WriteRecords = Callable[..., Path]


@pytest.fixture
def results(make_record: MakeRecord, write_records: WriteRecords) -> Path:
    """Two suites of two cells."""
    full = make_record("full-precision", "W32A32", 0)
    write_records(full, make_record())
    suite = {"name": "other", "title": "Another title"}
    other = [
        make_record("full-precision", "W32A32", suite=suite | {"position": 0}),
        make_record(suite=suite | {"position": 1}),
    ]
    return write_records(*other, suite="other").parent


def everything(results: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}


def test_it_makes_every_table_and_one_overview(results: Path):
    made = regenerate(results)
    assert (made.suites, made.problems) == (("micro", "other"), ())
    for suite in made.suites:
        assert {path.name for path in (results / suite).iterdir()} == {
            "records", "table.csv", "table.md", "table.tex", "curves.csv", "costs.csv", "costs.md", "protocols.json",
        }  # fmt: skip
    text = (results / "README.md").read_text(encoding="utf-8")
    assert text.count("2 complete") == 2
    assert "[micro/](micro/)" in text
    assert "[other/](other/)" in text
    assert "## A title" in text
    assert (results / "index.html").is_file()


def test_a_repetition_is_byte_identical_and_writes_nothing(results: Path):
    regenerate(results)
    before = everything(results)
    times = {path: path.stat().st_mtime_ns for path in before}
    regenerate(results)
    assert everything(results) == before
    assert {path: path.stat().st_mtime_ns for path in before} == times


def test_several_processes_write_the_same_and_name_the_same_problems(results: Path):
    (results / "micro" / "records" / "stranger.json").write_text("{}")
    alone = regenerate(results)
    before = everything(results)
    for path in before:
        if path.parent.name != "records":
            path.unlink()
    assert regenerate(results, processes=2) == alone
    assert everything(results) == before


@pytest.mark.parametrize("processes", [1, 2])
def test_a_picture_that_cannot_be_written_is_named_and_the_tables_are_there(
    results: Path, make_record: MakeRecord, write_records: WriteRecords, processes: int
):
    curve = {"samples": 4, "step_index": [0], "timestep": [5], "teacher_forced": [0.1], "free_running": [0.0, 0.2]}
    write_records(make_record("drawn", position=2, curve=curve))
    (results / "micro" / "media" / "curves.micro.svg" / "in-the-way").mkdir(parents=True)
    made = regenerate(results, processes=processes)
    assert len(made.problems) == 1
    assert "curves.micro.svg cannot be written" in made.problems[0]
    assert str(results) not in made.problems[0]
    text = (results / "README.md").read_text()
    assert "curves.micro.svg cannot be written" in text
    assert "A title" in text
    assert "| drawn | W4A8 |" in (results / "micro" / "table.md").read_text()


def test_it_depends_on_the_records_alone(results: Path):
    regenerate(results)
    before = everything(results)
    for path in before:
        if path.parent.name != "records":
            path.write_text(path.read_text(encoding="utf-8") + "spoilt", encoding="utf-8")
    regenerate(results)
    assert everything(results) == before


def test_headlines_of_the_overview_are_below_its_own(results: Path):
    regenerate(results)
    headlines = [line for line in (results / "README.md").read_text().splitlines() if line.startswith("#")]
    assert [line for line in headlines if line.startswith("# ")] == headlines[:1]
    assert all(line.lstrip("#").startswith(" ") for line in headlines)


def test_a_hostile_title_stays_text(results: Path, make_record: MakeRecord, write_records: WriteRecords):
    title = "<script>alert(1)</script> | x\n# headline\n</details>"
    write_records(
        *[make_record(label, suite={"name": "evil", "title": title, "position": 0}) for label in ("a", "b")],
        suite="evil",
    )
    regenerate(results)
    text = (results / "README.md").read_text()
    assert "<script" not in text
    assert "</details" not in text
    assert not [line for line in text.splitlines() if line.startswith("# headline")]


@pytest.mark.parametrize(
    "content", ["", "{}", '{"schema_version": 99}', "\udcff"], ids=["empty", "foreign", "version", "binary"]
)
def test_what_is_no_record_is_named_and_breaks_nothing(results: Path, content: str):
    regenerate(results)
    before = everything(results)
    stranger = results / "micro" / "records" / "stranger.json"
    stranger.write_bytes(content.encode("utf-8", "surrogateescape"))
    made = regenerate(results)
    assert len(made.problems) == 1
    assert made.problems[0].startswith("micro/records/stranger.json: ")
    readme = (results / "README.md").read_text(encoding="utf-8")
    assert "\n- micro/records/stranger.json: " in readme.partition("## Problems")[2]
    assert str(results) not in readme
    stranger.unlink()
    regenerate(results)
    assert everything(results) == before


def test_an_altered_record_is_named_and_the_rest_is_there(results: Path):
    path = results / "micro" / "records" / "micro.round.W4A8.s0.json"
    path.write_text(path.read_text().replace('"eta": 0.0', '"eta": 1.0'))
    made = regenerate(results)
    assert len(made.problems) == 1
    assert made.problems[0].startswith("micro/records/micro.round.W4A8.s0.json: ")
    text = (results / "README.md").read_text()
    assert "1 complete" in text
    assert "2 complete" in text


def test_a_suite_of_two_protocols_is_refused_and_the_others_are_made(
    results: Path, make_record: MakeRecord, write_records: WriteRecords
):
    regenerate(results)
    before = (results / "micro" / "table.md").read_bytes()
    raw = make_record("third", position=2).model_dump(mode="json")
    raw["metrics"]["distance"]["protocol"] = "Q"
    write_records(Record.model_validate(raw))
    (results / "other" / "table.md").unlink()
    made = regenerate(results)
    assert len(made.problems) == 1
    assert "(P)" in made.problems[0]
    assert "(Q)" in made.problems[0]
    assert (results / "micro" / "table.md").read_bytes() == before
    assert (results / "other" / "table.md").exists()


def test_a_folder_of_strangers_only_says_so(results: Path):
    (results / "strange" / "records").mkdir(parents=True)
    (results / "strange" / "records" / "a.json").write_text("{}")
    made = regenerate(results)
    assert len(made.problems) == 1
    assert "#No records" not in (results / "README.md").read_text()


def test_what_is_pending_can_be_shown_as_something_else(
    results: Path, make_record: MakeRecord, write_records: WriteRecords
):
    """While a run is going on, figures come from elsewhere; no record is written."""
    pending = make_record("later", position=2, status="pending", figures={}, profile=None)
    write_records(pending)
    records = {path: path.read_bytes() for path in results.glob("*/records/*")}
    seen: list[str] = []

    def overlay(record: Record) -> Record:
        seen.append(record.label)
        return make_record("later", position=2)

    regenerate(results, overlay=overlay)
    assert seen == ["later"]
    assert "| later | W4A8 | 0.50 |" in (results / "micro" / "table.md").read_text(encoding="utf-8")
    assert "Cells in [micro/](micro/): 3 complete." in (results / "README.md").read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in results.glob("*/records/*")} == records
    regenerate(results)
    assert "2 complete, 1 not run" in (results / "README.md").read_text(encoding="utf-8")


def test_published_figures_come_from_the_folders_that_are_named(
    results: Path, make_record: MakeRecord, write_records: WriteRecords, tmp_path: Path
):
    suite = {"name": "micro", "title": "A title", "position": 1, "published": ["a-paper"]}
    write_records(make_record(suite=suite))
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "a-paper.yaml").write_text(
        "paper: A. Author 2023\n"
        "tables:\n"
        "  - table: table 1\n"
        "    workload: micro\n"
        "    full_precision: {distance: 1.0}\n"
        "    rows: [{method: round, bits: W4A8, figures: {distance: 2.0}}]\n"
    )
    assert regenerate(results, [folder]).problems == ()
    assert "A. Author 2023, table 1" in (results / "micro" / "table.md").read_text(encoding="utf-8")
    assert "Published figures beside ours: " in (results / "README.md").read_text(encoding="utf-8")
    (problem,) = regenerate(results, [tmp_path]).problems
    assert "a-paper" in problem
    assert "A. Author" not in (results / "micro" / "table.md").read_text(encoding="utf-8")


def test_other_files_are_left_alone(results: Path):
    (results / "notes").mkdir()
    (results / "notes" / "records").write_text("not a folder")
    (results / "CNAME").write_text("x")
    assert regenerate(results).suites == ("micro", "other")


@pytest.mark.parametrize("name", ["README.md", "index.html"])
def test_a_file_of_somebody_else_is_left_alone(results: Path, name: str):
    (results / name).write_text("My notes\n")
    with pytest.raises(ResultsError, match=f"{re.escape(name)} was not written by"):
        regenerate(results)
    assert (results / name).read_text() == "My notes\n"
    assert not (results / "micro" / "table.md").exists()


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(ResultsError, match="nowhere: no such folder"):
        regenerate(tmp_path / "nowhere")


def test_a_folder_without_results_says_what_to_do(tmp_path: Path):
    with pytest.raises(ResultsError, match="run a suite first"):
        regenerate(tmp_path)
