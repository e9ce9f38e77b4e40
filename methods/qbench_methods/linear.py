"""Linear quantization: round to nearest between minimum and maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench import quant
from qbench.bits import SOFTMAX_BITS
from qbench.method import (
    BitWidth,
    CalibrationData,
    CalibrationRequest,
    Method,
    Settings,
    Target,
    UniformSteps,
    needed,
)
from qbench.quant.recipes import ActivationRanges, WeightRanges

if TYPE_CHECKING:
    from qbench.quant import QuantModel


class LinearSettings(Settings):
    """Settings of linear quantization."""

    calibration: Annotated[CalibrationRequest, Field(description="what activation ranges are taken from")] = (
        UniformSteps()
    )
    weights: Annotated[WeightRanges, Field(description="how grids of weights are chosen")] = WeightRanges()
    activations: Annotated[ActivationRanges, Field(description="how grids of activations are chosen")] = (
        ActivationRanges()
    )


class Linear(Method):
    """Asymmetric uniform grids from extremes: each output channel's for weights, each tensor's for activations.

    The baseline that papers call "Linear Quant" or plain post-training quantization. Weights need no data. Ranges of
    activations, the operands of attention among them, are the extremes over all calibration steps, in the network
    whose weights are already quantized; one static range serves all steps.
    """

    settings_class = LinearSettings
    title = "Linear Quant: per-channel min-max weights, per-tensor min-max activations"
    paper = "Krishnamoorthi 2018, arXiv 1806.08342, section 3"
    revision = 2
    presets: ClassVar = {"strict": {}, "fast": {"calibration": {"per_step": 25}}}
    softmax_bits = SOFTMAX_BITS
    settings: LinearSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return the calibration request: only activations need one."""
        return self.settings.calibration if target == "activations" else None

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Round each weight to the nearest point of its channel's grid."""
        quant.set_weight_grids(model, self.settings.weights)

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Give each activation the grid of what it met in calibration."""
        quant.set_input_grids(model, needed(data), self.settings.activations)
