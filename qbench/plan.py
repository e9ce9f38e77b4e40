"""From cells to a deduplicated graph of stages, and what of it is still to do."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qbench import plugins
from qbench.cell import Cell
from qbench.errors import DataError, SuiteError, did_you_mean
from qbench.metrics.extractor import Extractor
from qbench.metrics.metric import Against, Metric
from qbench.plugin import blaming, create
from qbench.stages.features import Features
from qbench.stages.profile import Profile
from qbench.stages.quantize import Assignment, Quantized, quantized
from qbench.stages.reference import Reference
from qbench.stages.sample import Sample, shards
from qbench.stages.score import Score, Shard
from qbench.stages.stage import Stage
from qbench.store import Store
from qbench.suite import Suite


@dataclass(frozen=True)
class CellPlan:
    """What has to be there for a cell to be complete.

    Attributes:
        cell: the cell.
        profile: its profile.
        scores: its figures by metric id.
    """

    cell: Cell
    profile: Profile
    scores: dict[str, Score]

    @property
    def targets(self) -> tuple[Stage, ...]:
        """Profile and scores."""
        return (self.profile, *self.scores.values())

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """Every stage the cell needs, by digest, inputs first; those of its full-precision cell are among them."""
        found: dict[str, Stage] = {}
        for target in self.targets:
            found |= {stage.digest: stage for stage in _inputs_first(target, found)}
        return found

    @cached_property
    def own_stages(self) -> dict[str, Stage]:
        """The stages that make the cell's own images and figures."""
        found: dict[str, Stage] = {}
        for score in self.scores.values():
            for shard in score.shards:
                found |= {stage.digest: stage for stage in _inputs_first(shard, found)}
            if score.reference is not None:
                found[score.reference.digest] = score.reference
            found[score.digest] = score
        found[self.profile.digest] = self.profile
        return found


@dataclass(frozen=True)
class Plan:
    """All cells of a suite and the stages they share.

    Attributes:
        cells: in the order of the suite.
    """

    cells: tuple[CellPlan, ...]

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """Every stage once, by digest, inputs first."""
        found: dict[str, Stage] = {}
        for each in self.cells:
            found |= {digest: stage for digest, stage in each.stages.items() if digest not in found}
        return found

    def missing(self, store: Store, targets: Iterable[Stage] | None = None) -> dict[str, Stage]:
        """Return the stages that must be computed, inputs first.

        What lies behind an artefact that is there is not looked at: a finished figure needs nothing else.
        """
        found: dict[str, Stage] = {}
        seen: set[str] = set()

        def visit(stage: Stage) -> None:
            if stage.digest in seen:
                return
            seen.add(stage.digest)
            if store.has(stage.kind, stage.digest):
                return
            for each in stage.inputs().values():
                visit(each)
            found[stage.digest] = stage

        for target in targets if targets is not None else [each for cell in self.cells for each in cell.targets]:
            visit(target)
        return found


def _inputs_first(stage: Stage, known: Mapping[str, Stage]) -> Iterator[Stage]:
    if stage.digest in known:
        return
    for each in stage.inputs().values():
        yield from _inputs_first(each, known)
    yield stage


def make_plan(suite: Suite) -> Plan:
    """Return the plan of a suite's cells.

    Raises:
        PluginError: a metric needs an extractor that nobody offers, or a plugin's own code raises.
        SuiteError: a metric and a workload do not fit each other.
    """
    planner = _Planner(suite.path)
    plans = []
    for cell in suite.cells:
        with blaming(f"{suite.path}: a plugin of the cell {cell.id}"):
            planned = planner.plan(cell)
            _ = planned.stages  # takes every digest, for which every plugin is asked to describe itself
        plans.append(planned)
    return Plan(tuple(plans))


class _Planner:
    """Makes the stages of images and features once, however many metrics and cells need them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._extractors: dict[str, Extractor] = {}
        self._images: dict[str, tuple[Sample, ...]] = {}
        self._features: dict[tuple[str, str], tuple[Features, ...]] = {}
        self._references: dict[tuple[str, str], Reference] = {}

    def plan(self, cell: Cell) -> CellPlan:
        profile = Profile(cell.workload, cell.bits, cell.boundary_bits, _quantized(cell))
        own = self._sampled(cell)
        baseline = self._sampled(cell.full_precision)
        scores = {}
        for metric in cell.metrics:
            extractor = self._extractor(cell, metric)
            scores[metric.name] = Score(
                metric,
                own if extractor is None else self._extracted(cell, extractor, own),
                baseline if extractor is None else self._extracted(cell.full_precision, extractor, baseline),
                self._reference(cell, metric, extractor),
                cell.method is None,
            )
        return CellPlan(cell, profile, scores)

    def _sampled(self, cell: Cell) -> tuple[Sample, ...]:
        if cell.digest not in self._images:
            of_cell = _quantized(cell)
            self._images[cell.digest] = tuple(
                Sample(cell.workload, cell.seed, indices.start, indices.stop, of_cell)
                for indices in shards(cell.samples)
            )
        return self._images[cell.digest]

    def _extracted(self, cell: Cell, extractor: Extractor, images: tuple[Sample, ...]) -> tuple[Shard, ...]:
        key = (cell.digest, extractor.name)
        if key not in self._features:
            self._features[key] = tuple(Features(extractor, each) for each in images)
        return self._features[key]

    def _reference(self, cell: Cell, metric: Metric, extractor: Extractor | None) -> Reference | None:
        if metric.against is not Against.REFERENCE or extractor is None:
            return None
        key = (cell.full_precision.digest, extractor.name)
        if key not in self._references:
            reference = Reference(cell.workload, extractor)
            try:
                _ = reference.digest
            except DataError as error:
                raise SuiteError(f"{self._path}: {metric.name} on {cell.workload_label}: {error}") from error
            self._references[key] = reference
        return self._references[key]

    def _extractor(self, cell: Cell, metric: Metric) -> Extractor | None:
        name = metric.need.extractor
        if name is None:
            return None
        if name not in self._extractors:
            place = f"{self._path}: the extractor {name!r} that {metric.name!r} needs"
            self._extractors[name] = create(plugins.EXTRACTORS, name, Extractor, {}, lambda _: place, SuiteError)
        extractor = self._extractors[name]
        if metric.need.feature not in extractor.features:
            raise SuiteError(
                f"{self._path}: {metric.name} needs the feature {metric.need.feature!r}, which the extractor {name!r} "
                f"has not: {did_you_mean(metric.need.feature, list(extractor.features))}"
            )
        if extractor.image_shape != cell.workload.image_shape:
            raise SuiteError(
                f"{self._path}: {metric.name} cannot be computed on {cell.workload_label}: the extractor {name!r} "
                f"takes images of shape {extractor.image_shape}, not {cell.workload.image_shape}"
            )
        return extractor


def _quantized(cell: Cell) -> Quantized:
    if cell.method is None:
        return Quantized()
    return quantized(Assignment(cell.workload, cell.method, cell.bits, cell.boundary_bits, cell.seed))
