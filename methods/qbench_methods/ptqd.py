"""PTQD: quantization noise measured at each step of the sampler and taken back there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from qbench import quant
from qbench.method import BitWidth, CalibrationData, CalibrationRequest, Target, UniformSteps, needed
from qbench.quant.recipes import ActivationRanges, RoundingRecipe, StepSizeRecipe
from qbench_methods.brecq import BRECQ, BRECQSettings

if TYPE_CHECKING:
    from qbench.diffusion.step_correction import StepCorrection
    from qbench.quant import QuantModel

ALL_STEPS = 1000
"""As many as a sampler takes at most: a request for more steps than there are gets all of them."""
LEAST_SLOPE = -0.99
"""The estimate is divided by 1 + slope: a denoiser that has collapsed would be multiplied by whatever rounding left."""


class PTQDSettings(BRECQSettings):
    """Settings of PTQD; the defaults are those of the authors' code."""

    calibration: Annotated[CalibrationRequest, Field(description="what it is calibrated on")] = UniformSteps(
        per_step=51
    )
    rounding: Annotated[RoundingRecipe, Field(description="how roundings are learned")] = RoundingRecipe(
        iterations=10_000, batch_size=8
    )
    fisher: Annotated[bool, Field(description="whether errors are weighted by the Fisher information")] = False
    activations: Annotated[ActivationRanges, Field(description="how grids of activations start")] = ActivationRanges(
        estimator="mse", samples=32
    )
    step_sizes: Annotated[StepSizeRecipe, Field(description="how step sizes of activations are learned")] = (
        StepSizeRecipe(batch_size=16)
    )
    shortcuts: Annotated[
        bool, Field(description="whether the convolutions of shortcuts and downsamplers are quantized")
    ] = True
    attention: Annotated[bool, Field(description="whether the operands of attention are quantized")] = True
    correction_calibration: Annotated[
        CalibrationRequest, Field(description="what its noise is measured on; steps left out take after their nearest")
    ] = UniformSteps(steps=ALL_STEPS, per_step=1024)
    slope: Annotated[
        Literal["none", "positive", "both"],
        Field(description="which slopes are taken back, as far as that makes the error smaller on calibration data"),
    ] = "positive"
    bias: Annotated[bool, Field(description="whether each channel's mean is taken back")] = True
    variance: Annotated[bool, Field(description="whether the sampler adds less noise where the denoiser adds some")] = (
        True
    )


class PTQD(BRECQ):
    """Block reconstruction as in BRECQ without Fisher weights, and a sampler that takes back what it can of the noise.

    The error of a quantized denoiser is modelled as slope times full precision's estimate, plus a bias for each
    channel, plus uncorrelated noise. All three are measured at each step, on full precision's own trajectory. Slope
    and bias are taken back (correlated noise correction, bias correction); where the sampler adds noise of its own, it
    adds as much less as the third part brings (variance schedule calibration).

    The authors' code takes back no slope below 0, and neither does ``slope: positive``. Dividing by 1 + slope makes the
    residual larger there, often by more than the slope is worth, so ``both`` takes back a slope below 0 only where the
    mean squared error on calibration data becomes smaller.

    The authors leave the convolutions of shortcuts and downsamplers and the products of attention in full precision,
    which ``as-published`` does too, and give the first and last layer 8 bits, which is for a suite's ``boundary_bits``
    to say. ``strict`` quantizes everything. The paper's choice of bits for each step is not a part of it.
    """

    settings_class = PTQDSettings
    title = "PTQD: quantization noise taken back at each step"
    paper = "He et al. 2023 (PTQD), arXiv 2305.10657"
    revision = 1  # goes up with BRECQ's too
    corrects = True
    correction_settings = ("correction_calibration", "slope", "bias", "variance")
    presets: ClassVar = {
        "strict": {},
        "as-published": {"shortcuts": False, "attention": False},
        "fast": {**BRECQ.presets["fast"], "correction_calibration": {"per_step": 256}},
    }
    settings: PTQDSettings

    def refusal(self, bits: BitWidth) -> str | None:
        """Return why it cannot run: bits that it does not claim, or some for a softmax output that is left out."""
        if bits.softmax is not None and not self.settings.attention:
            return (
                f"{self.name} leaves attention in full precision (attention: false), so its softmax output cannot "
                f"have {bits.softmax} bits"
            )
        return super().refusal(bits)

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return the calibration request: the noise is measured on all steps."""
        return self.settings.correction_calibration if target == "correction" else self.settings.calibration

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Choose grids and learn the rounding on them."""
        left_out = self._left_out(model)
        quant.set_weight_grids(model, self.settings.weights, chosen=lambda name: name not in left_out)
        quant.learn_rounding(model, needed(data), self.settings.rounding, "block", fisher=self.settings.fisher)

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Choose grids and learn their step sizes."""
        ranges, step_sizes, left_out = self.settings.activations, self.settings.step_sizes, self._left_out(model)
        quant.learn_input_grids(
            model, needed(data), ranges, step_sizes, "block", chosen=lambda name: name not in left_out
        )

    def correct(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> StepCorrection:
        """Measure the noise at each step that was asked for; the others take after their nearest."""
        import torch

        from qbench.diffusion.step_correction import StepCorrection

        settings, data = self.settings, needed(data)
        noise = quant.measure_noise(model, data)
        slope, none = noise.slope(), torch.zeros(len(noise.steps), dtype=torch.float64)
        least = {"none": math.inf, "positive": 0.0, "both": LEAST_SLOPE}[settings.slope]
        helps = noise.squared_error(slope, settings.bias) < noise.squared_error(none, settings.bias)
        slope = torch.where((slope > least) & helps, slope, none)
        bias = noise.bias(slope) * settings.bias
        variance = noise.variance(slope) * settings.variance
        nearest = (torch.arange(data.calls)[:, None] - noise.steps).abs().argmin(1)
        return StepCorrection(*(each[nearest].float() for each in (slope, bias, variance)))

    def _left_out(self, model: QuantModel) -> set[str]:
        """Return the names of the layers and operands of attention that stay in full precision."""
        names = set[str]()
        if not self.settings.shortcuts:
            names.update(model.structure.shortcuts, model.structure.downsamplers)
        if not self.settings.attention:
            names.update(model.taps.keys() - model.layers.keys())
        return names
