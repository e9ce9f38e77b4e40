"""The memory that the calibration of a plan's workloads will take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qbench.errors import QbenchError
from qbench.plugin import blaming
from qbench.quant.recipes import ActivationRanges
from qbench.stages.correction import Correction
from qbench.stages.quantize import Activations, Weights
from qbench.stages.stage import Runtime, Stage

if TYPE_CHECKING:
    from qbench.memory.outline import Moment, Outline
    from qbench.method import Target
    from qbench.plan import Plan
    from qbench.quant.memory_profile import MemoryProfile
    from qbench.workload import Workload

CalibrationStage = Weights | Activations | Correction

LIBRARIES_BYTES = 900_000_000
"""What a process holds once torch, diffusers and transformers are imported."""
HOST_SHARE = 0.75
"""On a processor, what convolutions need within themselves and what the allocator does not give back, as a share of the
work: measured were 0.4 to 1.6 where the work is more than 0.4 GB."""


@dataclass(frozen=True)
class CalibrationMemory:
    """The most memory that one stage will hold, in bytes, on the device that it is computed on.

    Counted is what tensors hold at once. Not counted are the libraries, what convolutions need within themselves, what
    allocators do not give back, and first stage and text encoder, which stay on the host.

    Attributes:
        title: of the stage.
        kind: of the stage.
        model: the denoiser's parameters, weights twice where they are rounded.
        data: the calibration data.
        running_state: the part of the network's running state that is kept in memory.
        work: activations and gradients, and what is learned.
        moment: what goes on when it is most.
        in_files: the most of the running state that goes to files, at whichever moment; it takes no memory, as the
            system writes it out where memory is short, but as much room on the disk.
    """

    title: str
    kind: str
    model: int
    data: int
    running_state: int
    work: int
    moment: str
    in_files: int

    @property
    def total(self) -> int:
        """All of it, files aside."""
        return self.model + self.data + self.running_state + self.work

    @property
    def process(self) -> int:
        """What the process takes in all where there is no accelerator."""
        return LIBRARIES_BYTES + self.total + int(HOST_SHARE * self.work)


@dataclass(frozen=True)
class WorkloadMemory:
    """What the stages that calibrate a workload will hold.

    Attributes:
        workload: how its rows are named.
        stages: one entry for each; empty if there is no estimate.
        reason: why there is no estimate.
    """

    workload: str
    stages: tuple[CalibrationMemory, ...]
    reason: str = ""

    @property
    def heaviest(self) -> CalibrationMemory:
        """The stage that holds most."""
        return max(self.stages, key=lambda each: each.total)

    @property
    def in_files(self) -> int:
        """The most that a stage puts in files."""
        return max(each.in_files for each in self.stages)


def memory_of_plan(plan: Plan, missing: Mapping[str, Stage], runtime: Runtime) -> list[WorkloadMemory]:
    """Return the estimates for each workload that has something to calibrate, in the order of the plan.

    Args:
        plan: the plan.
        missing: the stages that must be computed, by digest.
        runtime: how.
    """
    workloads: dict[str, Workload] = {}
    stages: dict[str, dict[str, CalibrationStage]] = {}
    for each in plan.cells:
        for digest, stage in each.stages.items():
            if digest in missing and isinstance(stage, CalibrationStage):
                workloads[each.cell.workload_label] = each.cell.workload
                stages.setdefault(each.cell.workload_label, {})[digest] = stage
    return [memory_of_workload(label, workloads[label], found.values(), runtime) for label, found in stages.items()]


def memory_of_workload(
    label: str, workload: Workload, stages: Iterable[CalibrationStage], runtime: Runtime
) -> WorkloadMemory:
    """Return the estimates for some stages of one workload.

    Args:
        label: how its rows are named.
        workload: the workload.
        stages: of it.
        runtime: how they will be computed.
    """
    try:
        with blaming(f"the workload {label!r}, run without values,"):
            from qbench.memory.outline import Outline

            estimates = _Estimates(Outline(workload.skeleton(), workload.latent_shape), runtime)
            return WorkloadMemory(label, tuple(estimates.of(stage) for stage in stages))
    except QbenchError as error:
        return WorkloadMemory(label, (), str(error))


class _Estimates:
    """Estimates for stages of one workload; those that do the same work are looked at once."""

    def __init__(self, outline: Outline, runtime: Runtime) -> None:
        self._outline = outline
        self._runtime = runtime
        self._known: dict[tuple[MemoryProfile, int], list[Moment]] = {}

    def of(self, stage: CalibrationStage) -> CalibrationMemory:
        """Return the estimate for a stage."""
        target = _target(stage)
        profile = stage.assignment.method.memory_profile(target)
        rows = _rows(stage, target)
        if (profile, rows) not in self._known:
            self._known[profile, rows] = self._moments(profile, rows)
        moments = self._known[profile, rows]
        cache = self._runtime.cache_bytes
        heaviest = max(moments, key=lambda moment: moment.work + min(moment.running_state, cache))
        is_rounded = isinstance(stage, Weights) or stage.weights is not None
        return CalibrationMemory(
            title=stage.title,
            kind=stage.kind,
            model=self._outline.parameter_bytes + (self._outline.weight_bytes if is_rounded else 0),
            data=rows * self._outline.row_bytes,
            running_state=min(heaviest.running_state, cache),
            work=heaviest.work,
            moment=heaviest.what,
            in_files=max(0, *(moment.running_state - cache for moment in moments)),
        )

    def _moments(self, profile: MemoryProfile, rows: int) -> list[Moment]:
        from qbench.memory.outline import Amount

        if not rows:
            return [self._outline.searching()]
        amount = Amount(rows, self._runtime.rows)
        is_by_unit = profile.recipe is not None or profile.hessians
        found = self._outline.learning(profile, amount) if is_by_unit else []
        if profile.ranges is not None or not found:
            found.append(self._outline.observing(profile.ranges or ActivationRanges(), amount))
        return found


def _target(stage: CalibrationStage) -> Target:
    if isinstance(stage, Weights):
        return "weights"
    return "activations" if isinstance(stage, Activations) else "correction"


def _rows(stage: CalibrationStage, target: Target) -> int:
    """Return how many rows of calibration data a stage is given: where it is guided, each comes twice."""
    trajectory = stage.assignment.trajectory(target)
    if trajectory is None:
        return 0
    workload = stage.assignment.workload
    return trajectory.size * (2 if workload.has_captions and workload.sampler.guidance_scale != 1.0 else 1)
