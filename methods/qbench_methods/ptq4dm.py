"""PTQ4DM: calibration data from a skewed normal distribution over the steps."""

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
    NormalSteps,
    Settings,
    Target,
    needed,
)
from qbench.quant.recipes import ActivationRanges, WeightRanges

if TYPE_CHECKING:
    from qbench.quant import QuantModel


class PTQ4DMSettings(Settings):
    """Settings of PTQ4DM."""

    calibration: Annotated[CalibrationRequest, Field(description="what activation ranges are taken from")] = (
        NormalSteps()
    )
    weights: Annotated[WeightRanges, Field(description="how grids of weights are chosen")] = WeightRanges(
        estimator="mse", symmetric=True, candidates=100
    )
    activations: Annotated[ActivationRanges, Field(description="how grids of activations are chosen")] = (
        ActivationRanges(estimator="mse", symmetric=True, candidates=100)
    )
    attention: Annotated[bool, Field(description="whether the operands of attention are quantized")] = True


class PTQ4DM(Method):
    """Round to nearest on ranges of least error, calibrated on normally distributed time-steps (NDTC).

    Each calibration sample is x_t of the full-precision sampler at a step of its own, drawn from a normal distribution
    that leans towards the finished image; see ``NormalSteps`` for what the paper and its code say of it. Grids are
    symmetric and the best of 100 candidates, as in the authors' code. That searches batch by batch and averages what
    it finds, and gives activations that are never negative a grid that starts at 0; here the search sees all rows at
    once, and only the softmax output has such a grid.

    The authors leave the two products of attention in full precision, which ``as-published`` does too, and give the
    first and last layer 8 bits, which is for a suite's ``boundary_bits`` to say. ``strict`` quantizes every layer and
    attention.
    """

    settings_class = PTQ4DMSettings
    title = "PTQ4DM: least-error ranges on normally distributed time-steps"
    paper = "Shang et al. 2023 (PTQ4DM), arXiv 2211.15736"
    presets: ClassVar = {
        "strict": {},
        "as-published": {"attention": False},
        "fast": {"calibration": {"count": 500}},
    }
    softmax_bits = SOFTMAX_BITS
    settings: PTQ4DMSettings

    def refusal(self, bits: BitWidth) -> str | None:
        """Return why it cannot run: bits that it does not claim, or some for a softmax output that is left out."""
        if bits.softmax is not None and not self.settings.attention:
            return (
                f"{self.name} leaves attention in full precision (attention: false), so its softmax output cannot "
                f"have {bits.softmax} bits"
            )
        return super().refusal(bits)

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return the calibration request: only activations need one."""
        return self.settings.calibration if target == "activations" else None

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Round each weight to the nearest point of its channel's grid."""
        quant.set_weight_grids(model, self.settings.weights)

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Give each activation the grid of least error on what it met in calibration."""

        def is_chosen(tap: str) -> bool:
            return self.settings.attention or tap in model.layers

        quant.set_input_grids(model, needed(data), self.settings.activations, chosen=is_chosen)
