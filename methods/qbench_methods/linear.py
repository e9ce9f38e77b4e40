"""Linear quantization: round to nearest between minimum and maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench import quant
from qbench.bits import FULL_PRECISION_BITS
from qbench.method import BitWidth, CalibrationData, CalibrationRequest, Method, Settings, Target, UniformSteps

if TYPE_CHECKING:
    from qbench.quant import QuantModel


class LinearSettings(Settings):
    """Settings of linear quantization."""

    calibration: Annotated[UniformSteps, Field(description="what activation ranges are taken from")] = UniformSteps()


class Linear(Method):
    """Asymmetric uniform grids from extremes: each output channel's for weights, each layer's for its input.

    The baseline that papers call "Linear Quant" or plain post-training quantization. Weights need no data. Ranges of
    inputs are the extremes over all calibration steps, in the network whose weights are already quantized; one static
    range serves all steps.
    """

    settings_class = LinearSettings
    title = "Linear Quant: per-channel min-max weights, per-tensor min-max activations"
    paper = "Krishnamoorthi 2018, arXiv 1806.08342, section 3"
    presets: ClassVar = {"strict": {}}
    settings: LinearSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return the calibration request: only activations need one."""
        return self.settings.calibration if target == "activations" else None

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Give each layer's weight the grid of its channels' extremes."""
        for layer in model.layers.values():
            if layer.bits.weights < FULL_PRECISION_BITS:
                layer.weight_grid = quant.min_max_per_channel(layer.weight, layer.bits.weights)

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Give each layer's input the grid of the extremes that it met in calibration."""
        if data is None:
            raise ValueError("linear needs calibration data for activations")
        ranges = {name: quant.RunningMinMax() for name in model.layers}
        with model.observing(ranges.__getitem__):
            data.run_through(model)
        for name, layer in model.layers.items():
            if layer.bits.activations < FULL_PRECISION_BITS:
                layer.input_grid = ranges[name].grid(layer.bits.activations)
