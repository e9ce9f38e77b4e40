"""From the lists of one suite file to cells: names are resolved and settings are checked here."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import filterfalse, product
from typing import Any

from qbench import plugins
from qbench.bits import FULL_PRECISION, BitWidth
from qbench.cell import FULL_PRECISION_LABEL, Cell, CellKey
from qbench.errors import QbenchError, SuiteError, did_you_mean
from qbench.method import Method
from qbench.metrics.metric import Metric
from qbench.plugin import create, load_class
from qbench.settings import Location, merged
from qbench.suite_schema import LABEL, Exclusion, MethodEntry, MetricEntry, SuiteSchema, WorkloadEntry
from qbench.workload import Workload
from qbench.yaml_file import YamlFile


@dataclass(frozen=True)
class Expansion:
    """The product of one file's lists.

    Attributes:
        schema: the file's content.
        file: where it was read from.
    """

    schema: SuiteSchema
    file: YamlFile

    def cells(self) -> dict[CellKey, Cell]:
        """Return the cells by key, full precision first for each workload and seed.

        Raises:
            SuiteError: a list is empty, a name or setting is wrong, a method refuses the bits, or a cell is there
                twice.
            PluginError: a plugin cannot be used.
        """
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
        cells: dict[CellKey, Cell] = {}
        excluded: list[Cell] = []
        standing: set[str] = set()
        for (label, workload), seed in product(workloads.items(), schema.seeds):
            start = Cell(
                workload=workload,
                workload_label=label,
                method=None,
                label=FULL_PRECISION_LABEL,
                bits=FULL_PRECISION,
                boundary_bits=None,
                seed=seed,
                samples=schema.samples,
                metrics=tuple(metrics.values()),
                latency=schema.latency and seed == schema.seeds[0],
            )
            quantized = [
                self._quantized(start, width, (name, method))
                for width, (name, method) in product(bits.values(), methods.items())
                if method.stands_at(width, seed)
            ]
            standing.update(cell.label for cell in quantized)
            excluded += filter(self._is_excluded, quantized)
            chosen = list(filterfalse(self._is_excluded, quantized))
            if chosen:
                cells |= {cell.key: cell for cell in (start, *chosen)}
        for index, name in enumerate(methods):
            if name not in standing:
                place = self.file.place(("methods", index))
                raise SuiteError(f"{place}: {name!r} has no row at any of the suite's bits and seeds")
        self._check_exclusions(excluded)
        self._check_refusals(cells.values(), list(methods))
        return cells

    def _check_refusals(self, cells: Iterable[Cell], labels: Sequence[str]) -> None:
        for cell in cells:
            refusal = cell.method.refusal(cell.bits) if cell.method else None
            if refusal:
                place = self.file.place(("methods", labels.index(cell.label)))
                raise SuiteError(f"{place}: {refusal}, and the suite asks for {cell.bits}")

    def _check_exclusions(self, excluded: Sequence[Cell]) -> None:
        """Refuse an exclusion that excludes nothing, a slip of the pen, unless --set took away what it is about."""
        if self.file.overrides & {"workloads", "methods", "bits", "seeds"} and "exclude" not in self.file.overrides:
            return
        for index, exclusion in enumerate(self.schema.exclude):
            given = _given(exclusion)
            if not given or not any(cell.matches(given) for cell in excluded):
                words = ", ".join(f"{key}={value}" for key, value in given.items()) or "nothing"
                raise SuiteError(
                    f"{self.file.place(('exclude', index))}: no cell has {words}, so this excludes nothing"
                )

    def _quantized(self, start: Cell, bits: BitWidth, method: tuple[str, Method]) -> Cell:
        boundary_bits = self.schema.boundary_bits if bits.quantizes_weights else None
        return replace(start, method=method[1], label=method[0], bits=bits, boundary_bits=boundary_bits)

    def _is_excluded(self, cell: Cell) -> bool:
        return any(given and cell.matches(given) for given in map(_given, self.schema.exclude))

    def _unique(self, what: str, named: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for index, (name, value) in enumerate(named):
            if what in ("workloads", "methods") and not re.fullmatch(LABEL, name):
                raise SuiteError(f"{self.file.place((what, index))}: {name!r} is no name for a row: give one with 'as'")
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
        steps = {} if self.schema.steps is None else {"steps": self.schema.steps}
        settings = entry.given()
        given = settings.get("sampler", {})
        if isinstance(given, Mapping):  # anything else is refused with all other settings below
            settings["sampler"] = {**given, **steps} if "steps" in self.file.overrides else {**steps, **given}
        place = self._place("workloads", index, "settings")

        def make() -> Workload:
            if entry.pipeline is not None and entry.name in {each.name for each in plugins.WORKLOADS.entries()}:
                raise SuiteError(
                    f"{entry.name!r} is the id of a workload, and 'pipeline' is a model of one's own: give it a name "
                    "of its own, or that workload the setting 'model'"
                )
            located = load_class(plugins.WORKLOADS, entry.plugin, Workload).located(settings, self.file.path.parent)
            return create(plugins.WORKLOADS, entry.plugin, Workload, located, place, SuiteError)

        workload = self._located(("workloads", index), make)
        self._located(("workloads", index), lambda: self._check_steps(workload, entry.name))
        return entry.label or entry.name, workload

    def _check_steps(self, workload: Workload, name: str) -> None:
        if not all(asset.find() for asset in workload.assets()):
            return  # nothing is known of it before it is fetched
        if workload.sampler.steps > workload.schedule.train_steps:
            raise SuiteError(
                f"{self.file.place(('steps',))}: {workload.sampler.steps} steps are more than the "
                f"{workload.schedule.train_steps} that {name!r} was trained with"
            )

    def _method(self, index: int, entry: MethodEntry) -> tuple[str, Method]:
        def make() -> Method:
            presets = load_class(plugins.METHODS, entry.name, Method).presets
            if entry.preset is not None and entry.preset not in presets:
                raise SuiteError(
                    f"unknown preset {entry.preset!r} of {entry.name}: {did_you_mean(entry.preset, list(presets))}"
                )
            settings = merged(presets.get(entry.preset or "", {}), entry.settings)
            place = self._place("methods", index, "settings")
            method = create(plugins.METHODS, entry.name, Method, settings, place, SuiteError)
            method.describe()  # reads the files that settings name, so that a wrong path is told here
            return method

        label = entry.label or "-".join(filter(None, (entry.name, entry.preset)))
        if label == FULL_PRECISION_LABEL:
            raise SuiteError(f"{self.file.place(('methods', index))}: the name {label!r} is taken")
        return label, self._located(("methods", index), make)

    def _metric(self, index: int, entry: MetricEntry) -> tuple[str, Metric]:
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
            located = text.startswith((str(self.file.path), "--set "))
            raise SuiteError(text if located else f"{self.file.place(location)}: {text}") from error


def _given(exclusion: Exclusion) -> dict[str, Any]:
    return exclusion.model_dump(exclude_none=True)
