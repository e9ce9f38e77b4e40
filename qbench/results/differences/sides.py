"""What a word names that is given to ``qbench diff``: a cell, a folder of results, or an artefact."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qbench.errors import DamagedArtefact, ResultsError, did_you_mean
from qbench.records import Record, read_record
from qbench.results.reading import FoundRecords, read_records
from qbench.store import Artefact, Store
from qbench.store.artefact import MANIFEST, read_artefact

RECORDS = "records"
ARTEFACTS = "artefacts"
SHORTEST_DIGEST = 4
LONGEST = 80
"""Letters of a word, and names of cells, that a sentence repeats."""


@dataclass(frozen=True)
class CellSide:
    """A cell, by its record."""

    record: Record


@dataclass(frozen=True)
class FolderSide:
    """Results, by the names of their suites; those of one suite by the name ""."""

    suites: Mapping[str, FoundRecords]

    @property
    def is_suite(self) -> bool:
        """Whether it is the folder of one suite."""
        return list(self.suites) == [""]


@dataclass(frozen=True)
class ArtefactSide:
    """An artefact and the store that it is in."""

    artefact: Artefact
    store: Store


Side = CellSide | FolderSide | ArtefactSide


def find_side(name: str, results: Path, store: Store) -> Side:
    """Return what a word names.

    Args:
        name: the file of a record, a folder of results or of one suite in it, the folder of an artefact, ``suite`` or
            ``suite/cell`` in the folder of results, or how an artefact's digest begins.
        results: folder of results.
        store: where artefacts are looked up by their digests.

    Raises:
        ResultsError: it names nothing, more than one artefact, or what cannot be read.
    """
    if not name:
        raise ResultsError("an empty word names nothing to compare")
    try:
        side = _find(name, results, store)
        if side is None:
            raise ResultsError(_unknown(name, results, store))
    except OSError as error:
        raise ResultsError(f"{name[:LONGEST]}: cannot be looked at ({error.strerror})") from None
    return side


def _find(name: str, results: Path, store: Store) -> Side | None:
    for path in (Path(name), results / name):
        if path.is_file():
            return CellSide(read_record(path))
        record = path.parent / RECORDS / f"{path.name}.json"
        if record.is_file():
            return CellSide(read_record(record))
        if path.is_dir() and (side := _folder_side(path, store)) is not None:
            return side
    if re.fullmatch(rf"[0-9a-f]{{{SHORTEST_DIGEST},64}}", name) and (artefact := _artefact(name, store)) is not None:
        return ArtefactSide(artefact, store)
    return None


def _folder_side(path: Path, store: Store) -> Side | None:
    if (path / MANIFEST).is_file():
        try:
            artefact = read_artefact(path.resolve())
        except DamagedArtefact as error:
            raise ResultsError(f"{path}: not an artefact ({error})") from None
        of_store = artefact.folder.parents[1]
        return ArtefactSide(artefact, Store(of_store.parent, read_only=True) if of_store.name == ARTEFACTS else store)
    if (path / RECORDS).is_dir():
        suites = {"": path}
    else:
        suites = {each.parent.name: each.parent for each in sorted(path.glob(f"*/{RECORDS}")) if each.is_dir()}
    found = {name: read_records(folder) for name, folder in suites.items()}
    if found and not any(each.records for each in found.values()):
        problems = [problem for each in found.values() for problem in each.problems.values()]
        raise ResultsError(f"{path}: holds no record that can be read" + (f" ({problems[0]})" if problems else ""))
    return FolderSide(found) if found else None


def _artefact(start: str, store: Store) -> Artefact | None:
    found = sorted(store.root.glob(f"{ARTEFACTS}/*/{start}*/{MANIFEST}"))
    if len(found) > 1:
        names = ", ".join(f"{path.parents[1].name} {path.parent.name[:16]}" for path in found[:3])
        raise ResultsError(f"{start}: {len(found)} artefacts begin so ({names}{', ...' if len(found) > 3 else ''})")
    if not found:
        return None
    try:
        return read_artefact(found[0].parent)
    except DamagedArtefact as error:
        raise ResultsError(f"{start}: {error}") from None


def _unknown(name: str, results: Path, store: Store) -> str:
    """Return why a word names nothing, with the nearest name that would."""
    if Path(name).is_dir() or (results / name).is_dir():
        return f"{name}: this folder holds neither records nor an artefact"
    suite, _, cell = name.rpartition("/")
    for folder in (Path(suite), results / suite):
        cells = sorted(path.stem for path in folder.glob(f"{RECORDS}/*.json")) if suite else []
        if cells:
            hint = did_you_mean(cell, cells)
            return f"{name}: no such cell in {suite}: {hint if len(hint) <= LONGEST else f'it has {len(cells)}'}"
    suites = sorted(path.parent.name for path in results.glob(f"*/{RECORDS}"))
    hint = did_you_mean(name, suites) if suites else f"{results} holds no suites"
    return (
        f"{name}: no file, folder, suite or suite/cell in {results}, nor the start of a digest in {store.root}; {hint}"
    )
