"""my-method: round to nearest on ranges that leave out the outermost weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from qbench import quant
from qbench.bits import SOFTMAX_BITS
from qbench.method import BitWidth, CalibrationData, CalibrationRequest, Method, Settings, Target, UniformSteps, needed

if TYPE_CHECKING:  # torch is imported when the method works, not when it is listed
    from qbench.quant import QuantModel


class MyMethodSettings(Settings):
    """Settings of my-method. Each has a default and a description."""

    shrink: Annotated[float, Field(gt=0, le=1, description="share of a channel's range that its grid covers")] = 0.95
    calibration: Annotated[UniformSteps, Field(description="what activation ranges are taken from")] = UniformSteps()


class MyMethod(Method):
    """Say here what it does, and where it differs from its paper: `qbench methods show` prints this."""

    settings_class = MyMethodSettings
    title = "round to nearest on ranges that leave out the outermost weights"
    paper = ""  # authors, year, where; such as "Nagel et al. 2020 (AdaRound), arXiv 2004.10568"
    revision = 1  # raise it when its numbers change: what was cached of it is then computed again
    presets: ClassVar = {"fast": {"calibration": {"per_step": 25}}}
    softmax_bits = SOFTMAX_BITS
    settings: MyMethodSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return what it is calibrated on: only activations need data."""
        return self.settings.calibration if target == "activations" else None

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Give each layer that is due in low bits the grid of its shrunken channels."""
        for layer in model.layers.values():
            if layer.bits.weights < 32:
                layer.weight_grid = quant.min_max_per_channel(layer.weight * self.settings.shrink, layer.bits.weights)

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Give each activation that is due in low bits the grid of the extremes that it met in calibration."""
        quant.set_input_grids(model, needed(data), quant.ActivationRanges())
