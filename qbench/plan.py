"""From cells to a deduplicated graph of stages, and what of it is still to do."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from qbench import plugins
from qbench.cell import Cell
from qbench.errors import DataError, SuiteError, did_you_mean
from qbench.identity import canonical_json
from qbench.metrics.extractor import Extractor
from qbench.metrics.metric import Against, Metric, Need, RowsMetric
from qbench.plugin import blaming, create
from qbench.stages.curve import CURVE_SAMPLES, Curve
from qbench.stages.features import Features
from qbench.stages.imported import Imported
from qbench.stages.latency import Latency
from qbench.stages.profile import Profile
from qbench.stages.quantize import Assignment
from qbench.stages.quantized import Quantized, quantized
from qbench.stages.reference import Reference
from qbench.stages.sample import Sample, shards
from qbench.stages.score import Score, Shard
from qbench.stages.stage import Stage
from qbench.store import Store
from qbench.suite import Suite
from qbench.workload import ImageSet


@dataclass(frozen=True)
class CellPlan:
    """What has to be there for a cell to be complete.

    Attributes:
        cell: the cell.
        profile: its profile; None where images come from elsewhere, so that no denoiser is known.
        curve: its error at each step; None in full precision and for images that were made elsewhere.
        shards: its images.
        scores: its figures by metric id; a full-precision cell has none of those that compare with full precision.
        missing: metrics that cannot be computed, such as for want of weights, with the reason.
        latency: the time of its denoiser, where the suite asks for it; a cell is complete without it if it fails.
    """

    cell: Cell
    profile: Profile | None
    curve: Curve | None
    shards: tuple[Sample, ...]
    scores: dict[str, Score]
    missing: dict[str, str]
    latency: Latency | None = None

    @property
    def targets(self) -> tuple[Stage, ...]:
        """Profile, scores, curve and latency."""
        found = (self.profile, *self.scores.values(), self.curve, self.latency)
        return tuple(each for each in found if each is not None)

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """Every stage the cell needs, by digest, inputs first; those of its full-precision cell are among them."""
        found: dict[str, Stage] = {}
        for target in self.targets:
            found |= {stage.digest: stage for stage in _inputs_first(target, found)}
        return found

    @cached_property
    def own_stages(self) -> dict[str, Stage]:
        """The stages that make the cell's own images, figures and curve."""
        found: dict[str, Stage] = {}
        for image_shard in self.shards:
            found |= {stage.digest: stage for stage in _inputs_first(image_shard, found)}
        for score in self.scores.values():
            for shard in score.shards:
                found |= {stage.digest: stage for stage in _inputs_first(shard, found)}
            if score.reference is not None:
                found[score.reference.digest] = score.reference
            found[score.digest] = score
        for target in (self.profile, self.curve, self.latency):
            if target is not None:
                found[target.digest] = target
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
        self._extractors: dict[tuple[str, str], Extractor] = {}
        self._missing: dict[tuple[str, str], str] = {}
        self._quantizations: dict[tuple[str, str], Quantized] = {}
        self._images: dict[tuple[str, str], tuple[Sample, ...]] = {}
        self._features: dict[tuple[str, str, tuple[str, str]], tuple[Features, ...]] = {}
        self._references: dict[tuple[str, tuple[str, str]], Reference] = {}

    def plan(self, cell: Cell) -> CellPlan:
        self._check_captions(cell)
        is_sampled_here = self._images_made_elsewhere(cell) is None
        of_cell = self._quantized(cell) if is_sampled_here else Quantized()
        profile = Profile(cell.workload, cell.bits, cell.boundary_bits, of_cell) if is_sampled_here else None
        samples = min(CURVE_SAMPLES, cell.samples)
        has_curve = cell.method is not None and is_sampled_here
        curve = Curve(cell.workload, cell.seed, samples, of_cell) if has_curve else None
        has_latency = cell.latency and is_sampled_here
        latency = Latency(cell.workload, cell.bits, cell.boundary_bits, cell.seed, of_cell) if has_latency else None
        scores, missing = {}, {}
        for metric in cell.metrics:
            if not _can_be_compared(cell, metric):
                continue
            try:
                for asset in metric.assets():
                    asset.require()
                score = self._score(cell, metric)
                _ = score.digest  # for which the digest of weights is asked
            except DataError as error:
                missing[metric.name] = str(error)
            else:
                scores[metric.name] = score
        return CellPlan(cell, profile, curve, self._sampled(cell), scores, missing, latency)

    def _check_captions(self, cell: Cell) -> None:
        workload = cell.workload
        place = f"{self._path}: {cell.workload_label}"
        try:
            if workload.has_captions:
                workload.captions(range(cell.samples))
                workload.calibration_captions(range(1))
                return
        except DataError as error:
            raise SuiteError(f"{place}: {error}") from error
        if workload.sampler.guidance_scale != 1.0:
            raise SuiteError(
                f"{place}: it samples without captions, so a guidance_scale of {workload.sampler.guidance_scale:g} has "
                "nothing to guide by: leave it 1"
            )

    def _images_made_elsewhere(self, cell: Cell) -> ImageSet | None:
        images = cell.method.images() if cell.method is not None else None
        if images is not None and images.count < cell.samples:
            raise SuiteError(
                f"{self._path}: {cell.label}: {images.name!r} holds {images.count} images, "
                f"and the suite asks for {cell.samples} samples"
            )
        if images is not None:
            shape = images.read([0]).shape[1:]
            if shape != cell.workload.image_shape:
                raise SuiteError(
                    f"{self._path}: {cell.label}: the images of {images.name!r} have the shape {shape}, "
                    f"and those of {cell.workload_label} {cell.workload.image_shape}"
                )
        return images

    def _score(self, cell: Cell, metric: Metric) -> Score:
        baseline: Score | None = None
        paired: tuple[Shard, ...] = ()
        if metric.against is Against.FULL_PRECISION:
            paired = self._shards(cell.full_precision, metric)
        elif cell.method is not None:
            baseline = self._score(cell.full_precision, metric)
        return Score(metric, self._shards(cell, metric), baseline, paired, self._reference(cell, metric))

    def _sampled(self, cell: Cell) -> tuple[Sample, ...]:
        key = (cell.workload_label, cell.digest)
        if key not in self._images:
            make: Callable[..., Sample] = partial(Sample, quantized=Quantized())
            if self._images_made_elsewhere(cell) is not None:
                assert cell.method is not None
                make = partial(Imported, quantized=Quantized(), method=cell.method)
            elif cell.method is not None:
                make = partial(Sample, quantized=self._quantized(cell))
            self._images[key] = tuple(
                make(cell.workload, cell.seed, indices.start, indices.stop) for indices in shards(cell.samples)
            )
        return self._images[key]

    def _quantized(self, cell: Cell) -> Quantized:
        if cell.method is None:
            return Quantized()
        key = (cell.workload_label, cell.digest)
        if key not in self._quantizations:
            assignment = Assignment(cell.workload, cell.method, cell.bits, cell.boundary_bits, cell.seed)
            self._quantizations[key] = quantized(assignment)
        return self._quantizations[key]

    def _shards(self, cell: Cell, metric: Metric) -> tuple[Shard, ...]:
        """Return what a metric reads: images, or features of them."""
        images = self._sampled(cell)
        extractor = self._extractor(cell, metric)
        if extractor is None:
            return images
        key = (cell.workload_label, cell.digest, _key(metric.need))
        if key not in self._features:
            self._features[key] = tuple(Features(extractor, each) for each in images)
        return self._features[key]

    def _reference(self, cell: Cell, metric: Metric) -> Reference | None:
        extractor = self._extractor(cell, metric)
        if metric.against is not Against.REFERENCE or extractor is None:
            return None
        key = (cell.workload_label, _key(metric.need))
        place = f"{self._path}: {metric.name} on {cell.workload_label}"
        if key not in self._references:
            reference = Reference(cell.workload, extractor)
            try:
                _ = reference.digest
            except DataError as error:
                raise SuiteError(f"{place}: {error}") from error
            self._references[key] = reference
        if isinstance(metric, RowsMetric) and not self._references[key].has_features:
            raise SuiteError(f"{place}: it needs the real images' features, and there are only statistics of them")
        if metric.need.feature not in self._references[key].features:
            raise DataError(
                f"{place}: the statistics of {self._references[key].title} lack the feature {metric.need.feature!r}: "
                "give others, or the images themselves"
            )
        return self._references[key]

    def _extractor(self, cell: Cell, metric: Metric) -> Extractor | None:
        name = metric.need.extractor
        if name is None:
            return None
        key = _key(metric.need)
        if key not in self._extractors:
            place = f"{self._path}: the extractor {name!r} that {metric.name!r} needs"
            self._extractors[key] = create(
                plugins.EXTRACTORS, name, Extractor, metric.need.settings, lambda _: place, SuiteError
            )
            try:
                self._extractors[key].weights()
            except DataError as error:  # asked for once: large files may be read for it
                self._missing[key] = str(error)
        if key in self._missing:
            raise DataError(self._missing[key])
        extractor = self._extractors[key]
        if metric.need.feature not in extractor.features:
            raise SuiteError(
                f"{self._path}: {metric.name} needs the feature {metric.need.feature!r}, which the extractor {name!r} "
                f"has not: {did_you_mean(metric.need.feature, list(extractor.features))}"
            )
        if not extractor.takes(cell.workload.image_shape):
            raise SuiteError(
                f"{self._path}: {metric.name} cannot be computed on {cell.workload_label}: the extractor {name!r} "
                f"takes images of shape {extractor.shapes_in_words()}, not {cell.workload.image_shape}"
            )
        if extractor.needs_captions:
            try:
                cell.workload.captions(range(1))
            except DataError as error:
                raise SuiteError(f"{self._path}: {metric.name} on {cell.workload_label}: {error}") from error
        return extractor


def _can_be_compared(cell: Cell, metric: Metric) -> bool:
    """Whether a cell has what a metric compares: other images of the same noise, if it asks for them."""
    if metric.against is not Against.FULL_PRECISION:
        return True
    return cell.method is not None and cell.method.has_same_noise


def _key(need: Need) -> tuple[str, str]:
    return need.extractor or "", canonical_json(dict(need.settings))
