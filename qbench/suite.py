"""Suites: a file, what it includes, and the cells that come of it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from qbench.cell import Cell, CellKey
from qbench.errors import DataError, SuiteError, did_you_mean
from qbench.metrics.metric import Metric
from qbench.settings import validate
from qbench.standin import scaled_down
from qbench.suite_expansion import Expansion
from qbench.suite_schema import StandinSchema, SuiteSchema
from qbench.workload import Workload
from qbench.yaml_file import YamlFile, read_yaml

LISTS = ("workloads", "methods", "bits", "metrics", "seeds", "exclude")
"""What ``--set KEY+=VALUE`` adds to."""


@dataclass(frozen=True)
class Suite:
    """A suite with its cells.

    Attributes:
        name: names the results folder.
        title: headline.
        path: its file.
        cells: full precision first for each workload and seed, then in the order of the file.
        positions: the place of every cell of the file, those that were not chosen included.
        standins: each workload that --standin replaced, and what stands in for it; empty without it.
        is_standin: whether it was read with --standin.
        overrides: values of --set; those that add to a list have keys that end in +.
        published: names of the published figures that it is compared with, those of included suites too.
    """

    name: str
    title: str
    path: Path
    cells: tuple[Cell, ...]
    positions: Mapping[CellKey, int]
    standins: Mapping[str, str] = field(default_factory=dict)
    is_standin: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[str, ...] = ()

    @cached_property
    def file_name(self) -> str:
        """What names it to `qbench run`: bare if it comes with the package, with its suffix otherwise; no folder."""
        installed = installed_suites().get(self.path.stem)
        is_installed = installed is not None and installed.read_bytes() == self.path.read_bytes()
        return self.path.stem if is_installed else self.path.name

    def only(self, selection: Mapping[str, Collection[str]]) -> "Suite":
        """Return the suite with the cells that agree with a selection, and the full precision these need.

        Args:
            selection: for each key of a cell, the values that are wanted.

        Raises:
            SuiteError: no cell agrees.
        """
        chosen = [cell for cell in self.cells if all(cell.text(key) in values for key, values in selection.items())]
        if not chosen:
            raise SuiteError(f"{self.path}: {self._why_nothing_agrees(selection)}")
        needed = {cell.key for cell in chosen} | {cell.full_precision.key for cell in chosen}
        return replace(self, cells=tuple(cell for cell in self.cells if cell.key in needed))

    def _why_nothing_agrees(self, selection: Mapping[str, Collection[str]]) -> str:
        for key, values in selection.items():
            known = sorted({cell.text(key) for cell in self.cells})
            for value in values:
                if value not in known:
                    return f"no cell has {key}={value}: {did_you_mean(value, known)}"
        return f"no cell has {', '.join(f'{key}={value}' for key, values in selection.items() for value in values)}"


def installed_suites() -> dict[str, Path]:
    """Return the suites that come with the package, by name."""
    folder = Path(str(files("qbench"))) / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_suite(name: str) -> Path:
    """Return the file of a suite given as a path or as the name of an installed one.

    Raises:
        SuiteError: there is none.
    """
    path = Path(name)
    known = installed_suites()
    try:
        if path.is_file():
            return path
        if name in known:
            return known[name]
        if path.is_dir():
            raise SuiteError(f"{name}: is a folder, not a suite file")
    except OSError as error:
        raise SuiteError(f"{name[:80]}: cannot be read ({error.strerror})") from None
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise SuiteError(f"{name}: no such file; installed suites are {', '.join(known)}")
    raise SuiteError(f"no suite {name!r} is installed: {did_you_mean(name, list(known))}")


def load_suite(path: Path, overrides: Mapping[str, Any] | None = None, standin: bool = False) -> Suite:
    """Read a suite and everything it includes.

    Args:
        path: the file.
        overrides: values that replace those of top-level keys, in this file and the included ones; under a key that
            ends in +, such as ``methods+``, what is added to a list.
        standin: whether tiny models stand in for its workloads, scaled down as its key ``standin`` says.

    Raises:
        SuiteError: anything in it is wrong; the message names file, line and key.
        PluginError: a plugin it needs cannot be used.
    """
    reader = _Reader(overrides or {}, standin)
    schema, file = reader.read(path)
    cells = reader.cells(schema, file)
    if not cells:
        raise SuiteError(f"{path}: no cell is left to run: name at least one workload, or exclude less")
    _check_names(path, cells.values())
    positions = {key: position for position, key in enumerate(cells)}
    return Suite(
        schema.name,
        schema.title or schema.name,
        path,
        tuple(cells.values()),
        positions,
        reader.standins,
        standin,
        dict(overrides or {}),
        tuple(dict.fromkeys(reader.published)),
    )


class _Reader:
    """Reads a file and those that it includes."""

    def __init__(self, overrides: Mapping[str, Any], standin: bool) -> None:
        self._overrides = overrides
        self._standin = standin
        self._chosen: StandinSchema | None = None
        self.standins: dict[str, str] = {}
        self.published: list[str] = []

    def read(self, path: Path, is_included: bool = False) -> tuple[SuiteSchema, YamlFile]:
        overrides = dict(self._overrides)
        if is_included:
            overrides = {key: value for key, value in overrides.items() if key not in ("name", "title", "include")}
        schema, file = _read(path, overrides)
        self.published += schema.published
        if not self._standin:
            return schema, file
        if self._chosen is None:  # the outermost file says what all of them are scaled down to
            scaled_keys = ("samples", "steps", "boundary_bits")
            given: dict[str, Any] = {key: overrides[key] for key in scaled_keys if key in overrides}
            self._chosen = (schema.standin or StandinSchema()).model_copy(update=given)
        scaled = scaled_down(schema, self._chosen, file.place)
        self.standins |= scaled.replaced
        return scaled.schema, file

    def cells(self, schema: SuiteSchema, file: YamlFile, ancestors: tuple[Path, ...] = ()) -> dict[CellKey, Cell]:
        here = file.path.resolve()
        cells: dict[CellKey, Cell] = dict(Expansion(schema, file).cells())
        for index, name in enumerate(schema.include):
            place = file.place(("include", index))
            path = _included(file.path.parent / name, name)
            if path is None:
                raise SuiteError(f"{place}: {name[:80]!r} is neither a file beside this one nor an installed suite")
            if path.resolve() in (here, *ancestors):
                chain = " -> ".join(each.name for each in (*ancestors, here, path.resolve()))
                raise SuiteError(f"{place}: the suites include each other in a circle ({chain})")
            for key, cell in self.cells(*self.read(path, is_included=True), (*ancestors, here)).items():
                _add(cells, key, cell, place)
        return cells


def _read(path: Path, overrides: Mapping[str, Any]) -> tuple[SuiteSchema, YamlFile]:
    file = read_yaml(path)
    if file.data is None:
        raise SuiteError(f"{path}: the file is empty")
    if not isinstance(file.data, dict):
        raise SuiteError(f"{file.place(())}: a suite is made of keys with values, such as 'name: my-suite'")
    known = list(SuiteSchema.model_fields)
    for key in overrides:
        name = key.removesuffix("+")
        if name not in known:
            raise SuiteError(f"--set {key}: a suite has no such key: {did_you_mean(name, known)}")
        if key != name and name not in LISTS:
            raise SuiteError(f"--set {key}: only to {', '.join(LISTS)} can something be added")
    replaced = {key: value for key, value in overrides.items() if not key.endswith("+")}
    file = replace(file, data={**file.data, **replaced}, overrides=frozenset(replaced))
    file = _extended(file, {key[:-1]: value for key, value in overrides.items() if key.endswith("+")})
    return validate(SuiteSchema, file.data, file.place, SuiteError), file


def _extended(file: YamlFile, additions: Mapping[str, Any]) -> YamlFile:
    """Return a file with more entries in its lists; one that only includes others stays as it is."""
    data, added = dict(file.data), {}
    for name, value in additions.items() if data.get("workloads") or not data.get("include") else ():
        own = data.get(name, list(SuiteSchema.model_fields[name].default))
        if isinstance(own, list):  # anything else is refused as it stands
            data[name] = [*own, *(value if isinstance(value, list) else [value])]
            added[name] = len(own)
    return replace(file, data=data, added=added)


def _included(beside: Path, name: str) -> Path | None:
    try:
        return beside if beside.is_file() else installed_suites().get(name)
    except OSError:  # no file can have such a name
        return None


def _add(cells: dict[CellKey, Cell], key: CellKey, cell: Cell, place: str) -> None:
    """Add a cell; the same cell of two suites becomes one with the metrics of both."""
    other = cells.get(key)
    if other is None:
        cells[key] = cell
        return
    metrics = {metric.name: metric for metric in cell.metrics} | {metric.name: metric for metric in other.metrics}
    # Settings beside descriptions: a path is no part of these, and two weight files are two metrics.
    same_metrics = all(
        (metrics[metric.name].describe(), metrics[metric.name].settings) == (metric.describe(), metric.settings)
        for metric in cell.metrics
    )
    if _meaning(other) != _meaning(cell) or not same_metrics:
        raise SuiteError(f"{place}: the cell {cell.id} is there twice with different settings: rename one with 'as'")
    latency = other.latency or cell.latency
    cells[key] = replace(other, metrics=tuple(_in_order(metrics, other, cell)), latency=latency)


def _meaning(cell: Cell) -> object:
    """Return what decides a cell's figures."""
    method = None if cell.method is None else cell.method.describe()
    return _of_workload(cell.workload), method, cell.bits, cell.boundary_bits, cell.seed, cell.samples


def _of_workload(workload: Workload) -> object:
    """Return what decides the images of a workload and, in its settings, what they are compared with."""
    try:
        return workload.describe(), workload.settings
    except DataError:  # told by whoever needs the files; `qbench fetch` needs the suite in order to get them
        return workload.name, workload.settings


def _in_order(metrics: Mapping[str, Metric], *cells: Cell) -> list[Metric]:
    """Return each metric once, in the order in which the cells name them."""
    return [metrics[name] for name in dict.fromkeys(metric.name for cell in cells for metric in cell.metrics)]


def _check_names(path: Path, cells: Collection[Cell]) -> None:
    """Refuse two meanings of one name, and names that one file system may not tell apart."""
    meanings: dict[tuple[str, str], Any] = {}
    protocols: dict[str, Any] = {}
    ids: dict[str, str] = {}
    for cell in cells:
        meaning = None if cell.method is None else cell.method.describe()
        if meanings.setdefault((cell.workload_label, cell.label), meaning) != meaning:
            raise SuiteError(f"{path}: {cell.label!r} stands for two settings of a method: rename one with 'as'")
        protocol = (cell.samples, _of_workload(cell.workload))
        if protocols.setdefault(cell.workload_label, protocol) != protocol:
            raise SuiteError(
                f"{path}: {cell.workload_label!r} stands for two workloads, samplers or sample counts: "
                "rename one with 'as'"
            )
        if ids.setdefault(cell.id.lower(), cell.id) != cell.id:
            raise SuiteError(f"{path}: the names {cell.id} and {ids[cell.id.lower()]} differ by upper case only")
