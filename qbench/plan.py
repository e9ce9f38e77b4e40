"""From cells to a deduplicated graph of stages, and what of it is still to do."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from qbench import plugins
from qbench.cell import Cell
from qbench.errors import SuiteError
from qbench.metrics.extractor import Extractor
from qbench.metrics.metric import Against, Metric
from qbench.plugin import create
from qbench.stages.features import Features
from qbench.stages.profile import Profile
from qbench.stages.quantize import Assignment, Quantized, quantized
from qbench.stages.reference import Reference
from qbench.stages.sample import Sample, shards
from qbench.stages.score import Score, Shard
from qbench.stages.stage import Stage
from qbench.store import Store


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


def make_plan(cells: Iterable[Cell]) -> Plan:
    """Return the plan of some cells.

    Raises:
        PluginError: a metric needs an extractor that nobody offers or that cannot be imported.
        SuiteError: a metric and a workload do not fit each other.
    """
    planner = _Planner()
    return Plan(tuple(planner.plan(cell) for cell in cells))


def _inputs_first(stage: Stage, known: dict[str, Stage]) -> Iterator[Stage]:
    if stage.digest in known:
        return
    for each in stage.inputs().values():
        yield from _inputs_first(each, known)
    yield stage


class _Planner:
    """Makes each stage object once, so that no digest is taken twice."""

    def __init__(self) -> None:
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
            extractor = self._extractor(metric)
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
        key = (cell.workload_label, extractor.name)
        if key not in self._references:
            self._references[key] = Reference(cell.workload, extractor)
        return self._references[key]

    def _extractor(self, metric: Metric) -> Extractor | None:
        name = metric.need.extractor
        if name is None:
            return None
        if name not in self._extractors:
            place = f"the extractor {name!r} that {metric.name!r} needs"
            self._extractors[name] = create(plugins.EXTRACTORS, name, Extractor, {}, lambda _: place, SuiteError)
        return self._extractors[name]


def _quantized(cell: Cell) -> Quantized:
    if cell.method is None:
        return Quantized()
    return quantized(Assignment(cell.workload, cell.method, cell.bits, cell.boundary_bits, cell.seed))
