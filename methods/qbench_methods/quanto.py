"""quanto: weights as Hugging Face's quantization library has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.bits import FULL_PRECISION_BITS
from qbench.errors import StageError
from qbench.method import BitWidth, CalibrationData, Method, Settings

if TYPE_CHECKING:
    from qbench.quant import QuantModel

BITS = (2, 4, 8)
LINEAR, CONVOLUTION = 2, 4


class QuantoSettings(Settings):
    """Settings of quanto."""

    convolutions: Annotated[bool, Field(description="whether two-dimensional convolutions are quantized too")] = True


class Quanto(Method):
    """What ``optimum.quanto.quantize(model, weights=...)`` makes of the weights.

    8-bit weights are symmetric with one scale for each output channel; those of 2 and 4 bits are asymmetric, in groups
    of up to 128 input values of a channel, as far as these divide. Activations are not its business here: quanto's own
    are 8-bit and calibrated on whole batches of a pipeline, which is no rule per layer that could be compared.

    The library quantizes linear layers and two-dimensional convolutions. ``linear-only`` leaves the latter out, as
    torchao does. Bits that it does not have, such as 3-bit boundary layers beside 4-bit ones, it refuses.

    It needs the package optimum-quanto: ``pip install 'qbench[quanto]'``.
    """

    settings_class = QuantoSettings
    title = "quanto: weights of linear layers and convolutions, in groups below 8 bits"
    paper = "optimum-quanto, github huggingface/optimum-quanto"
    presets: ClassVar = {"strict": {}, "fast": {}, "linear-only": {"convolutions": False}}
    weight_bits = BITS
    activation_bits = ()
    settings: QuantoSettings

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Replace every layer by quanto's."""
        axes = (LINEAR, CONVOLUTION) if self.settings.convolutions else (LINEAR,)
        chosen = {
            name: layer
            for name, layer in model.layers.items()
            if layer.bits.weights < FULL_PRECISION_BITS and layer.weight.dim() in axes
        }
        for name, layer in chosen.items():
            if layer.bits.weights not in BITS:
                raise StageError(
                    f"the weight of {name!r} is to have {layer.bits.weights} bits, and quanto has "
                    f"{', '.join(map(str, BITS))}: give `boundary_bits` one of these"
                )
        from qbench_methods.adapter_layers import QuantoLayer

        for layer in chosen.values():
            layer.replace(QuantoLayer(layer, layer.weight, layer.bits.weights, FULL_PRECISION_BITS))

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Do nothing: no bits of activations are claimed."""
