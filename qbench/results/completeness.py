"""Whether a results folder holds what a suite asks for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qbench.errors import ResultsError
from qbench.plan import CellPlan, make_plan
from qbench.records import Record
from qbench.results.collect import pending_record
from qbench.results.differences.changes import changes, value_text
from qbench.results.reading import place, read_records
from qbench.suite import Suite

OF_OTHER_SETTINGS = "the record is of other settings"


@dataclass(frozen=True)
class CellState:
    """What a results folder says of one cell.

    Attributes:
        cell: its id.
        state: complete, failed, or missing: no record, or one of other settings.
        reason: why it is not complete.
    """

    cell: str
    state: Literal["complete", "failed", "missing"]
    reason: str


@dataclass(frozen=True)
class Completeness:
    """What a results folder says of a suite.

    Attributes:
        cells: in the order of the suite.
        problems: files in the folder that are no records, not the only ones of their cell, or of no cell of the suite.
    """

    cells: tuple[CellState, ...]
    problems: tuple[str, ...]


def completeness(suite: Suite, folder: Path) -> Completeness:
    """Return the state of each cell, and what else lies among the suite's records.

    Args:
        suite: what it asks for.
        folder: the suite's own in a folder of results; it need not exist.

    Raises:
        ResultsError: the folder is a file.
    """
    for each in (folder.parent, folder, folder / "records"):
        if each.exists() and not each.is_dir():
            raise ResultsError(f"{each}: is a file, not a folder of results; name another one with --results")
    found = read_records(folder)
    records = {record.key: record for record in found.records.values()}
    cells = []
    for planned in make_plan(suite).cells:
        problem = found.problems.get(f"{planned.cell.id}.json", "no record")
        cells.append(_state(suite, planned, records.get(planned.cell.key), problem))
    strangers = [
        f"{place(folder, name)}: no cell of this suite (any more); remove it if its row should go"
        for name, record in found.records.items()
        if record.key not in suite.positions
    ]
    return Completeness(tuple(cells), (*found.problems.values(), *strangers))


def _state(suite: Suite, planned: CellPlan, record: Record | None, problem: str) -> CellState:
    name = planned.cell.id
    if record is None:
        return CellState(name, "missing", problem)
    expected = pending_record(suite, planned)
    if record.results != expected.results:
        return CellState(name, "missing", _difference(record, expected))
    if record.status == "pending":
        return CellState(name, "missing", "not run to its end")
    return CellState(name, record.status, record.reason or "")


def _difference(record: Record, expected: Record) -> str:
    """Return in words that a record is of other settings, with the first of them if the cell's description tells."""
    found = changes(record.description, expected.description)
    if not found:
        return OF_OTHER_SETTINGS
    first, more = found[0], len(found) - 1
    told = f"{first.path} is {value_text(first.first)}, the suite asks for {value_text(first.second)}"
    return f"{OF_OTHER_SETTINGS}: {told}" + (f", and {more} more" if more else "")
