"""Whether a results folder holds what a suite asks for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qbench.errors import ResultsError
from qbench.plan import make_plan
from qbench.records import read_record
from qbench.results.collect import pending_record, record_path
from qbench.suite import Suite


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


def state_of_cells(suite: Suite, folder: Path) -> list[CellState]:
    """Return the state of each cell, in the order of the suite."""
    states = []
    for planned in make_plan(suite).cells:
        cell_id = planned.cell.id
        path = record_path(folder, cell_id)
        if not path.exists():
            states.append(CellState(cell_id, "missing", "no record"))
            continue
        try:
            record = read_record(path)
        except ResultsError as error:
            states.append(CellState(cell_id, "missing", str(error)))
            continue
        expected = pending_record(suite, planned)
        if record.results != expected.results:
            states.append(CellState(cell_id, "missing", "the record is of other settings"))
        elif record.status == "pending":
            states.append(CellState(cell_id, "missing", "not run to its end"))
        else:
            states.append(CellState(cell_id, record.status, record.reason or ""))
    return states
