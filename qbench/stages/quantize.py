"""Stages ``weights`` and ``activations``: a method at work on a denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.bits import FULL_PRECISION_BITS, BitWidth
from qbench.errors import StageError
from qbench.method import Method
from qbench.stages.stage import Stage, Work
from qbench.stages.trajectory import FILE as TRAJECTORY_FILE
from qbench.stages.trajectory import Trajectory
from qbench.workload import Workload

if TYPE_CHECKING:
    import torch

    from qbench.method import CalibrationData
    from qbench.quant import QuantModel


@dataclass(frozen=True)
class Weights(Stage):
    """A method's quantized weights, packed.

    Attributes:
        workload: with its sampler.
        method: with its settings.
        bits: of the cell; activation bits are 32 unless the method says that they enter.
        boundary_bits: weight bits of the first and last layer, or None.
        seed: of calibration noise.
    """

    workload: Workload
    method: Method
    bits: BitWidth
    boundary_bits: int | None
    seed: int
    kind: ClassVar[str] = "weights"

    @property
    def title(self) -> str:
        """A few words."""
        return f"{self.method.name} W{self.bits.weights} on {self.workload.name} seed {self.seed}"

    @property
    def group(self) -> str:
        """One workload and method."""
        return f"{self.workload.name} {self.method.name}"

    def parameters(self) -> dict[str, Any]:
        """Workload, method, bits, boundary_bits, seed."""
        return {
            "workload": self.workload.describe(),
            "method": self.method.describe(),
            "bits": str(self.bits),
            "boundary_bits": self.boundary_bits,
            "seed": self.seed,
        }

    def inputs(self) -> Mapping[str, Stage]:
        """The trajectory, if the method asks for one."""
        return _trajectory(self.workload, self.method, "weights", self.seed)

    def compute(self, work: Work) -> None:
        """Write the packed checkpoint."""
        from qbench.quant.packing import save_weights
        from qbench.stages.denoiser import WEIGHTS, load_denoiser

        device = work.runtime.torch_device()
        model = load_denoiser(self.workload, device, {}, self.bits, self.boundary_bits).model
        self.method.quantize_weights(model, _data(work, device), self.bits)
        _check_bits(model, self.method)
        save_weights(model, work.folder / WEIGHTS)


@dataclass(frozen=True)
class Activations(Stage):
    """A method's grids for the inputs of layers.

    Attributes:
        workload: with its sampler.
        method: with its settings.
        bits: of the cell.
        boundary_bits: weight bits of the first and last layer, or None.
        seed: of calibration noise.
        weights: the cell's quantized weights, None where they are in full precision.
    """

    workload: Workload
    method: Method
    bits: BitWidth
    boundary_bits: int | None
    seed: int
    weights: Weights | None
    kind: ClassVar[str] = "activations"

    @property
    def title(self) -> str:
        """A few words."""
        return f"{self.method.name} {self.bits} on {self.workload.name} seed {self.seed}"

    @property
    def work(self) -> float:
        """Calibration samples."""
        request = self.method.calibration("activations")
        return 1.0 if request is None else float(min(request.steps, self.workload.sampler.steps) * request.per_step)

    @property
    def group(self) -> str:
        """One workload and method."""
        return f"{self.workload.name} {self.method.name}"

    def parameters(self) -> dict[str, Any]:
        """Workload, method, bits, boundary_bits, seed."""
        return {
            "workload": self.workload.describe(),
            "method": self.method.describe(),
            "bits": str(self.bits),
            "boundary_bits": self.boundary_bits,
            "seed": self.seed,
        }

    def inputs(self) -> Mapping[str, Stage]:
        """The weights and the trajectory, where there are any."""
        weights = {} if self.weights is None else {"weights": self.weights}
        return {**weights, **_trajectory(self.workload, self.method, "activations", self.seed)}

    def compute(self, work: Work) -> None:
        """Write the grids."""
        from qbench.quant.packing import save_input_grids
        from qbench.stages.denoiser import INPUT_GRIDS, load_denoiser

        device = work.runtime.torch_device()
        model = load_denoiser(self.workload, device, work.inputs, self.bits, self.boundary_bits).model
        self.method.quantize_activations(model, _data(work, device), self.bits)
        _check_bits(model, self.method)
        save_input_grids(model, work.folder / INPUT_GRIDS)


def _trajectory(workload: Workload, method: Method, target: Any, seed: int) -> dict[str, Stage]:
    request = method.calibration(target)
    return {} if request is None else {"trajectory": Trajectory(workload, request, seed)}


def _data(work: Work, device: torch.device) -> CalibrationData | None:
    from safetensors.torch import load_file

    from qbench.method import CalibrationData

    if "trajectory" not in work.inputs:
        return None
    tensors = load_file(work.inputs["trajectory"].file(TRAJECTORY_FILE), device=str(device))
    return CalibrationData(
        tensors["x"], tensors["timestep"], tensors["step_index"], work.runtime.batch_size, work.report
    )


def _check_bits(model: QuantModel, method: Method) -> None:
    """Refuse grids of more bits than the harness gave, and grids that hold NaN or infinity."""
    for name, layer in model.layers.items():
        for what, grid, given in (
            ("weight", layer.weight_grid, layer.bits.weights),
            ("input", layer.input_grid, layer.bits.activations),
        ):
            if grid is None:
                continue
            if given == FULL_PRECISION_BITS or grid.bits > given:
                raise StageError(
                    f"{method.name} gave the {what} of {name!r} {grid.bits} bits where the cell says {given}"
                )
            if not bool(grid.scale.isfinite().all() and grid.zero_point.isfinite().all()):
                raise StageError(f"{method.name} gave the {what} of {name!r} a grid that is not finite")
