"""SVDQuant: what is hard to round in a weight goes into a branch of low rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench import quant
from qbench.bits import FULL_PRECISION_BITS, SOFTMAX_BITS
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
    from qbench.quant import QuantLayer, QuantModel


class SVDQuantSettings(Settings):
    """Settings of SVDQuant."""

    calibration: Annotated[
        CalibrationRequest, Field(description="what channels' maxima and activation ranges are taken from")
    ] = UniformSteps()
    rank: Annotated[int, Field(ge=1, description="of the branch beside each layer")] = 32
    iterations: Annotated[
        int, Field(ge=1, description="branches to try at most; the search ends where the error no longer falls")
    ] = 100
    alpha: Annotated[float, Field(ge=0, le=1, description="migration strength of the smoothing before")] = 0.5
    weights: Annotated[WeightRanges, Field(description="how grids of residuals are chosen")] = WeightRanges()
    activations: Annotated[ActivationRanges, Field(description="how grids of activations are chosen")] = (
        ActivationRanges()
    )


class SVDQuant(Method):
    """A layer is a branch of low rank in 16 bits, which takes its input as it is, beside a residual that is rounded.

    First, outliers of the input are moved into the weight, as in SmoothQuant. Then the weight is split into the branch,
    its best approximation of that rank, and what is left, round to nearest; the authors try further branches against
    what the rounding left, and so does this, by the error of the weight where they take that of the layer's output.
    Where activations stay in full precision nothing is smoothed.

    The authors round weights and activations in groups of 64 entries and never the operands of attention, on
    transformers. Here, each output channel has a grid, and activations have those that the settings say. A layer whose
    smaller side is not at least twice the rank gets no branch, which would be the whole layer in 16 bits, and neither
    does a convolution with groups: both are rounded as in ``smoothquant``. The size column counts the branches.
    """

    settings_class = SVDQuantSettings
    title = "SVDQuant: a branch of low rank in 16 bits beside a rounded residual"
    paper = "Li et al. 2025 (SVDQuant), arXiv 2411.05007"
    weights_depend_on_activations = True
    presets: ClassVar = {
        "strict": {},
        "dynamic": {"activations": {"granularity": "token"}},
        "fast": {"calibration": {"per_step": 25}, "rank": 4},
    }
    softmax_bits = SOFTMAX_BITS
    settings: SVDQuantSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return the calibration request, for weights and activations alike."""
        return self.settings.calibration

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Smooth, split and round each weight."""
        import torch

        from qbench_methods.low_rank_layer import LowRankLayer, split

        def is_smoothed(name: str, layer: QuantLayer) -> bool:
            return max(layer.bits.weights, layer.bits.activations) < FULL_PRECISION_BITS

        factors = quant.input_factors(model, needed(data), self.settings.alpha, is_smoothed)
        quant.set_weight_grids(model, self.settings.weights, factors=factors)
        for name, layer in model.layers.items():
            if layer.bits.weights < FULL_PRECISION_BITS and self._has_branch(layer):
                channels = (layer.weight.shape[1], *(1,) * (layer.weight.dim() - 2))
                factor = factors.get(name, torch.ones(channels, device=layer.weight.device))
                rank, iterations = self.settings.rank, self.settings.iterations
                parts = split(layer.weight * factor, rank, iterations, layer.bits.weights, self.settings.weights)
                layer.replace(LowRankLayer(layer, parts, factor))

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Give each activation the grid of what it met in calibration, smoothed where its weight was."""
        factors = {
            name: 1 / layer.weight_grid.factor
            for name, layer in model.layers.items()
            if isinstance(layer.weight_grid, quant.ChannelScaledGrid)
        }
        quant.set_input_grids(model, needed(data), self.settings.activations, factors=factors)

    def _has_branch(self, layer: QuantLayer) -> bool:
        return layer.groups == 1 and min(layer.weight.flatten(1).shape) >= 2 * self.settings.rank
