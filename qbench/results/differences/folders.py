"""What differs between two folders of results, cell by cell."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qbench.cell import cell_id
from qbench.records import Record
from qbench.results.differences.cells import TOLERANCE, CellDifference, cell_difference
from qbench.results.reading import FoundRecords


@dataclass(frozen=True)
class FolderDifference:
    """What differs between two folders of results.

    Attributes:
        only_first: cells that only the one has.
        only_second: cells that only the other has.
        differing: the cells that differ, by name.
        same: how many cells are the same.
        problems: files that are not compared.
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    differing: Mapping[str, CellDifference]
    same: int
    problems: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Whether both have the same cells with the same results, and everything in them was compared."""
        return not (self.only_first or self.only_second or self.differing or self.problems)

    @property
    def is_undecided(self) -> bool:
        """Whether what was compared is the same, and something could not be compared."""
        return bool(self.problems) and not (self.only_first or self.only_second or self.differing)

    @property
    def is_unrelated(self) -> bool:
        """Whether they have no cell in common."""
        return not self.differing and not self.same

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "same": self.is_same,
            "same_cells": self.same,
            "only_first": list(self.only_first),
            "only_second": list(self.only_second),
            "differing": {name: each.as_json() for name, each in self.differing.items()},
            "problems": list(self.problems),
        }


def folder_difference(
    first: Mapping[str, FoundRecords], second: Mapping[str, FoundRecords], tolerance: float = TOLERANCE
) -> FolderDifference:
    """Compare the cells of two folders.

    Args:
        first: what lies in each suite of the one, by the suite's name; a suite on its own has the name "".
        second: of the other.
        tolerance: figures that agree to this share are the same.
    """
    one, other = _cells(first), _cells(second)
    found = {name: cell_difference(one[name], other[name], None, tolerance) for name in one if name in other}
    differing = {name: each for name, each in found.items() if not each.is_same}
    return FolderDifference(
        tuple(name for name in one if name not in other),
        tuple(name for name in other if name not in one),
        differing,
        len(found) - len(differing),
        tuple(problem for side in (first, second) for suite in side.values() for problem in suite.problems.values()),
    )


def _cells(suites: Mapping[str, FoundRecords]) -> dict[str, Record]:
    return {
        f"{suite}/{cell_id(record.key)}" if suite else cell_id(record.key): record
        for suite, found in suites.items()
        for record in found.records.values()
    }
