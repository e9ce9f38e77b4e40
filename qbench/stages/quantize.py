"""Stages ``weights`` and ``activations``: a method fills in the grids of a denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.bits import FULL_PRECISION_BITS, BitWidth
from qbench.identity import digest
from qbench.method import Method, Target
from qbench.stages.conversion import model_inputs
from qbench.stages.inspection import inspect, inspect_replacements
from qbench.stages.stage import DEFAULT_BATCH_SIZE, Stage, Work
from qbench.stages.trajectory import FILE as TRAJECTORY_FILE
from qbench.stages.trajectory import Trajectory
from qbench.workload import Workload

if TYPE_CHECKING:
    import torch

    from qbench.method import CalibrationData
    from qbench.quant import QuantModel
    from qbench.stages.batching import Batches


@dataclass(frozen=True)
class Assignment:
    """What a method is to do.

    Attributes:
        workload: with its sampler.
        method: with its settings.
        bits: to quantize to.
        boundary_bits: weight bits of the first and last layer, or None.
        seed: of calibration noise.
    """

    workload: Workload
    method: Method
    bits: BitWidth
    boundary_bits: int | None
    seed: int

    @property
    def group(self) -> str:
        """One workload and method with its settings."""
        return f"{self.workload.name} {self.method.name} {digest(self.method.settings.model_dump(mode='json'))[:8]}"

    def describe(self, target: Target) -> dict[str, Any]:
        """Return what decides the result for a target."""
        method = self.method.describe()
        if target != "correction" and self.method.correction_settings:
            of_correction = self.method.correction_settings
            kept = {name: value for name, value in method["settings"].items() if name not in of_correction}
            method = {**method, "settings": kept}
        return {
            "workload": self.workload.describe(),
            "method": method,
            "bits": str(self.bits_for(target)),
            "boundary_bits": self.boundary_bits,
            "seed": self.seed,
        }

    def bits_for(self, target: Target) -> BitWidth:
        """Return the bits that enter: a method's weights usually do not depend on the bits of activations."""
        if target != "weights" or self.method.weights_depend_on_activations:
            return self.bits
        return BitWidth(self.bits.weights, FULL_PRECISION_BITS)

    def trajectory(self, target: Target) -> Trajectory | None:
        """Return the calibration data that the method asks for."""
        if target not in self._trajectories:  # made once: it takes its digest once, and is asked for again and again
            request = self.method.calibration(target)
            made = None if request is None else Trajectory(self.workload, request, self.seed)
            self._trajectories[target] = made
        return self._trajectories[target]

    @cached_property
    def _trajectories(self) -> dict[Target, Trajectory | None]:
        return {}


@dataclass(frozen=True)
class Weights(Stage):
    """A method's quantized weights, packed.

    Attributes:
        assignment: what the method is to do.
    """

    assignment: Assignment
    kind: ClassVar[str] = "weights"
    revision: ClassVar[int] = 2
    groups_are_alike: ClassVar[bool] = False

    @property
    def title(self) -> str:
        """A few words."""
        return stage_title(self.assignment, "weights")

    @property
    def group(self) -> str:
        """One workload and method."""
        return self.assignment.group

    def parameters(self) -> dict[str, Any]:
        """What the method is to do."""
        return self.assignment.describe("weights")

    def inputs(self) -> Mapping[str, Stage]:
        """The trajectory, if the method asks for one, and the converted checkpoint, where there is one."""
        trajectory = self.assignment.trajectory("weights")
        given = {} if trajectory is None else {"trajectory": trajectory}
        return {**given, **model_inputs(self.assignment.workload)}

    def compute(self, work: Work) -> None:
        """Write the packed checkpoint."""
        from qbench.quant.packing import save_weights
        from qbench.stages.denoiser import WEIGHTS

        def run(batch_size: int) -> None:
            model, data, bits = prepared(self.assignment, work, "weights", batch_size)
            self.assignment.method.quantize_weights(model, data, bits)
            inspect(model, self.assignment.method)
            save_weights(model, work.folder / WEIGHTS)

        calibration_batches(self.assignment, work).whole(most_rows(self), run)


@dataclass(frozen=True)
class Activations(Stage):
    """A method's grids for the inputs of layers and the operands of attention.

    Attributes:
        assignment: what the method is to do.
        weights: the cell's quantized weights, None where they are in full precision.
    """

    assignment: Assignment
    weights: Weights | None
    kind: ClassVar[str] = "activations"
    revision: ClassVar[int] = 2
    groups_are_alike: ClassVar[bool] = False

    @property
    def title(self) -> str:
        """A few words."""
        return stage_title(self.assignment, "activations")

    @property
    def group(self) -> str:
        """One workload and method."""
        return self.assignment.group

    def parameters(self) -> dict[str, Any]:
        """What the method is to do."""
        return self.assignment.describe("activations")

    def inputs(self) -> Mapping[str, Stage]:
        """The weights, the trajectory and the converted checkpoint, where there are any."""
        given = {"weights": self.weights, "trajectory": self.assignment.trajectory("activations")}
        found = {name: stage for name, stage in given.items() if stage is not None}
        return {**found, **model_inputs(self.assignment.workload)}

    def compute(self, work: Work) -> None:
        """Write the grids."""
        from qbench.quant.packing import save_input_grids
        from qbench.stages.denoiser import INPUT_GRIDS

        def run(batch_size: int) -> None:
            model, data, bits = prepared(self.assignment, work, "activations", batch_size)
            replaced = {name: layer.replacement for name, layer in model.layers.items()}
            self.assignment.method.quantize_activations(model, data, bits)
            inspect(model, self.assignment.method)
            inspect_replacements(model, replaced, self.assignment.method)
            save_input_grids(model, work.folder / INPUT_GRIDS)

        calibration_batches(self.assignment, work).whole(most_rows(self), run)


def stage_title(assignment: Assignment, target: Target) -> str:
    """Return a few words: the method and the bits that enter."""
    return f"{assignment.method.name} {assignment.bits_for(target)}"


def calibration_batches(assignment: Assignment, work: Work) -> Batches:
    """Return the rows that calibration may take at a time: the same on every device, as methods may depend on it."""
    from qbench.stages.batching import Batches

    what = f"calibrating {assignment.method.name} on {assignment.workload.name}"
    return Batches(work, what, work.runtime.torch_device(), DEFAULT_BATCH_SIZE)


def most_rows(stage: Stage) -> int:
    """Return how many rows of calibration data there are at most: a guided denoiser's come twice."""
    trajectory = stage.inputs().get("trajectory")
    return 2 * trajectory.size if isinstance(trajectory, Trajectory) else 0


def prepared(
    assignment: Assignment, work: Work, target: Target, batch_size: int
) -> tuple[QuantModel, CalibrationData | None, BitWidth]:
    """Return the denoiser as it is so far, what the method asked to be calibrated on, and the bits that enter.

    Args:
        assignment: what the method is to do.
        work: of the stage.
        target: what is to be found.
        batch_size: rows of calibration data at a time.
    """
    from safetensors.torch import load_file

    from qbench.method import CalibrationData
    from qbench.stages.calibration_context import conditioned_rows
    from qbench.stages.denoiser import load_denoiser

    bits = assignment.bits_for(target)
    device: torch.device = work.runtime.torch_device()
    model = load_denoiser(assignment.workload, device, work.inputs, bits, assignment.boundary_bits).model
    if "trajectory" not in work.inputs:
        return model, None, bits
    rows, context = conditioned_rows(load_file(work.inputs["trajectory"].file(TRAJECTORY_FILE), device=str(device)))
    data = CalibrationData(
        x=rows["x"],
        timesteps=rows["timestep"],
        step_indices=rows["step_index"],
        context=context,
        batch_size=batch_size,
        report=work.report,
        seed=assignment.seed,
        cache_bytes=work.runtime.cache_bytes,
        scratch=work.folder,
        calls=assignment.workload.sampler.calls,
        guidance_scale=assignment.workload.sampler.guidance_scale if context else 1.0,
    )
    return model, data, bits
