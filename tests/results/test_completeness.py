import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.errors import ResultsError
from qbench.results.completeness import Completeness, completeness
from qbench.suite import load_suite

ROUND = "micro.round.W4A8.s0"


@pytest.fixture
def look(finished_suite: Path, workplace: Path) -> Callable[[], Completeness]:
    """Return a function that looks at the micro suite's complete results."""
    return lambda: completeness(load_suite(finished_suite), workplace / "results" / "micro")


@pytest.fixture
def records(workplace: Path) -> Path:
    return workplace / "results" / "micro" / "records"


def states(found: Completeness) -> dict[str, tuple[str, str]]:
    return {each.cell: (each.state, each.reason) for each in found.cells if each.state != "complete"}


def test_all_is_there(look: Callable[[], Completeness]):
    assert (states(look()), look().problems) == ({}, ())


def test_a_damaged_record_is_the_reason_and_a_problem(look: Callable[[], Completeness], records: Path):
    (records / f"{ROUND}.json").write_text('{"schema_version": 99}')
    problem = f"micro/records/{ROUND}.json: record of version 99, this qbench reads 1, 2, 3"
    assert states(look()) == {ROUND: ("missing", problem)}
    assert look().problems == (problem,)


def test_what_differs_in_a_record_of_other_settings_is_told(look: Callable[[], Completeness], workplace: Path):
    suite = workplace / "micro.yaml"
    suite.write_text(suite.read_text().replace("samples: 12", "samples: 13\nboundary_bits: 6"))
    assert states(look())[ROUND] == (
        "missing",
        "the record is of other settings: boundary_bits is null, the suite asks for 6, and 1 more",
    )


def test_a_record_under_another_name_counts_as_in_the_table(look: Callable[[], Completeness], records: Path):
    (records / f"{ROUND}.json").rename(records / "from-another-machine.json")
    assert (states(look()), look().problems) == ({}, ())


def test_a_duplicate_is_told_and_the_cell_stays_complete(look: Callable[[], Completeness], records: Path):
    (records / "a.json").write_text((records / f"{ROUND}.json").read_text())
    found = look()
    assert states(found) == {}
    (problem,) = found.problems
    assert problem.startswith(f"micro/records/a.json: a duplicate of micro/records/{ROUND}.json, which stands")


def test_a_record_of_no_cell_is_told(look: Callable[[], Completeness], records: Path):
    raw = json.loads((records / f"{ROUND}.json").read_text())
    (records / "micro.older.W4A8.s0.json").write_text(json.dumps(raw | {"label": "older"}))
    found = look()
    assert states(found) == {}
    (problem,) = found.problems
    assert problem == (
        "micro/records/micro.older.W4A8.s0.json: no cell of this suite (any more); remove it if its row should go"
    )


def test_what_was_not_chosen_is_a_cell_of_the_suite(finished_suite: Path, workplace: Path):
    chosen = load_suite(finished_suite).only({"bits": ["W4A32"]})
    found = completeness(chosen, workplace / "results" / "micro")
    assert (len(found.cells), found.problems) == (2, ())


@pytest.mark.parametrize("place", ["results", "results/micro", "results/micro/records"])
def test_a_file_in_place_of_a_folder_is_one_sentence(look: Callable[[], Completeness], workplace: Path, place: str):
    (workplace / place).rename(workplace / "moved")
    (workplace / place).write_text("")
    with pytest.raises(ResultsError, match="is a file, not a folder of results"):
        look()
