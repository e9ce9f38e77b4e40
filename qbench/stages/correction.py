"""Stage ``correction``: what a method has the sampler take back of the denoiser's error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from qbench.errors import StageError
from qbench.stages.conversion import model_inputs
from qbench.stages.quantize import (
    Activations,
    Assignment,
    Weights,
    calibration_batches,
    most_rows,
    prepared,
    stage_title,
)
from qbench.stages.stage import Stage, Work


@dataclass(frozen=True)
class Correction(Stage):
    """A method's correction of the quantized denoiser's output at each step.

    Attributes:
        assignment: what the method is to do.
        weights: the cell's quantized weights, None where they are in full precision.
        activations: the cell's grids of activations, None where they are in full precision.
    """

    assignment: Assignment
    weights: Weights | None
    activations: Activations | None
    kind: ClassVar[str] = "correction"
    groups_are_alike: ClassVar[bool] = False

    @property
    def title(self) -> str:
        """A few words."""
        return stage_title(self.assignment, "correction")

    @property
    def group(self) -> str:
        """One workload and method."""
        return self.assignment.group

    def parameters(self) -> dict[str, Any]:
        """What the method is to do."""
        return self.assignment.describe("correction")

    def inputs(self) -> Mapping[str, Stage]:
        """What is quantized, the trajectory and the converted checkpoint, where there are any."""
        trajectory = self.assignment.trajectory("correction")
        given = {"weights": self.weights, "activations": self.activations, "trajectory": trajectory}
        found = {name: stage for name, stage in given.items() if stage is not None}
        return {**found, **model_inputs(self.assignment.workload)}

    def compute(self, work: Work) -> None:
        """Write slope, bias and variance of each step.

        Raises:
            StageError: the method's correction is none, or is for other steps or latents than the sampler's.
        """
        from qbench.diffusion.correction_file import save_correction
        from qbench.diffusion.step_correction import StepCorrection
        from qbench.stages.denoiser import CORRECTION

        method, workload = self.assignment.method, self.assignment.workload

        def run(batch_size: int) -> None:
            model, data, bits = prepared(self.assignment, work, "correction", batch_size)
            correction = method.correct(model, data, bits)
            if not isinstance(correction, StepCorrection):
                raise StageError(f"{method.name} gave a {type(correction).__name__} in place of a step correction")
            correction.check(workload.sampler.calls, workload.latent_shape[0])
            save_correction(correction, work.folder / CORRECTION)

        calibration_batches(self.assignment, work).whole(most_rows(self), run)
