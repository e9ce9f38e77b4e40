"""Published figures: what papers say, from which table, under which protocol, and whether anybody here read it there.

A file of ``suites/published`` holds the tables of one paper. Nothing in it is measured here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from qbench.bits import FULL_PRECISION
from qbench.errors import ResultsError, SuiteError
from qbench.records import Record
from qbench.results.published_schema import (
    FigureEntry,
    Origin,
    Protocol,
    PublishedFile,
    RowEntry,
    TableEntry,
)
from qbench.settings import Location, merged, validate
from qbench.suite_schema import LABEL
from qbench.yaml_file import read_yaml

__all__ = [
    "Protocol",
    "PublishedFigure",
    "Source",
    "published_folders",
    "published_names",
    "read_published",
]
Place = Callable[[Location], str]


@dataclass(frozen=True)
class Source:
    """Where a figure is published."""

    paper: str
    table: str
    url: str = ""


@dataclass(frozen=True)
class PublishedFigure:
    """One figure of a paper.

    Attributes:
        file: name of the published file that holds it.
        method: public id of the method; None is full precision.
        bits: as in a record.
        workload: public id of the workload.
        metric: public id of the metric.
        value: in the metric's own unit.
        source: where it is published.
        protocol: how it was made.
        band: what counts as the same; None: ``default_band`` of the verdicts.
        checked: whether somebody read it in its source, or in another text that repeats it.
        read_in: where it was read; begins with ``secondary:`` if that is not its source.
        note: what else to know of it.
    """

    file: str
    method: str | None
    bits: str
    workload: str
    metric: str
    value: float
    source: Source
    protocol: Protocol
    band: float | None = None
    checked: bool = False
    read_in: str = ""
    note: str = ""

    @property
    def is_full_precision(self) -> bool:
        """Whether nothing was quantized."""
        return self.method is None


def published_folders(results: Path) -> list[Path]:
    """Return where published files are looked for: beside a results folder, then in the installed package."""
    installed = Path(str(files("qbench"))) / "suites" / "published"
    beside = results.absolute().parent / "suites" / "published"
    return [beside, installed] if beside.is_dir() else [installed]


def published_names(records: Sequence[Record]) -> list[str]:
    """Return the names of the published files that records of a suite are compared with, each once."""
    return list(dict.fromkeys(name for record in records for name in record.suite.published))


def read_published(names: Sequence[str], folders: Sequence[Path]) -> tuple[list[PublishedFigure], list[str]]:
    """Read published files.

    Args:
        names: of files, without their suffix.
        folders: where they are looked for; the first that has a file wins.

    Returns:
        The figures, and what is wrong with files that cannot be read, one sentence each; these stop nothing.
    """
    figures: list[PublishedFigure] = []
    problems: list[str] = []
    for name in dict.fromkeys(names):
        try:
            figures += _read(name, folders)
        except ResultsError as error:
            problems.append(" ".join(str(error).split()))
    return figures, problems


def _read(name: str, folders: Sequence[Path]) -> list[PublishedFigure]:
    if not re.fullmatch(LABEL.strip("^$"), name):
        raise ResultsError(f"{name[:80]!r} cannot be the name of a file of published figures")
    path = next((folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()), None)
    shown = f"suites/published/{name}.yaml"
    if path is None:
        raise ResultsError(f"{shown}: there is no such file, so nothing is compared with it")
    try:
        found = replace(read_yaml(path), path=Path(shown))
        file = validate(PublishedFile, found.data, found.place, ResultsError)
        return list(_figures(name, file, found.place))
    except SuiteError as error:
        raise ResultsError(str(error).replace(str(path), shown, 1)) from None


def _figures(name: str, file: PublishedFile, place: Place) -> Iterator[PublishedFigure]:
    _protocol(file.protocol, place, ("protocol",))
    for index, table in enumerate(file.tables):
        here: Location = ("tables", index)
        source = Source(file.paper, table.table, file.url)
        protocols = _protocols(file, table, place, here)
        known: set[tuple[str | None, str, str]] = set()
        for where, row, metric, figure in _listed(table, here):
            method, bits = (None, str(FULL_PRECISION)) if row is None else (row.method, row.bits)
            if (method, bits, metric) in known:
                raise ResultsError(f"{place(where)}: {metric} of {method!r} at {bits} is there twice")
            known.add((method, bits, metric))
            origin = _innermost(file, table, row, figure)
            if origin["checked"] and not origin["read_in"]:
                raise ResultsError(f"{place(where)}: checked is true, but 'read_in' does not say where it was read")
            yield PublishedFigure(
                file=name,
                method=method,
                bits=bits,
                workload=table.workload,
                metric=metric,
                value=figure.value,
                source=source,
                protocol=protocols[method],
                band=figure.band,
                **origin,
            )


def _protocols(file: PublishedFile, table: TableEntry, place: Place, here: Location) -> Mapping[str | None, Protocol]:
    """Return the protocol of each method of a table, and of full precision under None."""
    _protocol(table.protocol, place, (*here, "protocol"))
    methods = {row.method for row in table.rows}
    for method, own in table.methods.items():
        _protocol(own, place, (*here, "methods", method))
        if method not in methods:
            raise ResultsError(f"{place((*here, 'methods', method))}: the table has no row of {method!r}")
    shared = merged(file.protocol, table.protocol)
    found: dict[str | None, Protocol] = {None: _protocol(shared, place, here)}
    for method in methods:
        found[method] = _protocol(merged(shared, table.methods.get(method, {})), place, here)
    return found


def _listed(table: TableEntry, here: Location) -> Iterator[tuple[Location, RowEntry | None, str, FigureEntry]]:
    """Yield each figure of a table with its place and its row; full precision comes first and has none."""
    for metric, figure in (table.full_precision or {}).items():
        yield (*here, "full_precision", metric), None, metric, figure
    for index, row in enumerate(table.rows):
        for metric, figure in row.figures.items():
            yield (*here, "rows", index, "figures", metric), row, metric, figure


def _protocol(raw: Mapping[str, Any], place: Place, where: Location) -> Protocol:
    return validate(Protocol, raw, lambda location: place((*where, *location)), ResultsError)


def _innermost(*levels: Origin | None) -> dict[str, Any]:
    """Return of ``checked``, ``read_in`` and ``note`` what the innermost level says that says anything."""
    defaults: dict[str, Any] = {"checked": False, "read_in": "", "note": ""}
    for level in levels:
        if level is not None:
            defaults |= {key: value for key in defaults if (value := getattr(level, key)) is not None}
    return defaults
