"""Compare whatever two words name: the entry of ``qbench diff``."""

from pathlib import Path

from qbench.errors import ResultsError
from qbench.results.differences.artefacts import ArtefactDifference, artefact_difference
from qbench.results.differences.cells import TOLERANCE, CellDifference, cell_difference
from qbench.results.differences.folders import FolderDifference, folder_difference
from qbench.results.differences.sides import ArtefactSide, CellSide, FolderSide, Side, find_side
from qbench.store import Store

AnyDifference = CellDifference | FolderDifference | ArtefactDifference


def compare(
    first: str, second: str, results: Path, stores: tuple[Store, Store], tolerance: float = TOLERANCE
) -> AnyDifference:
    """Compare two cells, two folders of results, or two artefacts.

    Args:
        first: names the one; see ``sides.find_side``.
        second: names the other.
        results: folder of results that names are looked up in.
        stores: where the artefacts of each are.
        tolerance: figures that agree to this share are the same.

    Raises:
        DamagedArtefact: an artefact is not what was written.
        ResultsError: a word names nothing, the two are not of one kind, or something cannot be read.
    """
    one, other = (find_side(name, results, store) for name, store in zip((first, second), stores, strict=True))
    if isinstance(one, CellSide) and isinstance(other, CellSide):
        return cell_difference(one.record, other.record, stores, tolerance)
    if isinstance(one, FolderSide) and isinstance(other, FolderSide) and one.is_suite == other.is_suite:
        return folder_difference(one.suites, other.suites, tolerance)
    if isinstance(one, ArtefactSide) and isinstance(other, ArtefactSide):
        return artefact_difference(one.artefact, other.artefact, (one.store, other.store))
    raise ResultsError(f"{first} is {_kind(one)}, and {second} is {_kind(other)}: compare two of a kind")


def _kind(side: Side) -> str:
    if isinstance(side, CellSide):
        return "a cell"
    if isinstance(side, ArtefactSide):
        return "an artefact"
    return "the folder of one suite" if side.is_suite else "a folder of results of suites"
