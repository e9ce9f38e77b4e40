"""SmoothQuant: outliers of activations moved into the weights, channel by channel."""

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
    from torch import Tensor

    from qbench.quant import QuantLayer, QuantModel


class SmoothQuantSettings(Settings):
    """Settings of SmoothQuant."""

    calibration: Annotated[
        CalibrationRequest, Field(description="what channels' maxima and activation ranges are taken from")
    ] = UniformSteps()
    alpha: Annotated[
        float, Field(ge=0, le=1, description="migration strength: 0 leaves weights even, 1 leaves activations even")
    ] = 0.5
    convolutions: Annotated[
        bool, Field(description="whether inputs of convolutions are smoothed, or linear ones only")
    ] = True
    weights: Annotated[WeightRanges, Field(description="how grids of smoothed weights are chosen")] = WeightRanges()
    activations: Annotated[ActivationRanges, Field(description="how grids of smoothed activations are chosen")] = (
        ActivationRanges()
    )


class SmoothQuant(Method):
    """A layer's input is divided by a factor for each channel, its weight multiplied by it; then both are rounded.

    The factor s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) comes from the full-precision network over the whole
    trajectory. The authors fold 1 / s into the layer norm before; most layers of a denoiser have none there, so here
    the division is part of the input's grid, and each layer has factors of its own, where the authors' query, key and
    value share them. The operands of attention are rounded as they are, as in the paper.

    The paper smooths the linear layers of transformers, which ``as-published`` does, with symmetric grids; ``strict``
    smooths convolutions too, as most of a denoiser consists of them. The paper's O3 has static activations as here by
    default, its O1 and O2 dynamic ones (``activations: {granularity: token}``). Where activations stay in full
    precision there is nothing to smooth: W4A32 is that of ``linear``.
    """

    settings_class = SmoothQuantSettings
    title = "SmoothQuant: outliers of activations moved into weights, then round to nearest"
    paper = "Xiao et al. 2023 (SmoothQuant), arXiv 2211.10438"
    weights_depend_on_activations = True
    presets: ClassVar = {
        "strict": {},
        "as-published": {"convolutions": False, "weights": {"symmetric": True}, "activations": {"symmetric": True}},
        "fast": {"calibration": {"per_step": 25}},
    }
    softmax_bits = SOFTMAX_BITS
    settings: SmoothQuantSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return the calibration request, for weights and activations alike."""
        return self.settings.calibration

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Round each weight, smoothed if its input will be, to the nearest point of its channel's grid."""

        def is_chosen(name: str, layer: QuantLayer) -> bool:
            return layer.bits.weights < FULL_PRECISION_BITS and self._is_smoothed(layer)

        factors = quant.input_factors(model, needed(data), self.settings.alpha, is_chosen)
        quant.set_weight_grids(model, self.settings.weights, factors=factors)

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Give each activation the grid of what it met in calibration, divided by what its weight was multiplied by."""
        factors: dict[str, Tensor] = {}
        for name, layer in model.layers.items():
            if isinstance(layer.weight_grid, quant.ChannelScaledGrid):
                factors[name] = 1 / layer.weight_grid.factor

        def is_chosen(name: str, layer: QuantLayer) -> bool:
            return layer.weight_grid is None and self._is_smoothed(layer)

        data = needed(data)
        factors |= quant.input_factors(model, data.for_share(0), self.settings.alpha, is_chosen)
        quant.set_input_grids(model, data, self.settings.activations, factors=factors)

    def _is_smoothed(self, layer: QuantLayer) -> bool:
        is_quantized = layer.bits.activations < FULL_PRECISION_BITS
        return is_quantized and (self.settings.convolutions or not quant.is_convolution(layer))
