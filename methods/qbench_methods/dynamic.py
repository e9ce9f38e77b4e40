"""Dynamic: activations get their ranges as they come, a range for each token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench import quant
from qbench.bits import SOFTMAX_BITS
from qbench.method import BitWidth, CalibrationData, Method, Settings
from qbench.quant.recipes import WeightRanges

if TYPE_CHECKING:
    from qbench.quant import QuantModel


class DynamicSettings(Settings):
    """Settings of dynamic quantization."""

    weights: Annotated[WeightRanges, Field(description="how grids of weights are chosen")] = WeightRanges()
    attention: Annotated[bool, Field(description="whether the operands of attention are quantized")] = True
    ends: Annotated[
        bool, Field(description="whether first and last layer and the layers on the timestep's path are quantized")
    ] = True


class Dynamic(Method):
    """Round to nearest: weights from the extremes of each output channel, activations from those of each token.

    Nothing is calibrated: an activation's range is that of the values at hand, so nothing is ever cut off. What a
    linear layer or an operand of attention sees has a range for each token of each image, what a convolution sees has
    one for each image. The paper's networks are transformers, whose only convolution, the patch embedding, stays in
    full precision; so the rule for convolutions is this project's own. Its code takes one range for a token's place in
    all images of the batch, which would let an image depend on its neighbours.

    This is the quantizer of ViDiT-Q, and before of ZeroQuant (arXiv 2206.01861) for language models; its balancing of
    channels step by step and its mixed precision are not part of it. ``as-published`` leaves out what ViDiT-Q's
    code does: products of attention, first and last layer, and the embedding of the timestep with all its projections.
    """

    settings_class = DynamicSettings
    title = "Dynamic: ranges of each token as it comes, round to nearest"
    paper = "Zhao et al. 2024 (ViDiT-Q), arXiv 2406.02540"
    presets: ClassVar = {"strict": {}, "as-published": {"attention": False, "ends": False}, "fast": {}}
    softmax_bits = SOFTMAX_BITS
    settings: DynamicSettings

    def refusal(self, bits: BitWidth) -> str | None:
        """Return why it cannot run: bits that it does not claim, or some for a softmax output that is left out."""
        if bits.softmax is not None and not self.settings.attention:
            return (
                f"{self.name} leaves attention in full precision (attention: false), so its softmax output cannot "
                f"have {bits.softmax} bits"
            )
        return super().refusal(bits)

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Round each weight to the nearest point of its channel's grid."""
        left_out = self._left_out(model)
        quant.set_weight_grids(model, self.settings.weights, chosen=lambda name: name not in left_out)

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Let each activation be rounded to a grid of its own extremes."""
        left_out = self._left_out(model)
        quant.set_dynamic_grids(model, chosen=lambda name: name not in left_out)

    def _left_out(self, model: QuantModel) -> set[str]:
        """Return the names of the layers and attention operands that stay in full precision."""
        names = set[str]() if self.settings.attention else set(model.taps) - set(model.layers)
        if not self.settings.ends:
            names.update(model.structure.boundary_layers, quant.time_layers(model))
        return names
