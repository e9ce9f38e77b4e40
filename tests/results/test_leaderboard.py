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
    other = {"suite": {"name": "other", "title": "Another title", "position": 1}}
    return write_records(full, make_record(**other), suite="other").parent


def everything(results: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}


def test_it_makes_every_table_and_one_overview(results: Path):
    made = regenerate(results)
    assert (made.suites, made.problems) == (("micro", "other"), ())
    for suite in made.suites:
        assert {path.name for path in (results / suite).iterdir()} == {
            "records", "table.csv", "table.md", "curves.csv", "costs.csv", "protocols.json",
        }  # fmt: skip
    text = (results / "README.md").read_text(encoding="utf-8")
    assert text.count("2 complete") == 2
    assert "[micro/](micro/)" in text
    assert "[other/](other/)" in text
    assert "## A title" in text


def test_a_repetition_is_byte_identical_and_writes_nothing(results: Path):
    regenerate(results)
    before = everything(results)
    times = {path: path.stat().st_mtime_ns for path in before}
    regenerate(results)
    assert everything(results) == before
    assert {path: path.stat().st_mtime_ns for path in before} == times


def test_it_depends_on_the_records_alone(results: Path):
    regenerate(results)
    before = everything(results)
    for path in before:
        if path.parent.name != "records":
            path.write_text(path.read_text() + "spoilt")
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
    assert str(stranger) in made.problems[0]
    stranger.unlink()
    assert everything(results) == before


def test_an_altered_record_is_named_and_the_rest_is_there(results: Path):
    path = results / "micro" / "records" / "micro.round.W4A8.s0.json"
    path.write_text(path.read_text().replace('"eta": 0.0', '"eta": 1.0'))
    made = regenerate(results)
    assert len(made.problems) == 1
    assert str(path) in made.problems[0]
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


def test_other_files_are_left_alone(results: Path):
    (results / "notes").mkdir()
    (results / "notes" / "records").write_text("not a folder")
    (results / "CNAME").write_text("x")
    assert regenerate(results).suites == ("micro", "other")


def test_a_readme_of_somebody_else_is_left_alone(results: Path):
    (results / "README.md").write_text("My notes\n")
    with pytest.raises(ResultsError, match=r"README\.md was not written by"):
        regenerate(results)
    assert (results / "README.md").read_text() == "My notes\n"


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(ResultsError, match="nowhere: no such folder"):
        regenerate(tmp_path / "nowhere")


def test_a_folder_without_results_says_what_to_do(tmp_path: Path):
    with pytest.raises(ResultsError, match="run a suite first"):
        regenerate(tmp_path)
