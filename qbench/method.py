"""The contract of a quantization method.

A method fills in grids: ``quantize_weights`` sets ``weight_grid`` on the layers of a model, ``quantize_activations``
sets ``grid`` on its taps, which are the inputs of layers and the operands of attention. The harness has given every
layer and tap its bits before (``layer.bits``, ``tap.bits``); a method may leave some out, and the coverage column shows
it. In place of a weight's grid a method may give a layer a module of its own (``layer.replace``), and it may have the
sampler take back what is left of the error (``correct``). Storing, loading, folding, sampling and scoring are not a
method's business.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from qbench.bits import FULL_PRECISION_BITS, LOW_BITS, BitWidth
from qbench.calibration import (
    CalibrationRequest,
    GaussianInputs,
    NoisedImages,
    NormalSteps,
    SingleStep,
    UniformSteps,
)
from qbench.plugin import Plugin
from qbench.quant.data import CalibrationData
from qbench.quant.memory_profile import MemoryProfile, profile_of
from qbench.settings import NoSettings, Settings
from qbench.workload import ImageSet

if TYPE_CHECKING:
    from qbench.diffusion.step_correction import StepCorrection
    from qbench.quant import QuantModel

__all__ = [
    "BitWidth",
    "CalibrationData",
    "CalibrationRequest",
    "GaussianInputs",
    "ImageSet",
    "MemoryProfile",
    "Method",
    "NoSettings",
    "NoisedImages",
    "NormalSteps",
    "Settings",
    "SingleStep",
    "Target",
    "UniformSteps",
    "images_in",
    "needed",
]

Target = Literal["weights", "activations", "correction"]


def needed(data: CalibrationData | None) -> CalibrationData:
    """Return calibration data that were asked for.

    Raises:
        ValueError: there are none.
    """
    if data is None:
        raise ValueError("this method needs calibration data, and was given none")
    return data


def images_in(path: str) -> ImageSet:
    """Return the images of a folder, in the natural order of their names, without reading all of them at once.

    Raises:
        DataError: the folder or an image in it cannot be used.
    """
    from qbench.metrics.image_folder import image_folder

    return image_folder(Path(path))


class Method(Plugin):
    """A post-training quantization method.

    Attributes:
        presets: named settings, each a part of the settings' plain form.
        weights_depend_on_activations: whether activation bits change the weights (they then enter their digest).
        corrects: whether the sampler takes back what ``correct`` found of the denoiser's error.
        correction_settings: names of the settings that ``correct`` alone looks at; rows that differ in them only share
            weights and activations.
        weight_bits: the weight bits it claims, 32 aside.
        activation_bits: the activation bits it claims, 32 aside.
        softmax_bits: the bits of the softmax output it claims; empty: it does not quantize it.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    weights_depend_on_activations: ClassVar[bool] = False
    corrects: ClassVar[bool] = False
    correction_settings: ClassVar[tuple[str, ...]] = ()
    weight_bits: ClassVar[tuple[int, ...]] = LOW_BITS
    activation_bits: ClassVar[tuple[int, ...]] = LOW_BITS
    softmax_bits: ClassVar[tuple[int, ...]] = ()

    def refusal(self, bits: BitWidth) -> str | None:
        """Return why the method cannot run at some bits, or None if it can."""
        for what, value, claimed in (
            ("weights", bits.weights, self.weight_bits),
            ("activations", bits.activations, self.activation_bits),
            ("the softmax output", bits.softmax, self.softmax_bits),
        ):
            if value is not None and value != FULL_PRECISION_BITS and value not in claimed:
                if not claimed:
                    return f"{self.name} does not quantize {what}"
                return f"{self.name} quantizes {what} to {', '.join(map(str, claimed))} bits only"
        return None

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return what weights, activations or the correction are to be calibrated on; None needs no data."""
        return None

    def memory_profile(self, target: Target) -> MemoryProfile:
        """Return what decides how much memory it takes, for estimates only: the recipes among its settings."""
        return profile_of(self.settings, target)

    def images(self) -> ImageSet | None:
        """Return images made elsewhere, which take the place of sampling; None for a method that quantizes."""
        return None

    def stands_at(self, bits: BitWidth, seed: int) -> bool:
        """Whether it has a row at some bits and seed: what was made elsewhere has one row only."""
        return True

    @property
    def has_same_noise(self) -> bool:
        """Whether its images come from the workload's own noise, so that pairs with full precision mean something."""
        return True

    @abstractmethod
    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Set ``weight_grid`` on layers.

        Args:
            model: in full precision.
            data: what ``calibration("weights")`` asked for.
            bits: of the cell; ``layer.bits`` is what counts for a layer.
        """

    @abstractmethod
    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Set ``grid`` on taps.

        Args:
            model: with its weights quantized, if the cell quantizes them; the originals are at hand.
            data: what ``calibration("activations")`` asked for.
            bits: of the cell; ``layer.bits`` is what counts for a layer.
        """

    def correct(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> StepCorrection:
        """Return what the sampler is to take back at each step; only asked for where ``corrects`` is true.

        Args:
            model: with everything quantized; full precision is at hand inside ``model.full_precision()``.
            data: what ``calibration("correction")`` asked for; ``data.calls`` says how many steps there are.
            bits: of the cell.

        Raises:
            NotImplementedError: the method corrects nothing.
        """
        raise NotImplementedError(f"{self.name} corrects nothing")
