"""BRECQ: learned rounding, block by block, with the Fisher information as weight."""

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
    FAST_STEP_SIZES,
    ActivationRanges,
    RoundingRecipe,
    StepSizeRecipe,
    WeightRanges,
)

if TYPE_CHECKING:
    from qbench.quant import QuantModel


class BRECQSettings(Settings):
    """Settings of BRECQ."""

    calibration: Annotated[CalibrationRequest, Field(description="what it is calibrated on")] = UniformSteps()
    weights: Annotated[WeightRanges, Field(description="how grids of weights are chosen")] = WeightRanges(
        estimator="mse"
    )
    rounding: Annotated[RoundingRecipe, Field(description="how roundings are learned")] = RoundingRecipe()
    fisher: Annotated[bool, Field(description="whether errors are weighted by the Fisher information")] = True
    activations: Annotated[ActivationRanges, Field(description="how grids of activations start")] = ActivationRanges(
        estimator="mse", samples=64
    )
    step_sizes: Annotated[StepSizeRecipe, Field(description="how step sizes of activations are learned")] = (
        StepSizeRecipe()
    )


class BRECQ(Method):
    """Roundings are learned so that whole blocks put out what they do in full precision, then step sizes are.

    Squared errors of a block are weighted by the diagonal of the Fisher information, as in the paper; the authors'
    code leaves the weight out by default (``fisher: false``). The paper's first and last layers have 8 bits, which is
    for a suite's ``boundary_bits`` to say. Blocks are the denoiser's residual and attention blocks, every other layer
    is reconstructed alone; the shortcut of a concatenation has one range, not two.
    """

    settings_class = BRECQSettings
    title = "BRECQ: rounding learned block by block, Fisher-weighted"
    paper = "Li et al. 2021 (BRECQ), arXiv 2102.05426"
    revision = 3
    presets: ClassVar = {
        "strict": {},
        "fast": {
            "calibration": {"per_step": FAST_SAMPLES},
            "rounding": FAST_ROUNDING,
            "activations": {"estimator": "min-max", "samples": FAST_RANGE_ROWS},
            "step_sizes": FAST_STEP_SIZES,
        },
    }
    softmax_bits = SOFTMAX_BITS
    settings: BRECQSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return the calibration request, for weights and activations alike."""
        return self.settings.calibration

    def memory_profile(self, target: Target) -> MemoryProfile:
        """Return what the settings say, and that the Fisher information takes gradients of the whole network."""
        is_weighted = self.settings.fisher and target == "weights"
        return replace(super().memory_profile(target), through_network=is_weighted)

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Choose grids and learn the rounding on them."""
        quant.set_weight_grids(model, self.settings.weights)
        quant.learn_rounding(model, needed(data), self.settings.rounding, "block", fisher=self.settings.fisher)

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Choose grids and learn their step sizes."""
        ranges, step_sizes = self.settings.activations, self.settings.step_sizes
        quant.learn_input_grids(model, needed(data), ranges, step_sizes, "block")
