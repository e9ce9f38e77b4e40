"""A method that works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qbench import quant
from qbench.method import BitWidth, CalibrationData, CalibrationRequest, Method, Target, UniformSteps, needed

if TYPE_CHECKING:
    from qbench.quant import QuantModel


class Good(Method):
    """Symmetric grids."""

    title = "symmetric grids"

    def calibration(self, target: Target) -> CalibrationRequest | None:
        return UniformSteps(steps=2, per_step=8) if target == "activations" else None

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        quant.set_weight_grids(model, quant.WeightRanges(symmetric=True))

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        quant.set_input_grids(model, needed(data), quant.ActivationRanges(symmetric=True))
