"""From a suite file to cells: every name resolved and every setting checked before any work starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from qbench import plugins
from qbench.bits import FULL_PRECISION, BitWidth
from qbench.errors import QbenchError, SuiteError, did_you_mean
from qbench.identity import digest
from qbench.method import Method
from qbench.metrics.metric import Metric
from qbench.plugin import create
from qbench.settings import Location, validate
from qbench.suite_schema import Exclusion, MethodEntry, SuiteSchema, WorkloadEntry
from qbench.workload import Workload
from qbench.yaml_file import YamlFile, read_yaml

FULL_PRECISION_LABEL = "full-precision"
KEYS = ("workload", "method", "bits", "seed")
"""What cells are selected by, in ``exclude`` and ``--only``."""


@dataclass(frozen=True)
class Cell:
    """One workload x method x bits x seed.

    Attributes:
        workload: with its sampler.
        workload_label: how its rows are named.
        method: None in full precision.
        label: how its rows are named.
        bits: of the cell.
        boundary_bits: weight bits of the first and last layer; None in full precision and where there is no exception.
        seed: of calibration and sampling noise.
        samples: number of images.
        metrics: what is measured.
    """

    workload: Workload
    workload_label: str
    method: Method | None
    label: str
    bits: BitWidth
    boundary_bits: int | None
    seed: int
    samples: int
    metrics: tuple[Metric, ...]

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells its row from others: workload, method, bits, seed."""
        return (self.workload_label, self.label, str(self.bits), self.seed)

    @property
    def id(self) -> str:
        """The key as one word that is safe as a file name."""
        return f"{self.workload_label}.{self.label}.{self.bits}.s{self.seed}"

    def describe(self) -> dict[str, Any]:
        """Return what decides its figures; labels do not."""
        return {
            "workload": self.workload.describe(),
            "method": None if self.method is None else self.method.describe(),
            "bits": str(self.bits),
            "boundary_bits": self.boundary_bits,
            "seed": self.seed,
            "samples": self.samples,
        }

    @cached_property
    def digest(self) -> str:
        """The digest of its description; metrics are not in it, each figure has its own."""
        return digest(self.describe())

    @property
    def full_precision(self) -> "Cell":
        """The full-precision cell that it is compared with."""
        return replace(self, method=None, label=FULL_PRECISION_LABEL, bits=FULL_PRECISION, boundary_bits=None)

    def matches(self, selection: Mapping[str, Any]) -> bool:
        """Whether it agrees with every value given; values are compared as text."""
        mine = dict(zip(KEYS, self.key, strict=True))
        return all(str(mine[key]) == str(value) for key, value in selection.items())


@dataclass(frozen=True)
class Suite:
    """A suite with its cells.

    Attributes:
        name: names the results folder.
        title: headline.
        path: its file.
        cells: full precision first for each workload and seed, then in the order of the file.
    """

    name: str
    title: str
    path: Path
    cells: tuple[Cell, ...]

    def only(self, selection: Mapping[str, Any]) -> "Suite":
        """Return the suite with the cells that agree with a selection, and the full precision these need.

        Raises:
            SuiteError: no cell agrees.
        """
        chosen = [cell for cell in self.cells if cell.matches(selection)]
        if not chosen:
            words = ", ".join(f"{key}={value}" for key, value in selection.items())
            key, value = next(iter(selection.items()))
            known = sorted({str(dict(zip(KEYS, cell.key, strict=True))[key]) for cell in self.cells})
            raise SuiteError(f"{self.path}: no cell has {words}: {did_you_mean(str(value), known)}")
        needed = {cell.key for cell in chosen} | {cell.full_precision.key for cell in chosen}
        return replace(self, cells=tuple(cell for cell in self.cells if cell.key in needed))


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
    if path.is_file():
        return path
    if path.is_dir():
        raise SuiteError(f"{name}: is a folder, not a suite file")
    known = installed_suites()
    if name in known:
        return known[name]
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise SuiteError(f"{name}: no such file; installed suites are {', '.join(known)}")
    raise SuiteError(f"no suite {name!r} is installed: {did_you_mean(name, list(known))}")


def load_suite(path: Path, overrides: Mapping[str, Any] | None = None) -> Suite:
    """Read a suite and everything it includes.

    Args:
        path: the file.
        overrides: values that replace those of top-level keys, in this file and the included ones.

    Raises:
        SuiteError: anything in it is wrong; the message names file, line and key.
        PluginError: a plugin it needs cannot be used.
    """
    schema, file = _read(path, overrides or {})
    cells = _cells_with_includes(schema, file, overrides or {}, ())
    if not cells:
        raise SuiteError(f"{path}: no cell is left to run: name at least one workload, or exclude less")
    return Suite(schema.name, schema.title or schema.name, path, tuple(cells.values()))


def _read(path: Path, overrides: Mapping[str, Any]) -> tuple[SuiteSchema, YamlFile]:
    file = read_yaml(path)
    if file.data is None:
        raise SuiteError(f"{path}: the file is empty")
    if not isinstance(file.data, dict):
        raise SuiteError(f"{file.place(())}: a suite is made of keys with values, such as 'name: my-suite'")
    known = list(SuiteSchema.model_fields)
    for key in overrides:
        if key not in known:
            raise SuiteError(f"--set {key}: a suite has no such key: {did_you_mean(key, known)}")
    data = {**file.data, **overrides}

    def place(location: Location) -> str:
        return f"--set {location[0]}" if location and location[0] in overrides else file.place(location)

    return validate(SuiteSchema, data, place, SuiteError), file


def _cells_with_includes(
    schema: SuiteSchema, file: YamlFile, overrides: Mapping[str, Any], ancestors: tuple[Path, ...]
) -> dict[tuple[str, str, str, int], Cell]:
    here = file.path.resolve()
    cells: dict[tuple[str, str, str, int], Cell] = {}
    inherited = {key: value for key, value in overrides.items() if key not in ("name", "title", "include")}
    for index, name in enumerate(schema.include):
        beside = file.path.parent / name
        try:
            path = beside if beside.is_file() else find_suite(name)
        except SuiteError as error:
            raise SuiteError(f"{file.place(('include', index))}: {error}") from None
        if path.resolve() in (here, *ancestors):
            chain = " -> ".join(each.name for each in (*ancestors, here, path.resolve()))
            raise SuiteError(f"{file.place(('include', index))}: the suites include each other in a circle ({chain})")
        included_schema, included_file = _read(path, inherited)
        for key, cell in _cells_with_includes(included_schema, included_file, inherited, (*ancestors, here)).items():
            _add(cells, key, cell, file.place(("include", index)))
    for key, cell in _Expansion(schema, file).cells().items():
        _add(cells, key, cell, file.place(()))
    return cells


def _add(cells: dict[tuple[str, str, str, int], Cell], key: tuple[str, str, str, int], cell: Cell, place: str) -> None:
    other = cells.get(key)
    if other is not None and _compared(other) != _compared(cell):
        raise SuiteError(
            f"{place}: the cell {cell.id} is there twice with different settings: give one of them another name with 'as'"
        )
    cells.setdefault(key, cell)


def _compared(cell: Cell) -> tuple[str, tuple[str, ...]]:
    return cell.digest, tuple(metric.name for metric in cell.metrics)


@dataclass
class _Expansion:
    """Turns one file's lists into cells."""

    schema: SuiteSchema
    file: YamlFile
    _problems: list[str] = field(default_factory=list)

    def cells(self) -> dict[tuple[str, str, str, int], Cell]:
        schema = self.schema
        if not schema.workloads and schema.include:
            return {}
        for what in ("workloads", "methods", "bits", "metrics"):
            if not getattr(schema, what):
                raise SuiteError(f"{self.file.place((what,))}: name at least one of {what!r}")
        workloads = self._unique("workloads", [self._workload(*each) for each in enumerate(schema.workloads)])
        methods = self._unique("methods", [self._method(*each) for each in enumerate(schema.methods)])
        metrics = self._unique("metrics", [self._metric(*each) for each in enumerate(schema.metrics)])
        bits = self._unique("bits", [(text, BitWidth.parse(text)) for text in schema.bits])
        self._unique("seeds", [(str(seed), seed) for seed in schema.seeds])
        for (index, method), width in product(enumerate(methods.values()), bits.values()):
            refusal = method.refusal(width)
            if refusal and not self._is_excluded_everywhere(list(methods)[index], width):
                raise SuiteError(f"{self.file.place(('methods', index))}: {refusal}, and the suite asks for {width}")
        cells: dict[tuple[str, str, str, int], Cell] = {}
        for (workload_label, workload), seed in product(workloads.items(), schema.seeds):
            start = Cell(
                workload, workload_label, None, FULL_PRECISION_LABEL, FULL_PRECISION, None, seed, schema.samples,
                tuple(metrics.values()),
            )  # fmt: skip
            chosen = [
                cell
                for width, (label, method) in product(bits.values(), methods.items())
                if not self._is_excluded(cell := self._quantized(start, label, method, width))
            ]
            if chosen:
                cells |= {cell.key: cell for cell in (start, *chosen)}
        return cells

    def _quantized(self, start: Cell, label: str, method: Method, bits: BitWidth) -> Cell:
        boundary_bits = self.schema.boundary_bits if bits.quantizes_weights else None
        return replace(start, method=method, label=label, bits=bits, boundary_bits=boundary_bits)

    def _is_excluded(self, cell: Cell) -> bool:
        return any(cell.matches(_given(exclusion)) for exclusion in self.schema.exclude)

    def _is_excluded_everywhere(self, label: str, bits: BitWidth) -> bool:
        wanted = {"method": label, "bits": str(bits)}
        return any(
            given and all(wanted.get(key) == value for key, value in given.items())
            for given in map(_given, self.schema.exclude)
        )

    def _unique(self, what: str, named: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for index, (name, value) in enumerate(named):
            if name in found:
                raise SuiteError(
                    f"{self.file.place((what, index))}: {name!r} is there twice, which makes duplicate cells: "
                    "leave one out" + (" or name it with 'as'" if what in ("workloads", "methods") else "")
                )
            found[name] = value
        return found

    def _place(self, *prefix: int | str) -> Callable[[Location], str]:
        return lambda location: self.file.place((*prefix, *location))

    def _workload(self, index: int, entry: WorkloadEntry) -> tuple[str, Workload]:
        settings = dict(entry.settings)
        sampler = {**settings.get("sampler", {}), **entry.sampler}
        if self.schema.steps is not None:
            sampler["steps"] = self.schema.steps
        if sampler:
            settings["sampler"] = sampler
        place = self._place("workloads", index, "settings")
        workload = self._located(
            ("workloads", index),
            lambda: create(plugins.WORKLOADS, entry.name, Workload, settings, place, SuiteError),
        )
        if workload.sampler.steps > workload.schedule.train_steps:
            raise SuiteError(
                f"{self.file.place(('steps',))}: {workload.sampler.steps} steps are more than the "
                f"{workload.schedule.train_steps} that {entry.name!r} was trained with"
            )
        return entry.label or entry.name, workload

    def _method(self, index: int, entry: MethodEntry) -> tuple[str, Method]:
        def make() -> Method:
            from qbench.plugin import load_class

            presets = load_class(plugins.METHODS, entry.name, Method).presets
            if entry.preset is not None and entry.preset not in presets:
                raise SuiteError(
                    f"unknown preset {entry.preset!r} of {entry.name}: {did_you_mean(entry.preset, list(presets))}"
                )
            settings = _merged(presets.get(entry.preset or "", {}), entry.settings)
            place = self._place("methods", index, "settings")
            return create(plugins.METHODS, entry.name, Method, settings, place, SuiteError)

        label = entry.label or "-".join(filter(None, (entry.name, entry.preset)))
        if label == FULL_PRECISION_LABEL:
            raise SuiteError(f"{self.file.place(('methods', index))}: the name {label!r} is taken")
        return label, self._located(("methods", index), make)

    def _metric(self, index: int, entry: Any) -> tuple[str, Metric]:
        place = self._place("metrics", index, "settings")
        return entry.name, self._located(
            ("metrics", index),
            lambda: create(plugins.METRICS, entry.name, Metric, entry.settings, place, SuiteError),
        )

    def _located(self, location: Location, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except QbenchError as error:
            text = str(error)
            raise SuiteError(text if str(self.file.path) in text else f"{self.file.place(location)}: {text}") from error


def _given(exclusion: Exclusion) -> dict[str, Any]:
    return exclusion.model_dump(exclude_none=True)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``over``, nested mappings merged."""
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged
