"""External: images, or a quantized denoiser, that were made elsewhere."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from qbench import quant
from qbench.bits import FULL_PRECISION_BITS, SOFTMAX_BITS
from qbench.errors import StageError, SuiteError
from qbench.method import BitWidth, CalibrationData, ImageSet, Method, Settings, images_in

if TYPE_CHECKING:
    from qbench.quant import QuantModel


class ExternalSettings(Settings):
    """Settings of what was made elsewhere; paths are relative to where qbench is started."""

    bits: Annotated[str, Field(description="what its makers say it has, such as W4A8; needed")] = ""
    seed: Annotated[int, Field(ge=0, description="seed whose row images stand in")] = 0
    images: Annotated[
        str | None, Field(description="folder of images in the order of sample indices, by their names")
    ] = None
    same_noise: Annotated[
        bool,
        Field(description="whether image i was sampled from this workload's noise i, so that pairs can be compared"),
    ] = False
    denoiser: Annotated[
        str | None, Field(description="diffusers folder of the same denoiser with its weights rounded")
    ] = None

    @model_validator(mode="after")
    def _one_of_two(self) -> ExternalSettings:
        if self.images is not None and self.denoiser is not None:
            raise ValueError("name images or a denoiser, not both")
        if self.bits:
            _parsed(self.bits)
        if self.same_noise and self.images is None:
            raise ValueError("same_noise is said of images; a denoiser always gets the same noise")
        return self


def _parsed(text: str) -> BitWidth:
    try:
        return BitWidth.parse(text)
    except SuiteError as error:
        raise ValueError(str(error)) from None


class External(Method):
    """What another program made, as a row of its own, marked as such.

    It stands at the bits that its settings name; images stand at one seed, a denoiser is sampled at each.

    Images take the place of sampling: nothing is known of their denoiser, so the row has neither size nor coverage,
    and unless they come from the same noise nothing is compared image by image. A denoiser is sampled here, from the
    same noise as all others. Its weights are taken as they are; where a layer's weight lies on a uniform grid of the
    cell's bits for each output channel, it is packed as one and counts as quantized, anything else as left out.
    """

    settings_class = ExternalSettings
    title = "images or a quantized denoiser made elsewhere"
    softmax_bits = SOFTMAX_BITS
    settings: ExternalSettings

    @cached_property
    def _denoiser(self) -> str | None:
        return None if self.settings.denoiser is None else quant.checkpoint_digest(Path(self.settings.denoiser))

    @cached_property
    def _images(self) -> ImageSet | None:
        return None if self.settings.images is None else images_in(self.settings.images)

    def images(self) -> ImageSet | None:
        """Return the images."""
        return self._images

    @property
    def has_same_noise(self) -> bool:
        """Whether image i was sampled from noise i."""
        return self.settings.images is None or self.settings.same_noise

    def describe(self) -> dict[str, Any]:
        """Return what identifies it: the content of the images or weights, not where they lie."""
        images = None if self._images is None else self._images.digest
        content = {"images": images, "denoiser": self._denoiser, "same_noise": self.settings.same_noise}
        return {**super().describe(), "settings": content}

    def stands_at(self, bits: BitWidth, seed: int) -> bool:
        """Whether it has a row at some bits and seed."""
        if self.settings.bits and bits != BitWidth.parse(self.settings.bits):
            return False
        return self.settings.images is None or seed == self.settings.seed

    def refusal(self, bits: BitWidth) -> str | None:
        """Return why it cannot stand in a row of some bits, or None if it can."""
        if self.settings.images is None and self.settings.denoiser is None:
            return "external needs a setting: images or denoiser"
        if not self.settings.bits:
            return "external needs a setting: bits, as its makers say"
        if self.settings.denoiser is not None and bits != BitWidth(bits.weights, FULL_PRECISION_BITS):
            return "external reads the weights of a denoiser and no grids of activations, so their bits are 32"
        return super().refusal(bits)

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Take over the denoiser's weights."""
        assert self.settings.denoiser is not None
        folder = Path(self.settings.denoiser)
        types = quant.load_checkpoint(model, folder)
        if quant.checkpoint_digest(folder) != self._denoiser:
            raise StageError(f"{folder} changed since it was first read: start again")
        for name, layer in model.layers.items():
            if layer.bits.weights < FULL_PRECISION_BITS:
                layer.weight_grid = quant.recovered_grid(layer.weight, layer.bits.weights, types[f"{name}.weight"])
        if all(layer.weight_grid is None for layer in model.layers.values()):
            raise StageError(f"no layer of {folder} lies on a uniform grid of {bits.weights} bits for each channel")

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Do nothing: it is refused where activations have low bits."""
