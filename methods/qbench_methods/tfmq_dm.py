"""TFMQ-DM: the path of the timestep reconstructed as one, and ranges for each sampling step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

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
from qbench.quant.recipes import FAST_ROUNDING, FAST_SAMPLES, ActivationRanges, RoundingRecipe, WeightRanges

if TYPE_CHECKING:
    from qbench.quant import QuantModel

ALL_STEPS = 1000
"""As many as a sampler takes at most: a request for more steps than there are gets all of them."""
ONE_FOR_ALL = {"granularity": "tensor"}


class TFMQDMSettings(Settings):
    """Settings of TFMQ-DM; the defaults are those of the authors' code for DDIM on CIFAR-10."""

    calibration: Annotated[CalibrationRequest, Field(description="what roundings are learned on")] = UniformSteps()
    weights: Annotated[WeightRanges, Field(description="how grids of weights are chosen")] = WeightRanges(
        estimator="mse"
    )
    rounding: Annotated[RoundingRecipe, Field(description="how roundings are learned")] = RoundingRecipe()
    time_path: Annotated[
        bool, Field(description="whether the timestep's path is reconstructed as one, and not in blocks and layers")
    ] = True
    activation_calibration: Annotated[
        CalibrationRequest, Field(description="what activation ranges are taken from; by default all sampling steps")
    ] = UniformSteps(steps=ALL_STEPS)
    activations: Annotated[ActivationRanges, Field(description="how grids of activations are chosen")] = (
        ActivationRanges(estimator="running-average", granularity="step")
    )
    averaged_rows: Annotated[
        int, Field(ge=1, description="rows whose extremes enter a running average of activations at a time")
    ] = 16
    step_ranges: Annotated[
        Literal["all", "time-path"],
        Field(description="which activations have ranges for each step; those that have not get one for all steps"),
    ] = "all"
    shortcuts: Annotated[
        bool, Field(description="whether the convolutions of shortcuts and downsamplers are quantized")
    ] = True
    ends: Annotated[
        bool,
        Field(description="whether first and last layer, first embedding layer and inputs right behind are quantized"),
    ] = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        granularity = self.activations.granularity
        if self.step_ranges == "time-path" and granularity != "step":
            raise ValueError(
                f"step_ranges: time-path has ranges for each step, not for each {granularity}: say granularity: step"
            )
        return self


class TFMQDM(Method):
    """Block reconstruction as in BRECQ without Fisher weights, with the time path apart and ranges for each step.

    What a timestep passes through before it meets the image, its embedding and each block's projection of it, is one
    unit (Temporal Information Block). It is reconstructed first, to all of the projections' outputs at once, and stays
    out of the blocks' units (Temporal Information Aware Reconstruction). As the sampler's timesteps are a finite set,
    activations get ranges for each of them (Finite Set Calibration): the paper is about the time path's there
    (``step_ranges: time-path``), the authors' code does it for every activation, which is the default here.

    The authors leave the convolutions of shortcuts and downsamplers in full precision, further the first and the last
    layer, the first layer of the embedding, and the inputs of the second one and of the first block's first layer;
    ``as-published`` does so too, ``strict`` quantizes everything.
    """

    settings_class = TFMQDMSettings
    title = "TFMQ-DM: time path reconstructed as one, activation ranges for each step"
    paper = "Huang et al. 2024 (TFMQ-DM), arXiv 2311.16503"
    presets: ClassVar = {
        "strict": {},
        "as-published": {"shortcuts": False, "ends": False},
        "fast": {
            "calibration": {"per_step": FAST_SAMPLES},
            "rounding": FAST_ROUNDING,
            "activation_calibration": {"per_step": FAST_SAMPLES},
        },
    }
    softmax_bits = SOFTMAX_BITS
    settings: TFMQDMSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return the calibration request: roundings are learned on some steps, ranges are taken from all."""
        return self.settings.calibration if target == "weights" else self.settings.activation_calibration

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Choose grids and learn the rounding on them."""
        settings, left_out = self.settings, self._left_out(model)
        quant.set_weight_grids(model, settings.weights, chosen=lambda name: name not in left_out)
        quant.learn_rounding(model, needed(data), settings.rounding, "block", time_path=settings.time_path)

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Give each activation its grids."""
        settings, left_out = self.settings, self._left_out(model) | self._unrounded_inputs(model)
        taps = set(model.taps) - left_out
        parts = [(taps, settings.activations)]
        if settings.step_ranges == "time-path":
            path = taps.intersection(quant.time_layers(model))
            parts = [(path, settings.activations), (taps - path, settings.activations.model_copy(update=ONE_FOR_ALL))]
        for names, ranges in parts:
            share = needed(data).for_share(1 / len(parts))
            quant.set_input_grids(model, share, ranges, chosen=names.__contains__, averaged_rows=settings.averaged_rows)

    def _left_out(self, model: QuantModel) -> set[str]:
        """Return the names of the layers that stay in full precision."""
        structure, names = model.structure, set[str]()
        if not self.settings.shortcuts:
            names.update(structure.shortcuts, structure.downsamplers)
        if not self.settings.ends:
            names.update(structure.boundary_layers, quant.time_layers(model)[:1])
        return names

    def _unrounded_inputs(self, model: QuantModel) -> set[str]:
        """Return the names of the layers whose weights alone are rounded."""
        if self.settings.ends:
            return set()
        block = next(segment for segment in model.structure.segments if segment.kind == "residual")
        first = next(name for name in model.layers if name.startswith(f"{block.name}."))
        return {*quant.time_layers(model)[1:2], first}
