"""torchao: linear layers as PyTorch's own quantization library has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.bits import FULL_PRECISION_BITS
from qbench.method import BitWidth, CalibrationData, Method, Settings

if TYPE_CHECKING:
    from qbench.quant import QuantLayer, QuantModel

INPUT_BITS = 8
LINEAR = 2


class TorchAOSettings(Settings):
    """Settings of torchao."""

    group_size: Annotated[
        int | None, Field(ge=8, description="input channels that share a scale; null takes all of an output channel")
    ] = None


class TorchAO(Method):
    """What ``torchao.quantization.quantize_`` makes of the linear layers; nothing else is quantized.

    Weights are symmetric integers of 2 to 8 bits, with one scale for each output channel or group. With 8 activation
    bits, torchao rounds the input of these layers as it comes, each token by its own range; it offers no other bits for
    inputs, and none for weights in full precision. Convolutions and the operands of attention stay in full precision,
    and so do, with ``group_size``, layers whose inputs are no multiple of it: the coverage column says how
    much is left.

    It needs the package torchao: ``pip install 'qbench[torchao]'``.
    """

    settings_class = TorchAOSettings
    title = "torchao: linear layers only, symmetric weights, dynamic 8-bit inputs"
    paper = "Or et al. 2025, arXiv 2507.16099"
    presets: ClassVar = {"strict": {}, "fast": {}}
    weights_depend_on_activations = True
    activation_bits = (INPUT_BITS,)
    settings: TorchAOSettings

    def refusal(self, bits: BitWidth) -> str | None:
        """Return why it cannot run: bits that it does not claim, or activations without weights."""
        if not bits.quantizes_weights:
            return f"{self.name} quantizes activations only where it quantizes the weight as well"
        return super().refusal(bits)

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Replace every linear layer by torchao's."""
        from qbench_methods.adapter_layers import TorchAOLayer

        for layer in model.layers.values():
            if layer.bits.weights < FULL_PRECISION_BITS and self._takes(layer):
                given = layer.weight, layer.bits.weights, layer.bits.activations, self.settings.group_size
                layer.replace(TorchAOLayer(layer, *given))

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Do nothing: the layers round their inputs themselves."""

    def _takes(self, layer: QuantLayer) -> bool:
        return layer.weight.dim() == LINEAR and layer.weight.shape[1] % (self.settings.group_size or 1) == 0
