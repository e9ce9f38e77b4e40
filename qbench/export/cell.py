"""From the name of a cell to what is exported of it: its record, the cell itself, its artefacts. Needs no torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qbench.cell import Cell, cell_id
from qbench.errors import DamagedArtefact, ExportError, ResultsError, did_you_mean
from qbench.records import Record, read_record
from qbench.results.collect import ELSEWHERE
from qbench.results.differences.changes import changes
from qbench.results.differences.sides import LONGEST, RECORDS, ArtefactSide, CellSide, find_side
from qbench.stages.conversion import model_inputs
from qbench.stages.quantize import Assignment
from qbench.stages.quantized import quantized
from qbench.store import Artefact, Store
from qbench.suite import Suite, find_suite, load_suite

NAMES = {
    "weights": "packed weights are",
    "activations": "grids of activations are",
    "correction": "step correction is",
    "model": "converted checkpoint is",
}
"""What sentences call the artefacts."""
SHOWN = 3
"""So many cells a sentence names."""


@dataclass(frozen=True)
class Request:
    """What a command line says of the cell, beside its name.

    Attributes:
        results: folder of results.
        suite: the cell's suite, as ``qbench run`` takes it; empty for the one that its record names.
        overrides: values of ``--set`` that its record leaves out, since they hold paths.
        options: what a command to run the cell needs beside suite and selection, such as ``--store DIR``.
    """

    results: Path
    suite: str = ""
    overrides: Mapping[str, Any] | None = None
    options: Sequence[str] = ()


@dataclass(frozen=True)
class FoundCell:
    """A cell that can be exported.

    Attributes:
        record: what became of it.
        cell: with its workload.
        artefacts: ``weights`` and ``activations`` where they are quantized, ``model`` where a checkpoint is converted.
    """

    record: Record
    cell: Cell
    artefacts: Mapping[str, Artefact]


def find_cell(name: str, request: Request, store: Store) -> FoundCell:
    """Find a cell and what the store has of it.

    Args:
        name: the file of a record, ``suite/cell`` in the folder of results, or a cell that one suite only has.
        request: what else is known.
        store: where artefacts are looked up.

    Raises:
        ExportError: there is no such cell, nothing of it is quantized, it was not finished, or its suite says
            something else now.
        ResultsError: the name names nothing, or a record cannot be read.
        SuiteError: the suite cannot be read.
        DataError: something that the cell's workload needs is missing.
    """
    record = _record(name, request.results, store)
    what = _name(record)
    if record.method is None or record.is_full_precision:
        raise ExportError(
            f"{what}: nothing of it is quantized, so there is nothing to pack: its model is the workload's"
        )
    if record.status == "failed" and not record.figures:
        raise ExportError(f"{what}: the cell failed, so there is nothing to export ({record.reason})")
    suite = _suite(record, what, request)
    command = _command(record, suite, request)
    if record.status == "pending":
        raise ExportError(f"{what}: the cell is not finished: {command}")
    cell = next((each for each in suite.cells if each.key == record.key), None)
    if cell is None:
        raise ExportError(
            f"{what}: {suite.path} has no such cell (any more): name the suite it was run from with --suite"
        )
    if cell.digest != record.digest:
        differing = ", ".join(change.path for change in changes(record.description, cell.describe())[:SHOWN])
        raise ExportError(
            f"{what}: {suite.path} says something else now than the cell was run with ({differing}): run it again with "
            f"{command}, or name the suite it was run from with --suite"
        )
    assert cell.method is not None
    if cell.method.images() is not None:
        raise ExportError(f"{what}: its images were made elsewhere, so no quantized weights are known")
    return FoundCell(record, cell, _artefacts(cell, record, what, command, store))


def _record(name: str, results: Path, store: Store) -> Record:
    paths = sorted(results.glob(f"*/{RECORDS}/*.json"))
    same = [path for path in paths if path.stem == name]
    if len(same) == 1:
        return read_record(same[0])
    if same:
        named = ", ".join(f"{path.parents[1].name}/{name}" for path in same)
        raise ExportError(f"{name}: {len(same)} suites have this cell: name one of {named}")
    try:
        side = find_side(name, results, store)
    except ResultsError:
        hint = did_you_mean(name, sorted({path.stem for path in paths}))
        if "/" in name or not hint.startswith("did you mean"):
            raise
        raise ExportError(f"{name[:LONGEST]}: no such cell in {results}: {hint}") from None
    if isinstance(side, CellSide):
        return side.record
    if isinstance(side, ArtefactSide):
        raise ExportError(f"{name}: an artefact of the store, not a cell: name a cell as SUITE/CELL")
    records = [record for folder in side.suites.values() for record in folder.records.values()]
    found = [_name(record) for record in records if not record.is_full_precision]
    shown = f": name one cell of it, such as {', '.join(found[:SHOWN])}" if found else ""
    raise ExportError(f"{name}: a folder of results, not a cell{shown}")


def _name(record: Record) -> str:
    return f"{record.suite.name}/{cell_id(record.key)}"


def _suite(record: Record, what: str, request: Request) -> Suite:
    overrides = {**record.suite.overrides, **(request.overrides or {})}
    hidden = [key for key, value in overrides.items() if _is_left_out(value)]
    if hidden:
        given = " ".join(f"--set {key}=..." for key in hidden)
        raise ExportError(f"{what}: it was run with {given}, whose paths records leave out: give the same again")
    if not request.suite and not record.suite.file:
        raise ExportError(f"{what}: its record does not say which suite file it is of: name it with --suite")
    file = request.suite or record.suite.file
    if not request.suite and Path(file).suffix and not Path(file).is_file():
        raise ExportError(f"{what}: its suite {file} is not in this folder: say where it is with --suite FILE")
    return load_suite(find_suite(file), overrides, record.suite.standin)


def _is_left_out(value: Any) -> bool:
    return bool(value == ELSEWHERE)


def _command(record: Record, suite: Suite, request: Request) -> str:
    """Return what makes the cell, as a command line."""
    words = ["qbench", "run", request.suite or record.suite.file]
    words += ["--standin"] if suite.is_standin else []
    for key, value in suite.overrides.items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    for key, value in zip(("workload", "method", "bits", "seed"), record.key, strict=True):
        words += ["--only", f"{key}={value}"]
    return f"`{shlex.join([*words, *request.options])}`"


def _artefacts(cell: Cell, record: Record, what: str, command: str, store: Store) -> dict[str, Artefact]:
    assert cell.method is not None
    of_cell = quantized(Assignment(cell.workload, cell.method, cell.bits, cell.boundary_bits, cell.seed))
    found = {}
    for name, stage in {**of_cell.inputs(), **model_inputs(cell.workload)}.items():
        try:
            found[name] = store.get(stage.kind, stage.digest)
        except DamagedArtefact as error:
            gone = f"damaged there ({error})" if store.has(stage.kind, stage.digest) else f"not in {store.root}"
            raise ExportError(f"{what}: its {NAMES[name]} {gone}: {_remedy(record, command, store)}") from None
    return found


def _remedy(record: Record, command: str, store: Store) -> str:
    kinds = {"profile": "profile", "curve": "curve"}
    if all(store.has(kinds.get(name, "score"), each) for name, each in record.results.items()):
        return (
            f"run {command} with a --store of its own (this one has the figures, which need no weights any more) and "
            "export from there"
        )
    return f"{command} makes them"
