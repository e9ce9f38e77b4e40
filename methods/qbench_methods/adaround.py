"""AdaRound: learned rounding, layer by layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench import quant
from qbench.bits import SOFTMAX_BITS
from qbench.method import (
    BitWidth,
    CalibrationData,
    CalibrationRequest,
    MemoryProfile,
    Method,
    Settings,
    Target,
    UniformSteps,
    needed,
)
from qbench.quant.recipes import (
    FAST_RANGE_ROWS,
    FAST_ROUNDING,
    FAST_SAMPLES,
    ActivationRanges,
    RoundingRecipe,
    WeightRanges,
)

if TYPE_CHECKING:
    from qbench.quant import QuantModel


class AdaRoundSettings(Settings):
    """Settings of AdaRound."""

    calibration: Annotated[CalibrationRequest, Field(description="what it is calibrated on")] = UniformSteps()
    weights: Annotated[WeightRanges, Field(description="how grids of weights are chosen")] = WeightRanges(
        estimator="mse"
    )
    rounding: Annotated[RoundingRecipe, Field(description="how roundings are learned")] = RoundingRecipe(
        iterations=10_000
    )
    activations: Annotated[ActivationRanges, Field(description="how grids of activations are chosen")] = (
        ActivationRanges()
    )


class AdaRound(Method):
    """Each weight goes up or down, whichever serves its layer's output better; layers are learned one by one.

    A layer's inputs come from the network with the layers before it quantized, its target from full precision
    ("asymmetric reconstruction"). The paper learns weights only; activations get the extremes' range, as in
    ``linear``. Its data are images; here they are the denoiser's inputs over the whole trajectory.
    """

    settings_class = AdaRoundSettings
    title = "AdaRound: rounding learned layer by layer"
    paper = "Nagel et al. 2020 (AdaRound), arXiv 2004.10568"
    revision = 3
    presets: ClassVar = {
        "strict": {},
        "fast": {
            "calibration": {"per_step": FAST_SAMPLES},
            "rounding": FAST_ROUNDING,
            "activations": {"samples": FAST_RANGE_ROWS},
        },
    }
    softmax_bits = SOFTMAX_BITS
    settings: AdaRoundSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return the calibration request, for weights and activations alike."""
        return self.settings.calibration

    def memory_profile(self, target: Target) -> MemoryProfile:
        """Return what the settings say; it is layer by layer."""
        return replace(super().memory_profile(target), granularity="layer")

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Choose grids and learn the rounding on them."""
        quant.set_weight_grids(model, self.settings.weights)
        quant.learn_rounding(model, needed(data), self.settings.rounding, "layer")

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Give each activation the grid of what it met in calibration."""
        quant.set_input_grids(model, needed(data), self.settings.activations)
