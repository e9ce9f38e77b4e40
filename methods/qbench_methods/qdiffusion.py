"""Q-Diffusion: calibration over the whole trajectory, and two quantizers for a concatenated shortcut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

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


class QDiffusionSettings(Settings):
    """Settings of Q-Diffusion; the defaults are the authors' for DDIM on CIFAR-10."""

    calibration: Annotated[CalibrationRequest, Field(description="what it is calibrated on")] = UniformSteps()
    split: Annotated[bool, Field(description="whether shortcuts of concatenations get two quantizers")] = True
    weights: Annotated[WeightRanges, Field(description="how grids of weights are chosen")] = WeightRanges()
    rounding: Annotated[RoundingRecipe, Field(description="how roundings are learned")] = RoundingRecipe()
    activations: Annotated[ActivationRanges, Field(description="how grids of activations start")] = ActivationRanges(
        symmetric=True, samples=64
    )
    step_sizes: Annotated[StepSizeRecipe, Field(description="how step sizes of activations are learned")] = (
        StepSizeRecipe()
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.split and self.activations.granularity != "tensor":
            raise ValueError(
                f"a split shortcut has one range for all, not one for each {self.activations.granularity}: "
                "say split: false or granularity: tensor"
            )
        return self


class QDiffusion(Method):
    """Block reconstruction as in BRECQ, with the paper's two ideas.

    Calibration data come from all of the full-precision sampler's trajectory, as activation ranges drift over the
    steps (section 3.2). The shortcut convolution behind concat(h, skip) gets two grids for its weight and two for its
    input, split where h ends, as the two halves have very different ranges (section 3.3). Nothing is left out.

    Three habits of the authors' code are not repeated: blocks are reconstructed in execution order and not in that of
    their names, dropout is off, and the rounding's regularizer sees both halves of a split layer.
    """

    settings_class = QDiffusionSettings
    title = "Q-Diffusion: trajectory calibration, split shortcuts, block reconstruction"
    paper = "Li et al. 2023 (Q-Diffusion), arXiv 2302.04304"
    revision = 3
    presets: ClassVar = {
        "strict": {},
        "cifar10": {},
        "lsun-bedroom": {
            "split": False,
            "weights": {"estimator": "mse"},
            "activations": {"estimator": "running-average", "symmetric": True, "samples": None},
        },
        "lsun-church": {
            "split": False,
            "weights": {"estimator": "mse"},
            "activations": {"estimator": "mse", "symmetric": False, "samples": 64},
        },
        "stable-diffusion": {
            "calibration": {"steps": 25, "per_step": 128},
            "weights": {"estimator": "mse"},
            "rounding": {"batch_size": 8},
            "activations": {"estimator": "running-average", "symmetric": False, "samples": None},
            "step_sizes": {"batch_size": 8},
        },
        "fast": {
            "calibration": {"per_step": FAST_SAMPLES},
            "weights": {"estimator": "mse"},
            "rounding": FAST_ROUNDING,
            "activations": {"symmetric": False, "samples": FAST_RANGE_ROWS},
            "step_sizes": FAST_STEP_SIZES,
        },
    }
    softmax_bits = SOFTMAX_BITS
    settings: QDiffusionSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return the calibration request, for weights and activations alike."""
        return self.settings.calibration

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Choose grids and learn the rounding on them."""
        quant.set_weight_grids(model, self.settings.weights, self.settings.split)
        quant.learn_rounding(model, needed(data), self.settings.rounding, "block")

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Choose grids and learn their step sizes."""
        ranges, step_sizes = self.settings.activations, self.settings.step_sizes
        quant.learn_input_grids(model, needed(data), ranges, step_sizes, "block", self.settings.split)
