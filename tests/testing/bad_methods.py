"""Methods that each break one clause of the contract; without torch at import, but for one module beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from qbench import quant
from qbench.method import BitWidth, CalibrationData, CalibrationRequest, Method, Settings, Target, UniformSteps, needed
from qbench.quant.recipes import ActivationRanges

if TYPE_CHECKING:
    from qbench.diffusion.step_correction import StepCorrection
    from qbench.quant import QuantModel


class Good(Method):
    """Breaks nothing, and is what the others are made of."""

    title = "round to nearest"
    weight_bits = (3, 8)
    activation_bits = (4, 8)

    def calibration(self, target: Target) -> CalibrationRequest | None:
        return UniformSteps() if target == "activations" else None

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        assert data is None
        for layer in model.layers.values():
            if layer.bits.weights < 32:
                layer.weight_grid = quant.min_max_per_channel(layer.weight, layer.bits.weights)

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        quant.set_input_grids(model, needed(data), ActivationRanges())


class Corrects(Good):
    corrects = True

    def correct(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> StepCorrection:
        import torch

        from qbench.diffusion.step_correction import StepCorrection

        return StepCorrection(torch.zeros(4), torch.zeros(4, 2), torch.zeros(4))


class WrongSteps(Corrects):
    def correct(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> StepCorrection:
        import torch

        from qbench.diffusion.step_correction import StepCorrection

        return StepCorrection(torch.zeros(3), torch.zeros(3, 2), torch.zeros(3))


class UndescribedSettings(Settings):
    share: float = 1.0


class Undescribed(Good):
    settings_class = UndescribedSettings


class NoDefaultSettings(Settings):
    share: Annotated[float, Field(description="share")]


class NoDefault(Good):
    settings_class = NoDefaultSettings


class BadPreset(Good):
    presets: ClassVar = {"fast": {"iterations": 3}}


class Untitled(Good):
    title = ""


class RandomIdentity(Good):
    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "object": id(self)}


class StrangeClaim(Good):
    weight_bits = (3, 9)


class AcceptsAll(Good):
    def refusal(self, bits: BitWidth) -> str | None:
        return None


class RefusesAll(Good):
    def refusal(self, bits: BitWidth) -> str | None:
        return "not today"


class RaisesAtThree(Good):
    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        if bits.weights == 3:
            raise ZeroDivisionError("three")
        super().quantize_weights(model, data, bits)


class RemembersItself(Good):
    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        super().quantize_weights(model, data, bits)
        self.done = True

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        assert self.done or not bits.quantizes_weights
        super().quantize_activations(model, data, bits)


class TakesTheCellsBits(Good):
    """Right for most layers, wrong for the first and the last."""

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        for layer in model.layers.values():
            layer.weight_grid = quant.min_max_per_channel(layer.weight, bits.weights)


class LooksQuantized(Good):
    """Puts the original weights back behind the grids."""

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        super().quantize_weights(model, data, bits)
        for layer in model.layers.values():
            layer._rounded = layer.weight.detach().clone()


class SwitchedOff(Good):
    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        super().quantize_activations(model, data, bits)
        for layer in model.layers.values():
            layer.tap.enabled = False


class HiddenHook(Good):
    """Computes with something that is stored nowhere."""

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        super().quantize_weights(model, data, bits)
        model.module.register_forward_hook(lambda module, inputs, output: (output[0] * 1.5,))


class DrawsGlobally(Good):
    """Draws from the global random numbers, which it puts back."""

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        import torch

        with torch.random.fork_rng(devices=[]):
            share = 1 - 0.1 * float(torch.rand(()))
        for layer in model.layers.values():
            if layer.bits.weights < 32:
                layer.weight_grid = quant.min_max_per_channel(layer.weight * share, layer.bits.weights)


class LooksAtNeighbours(Good):
    """Puts a layer in the place of its first one that takes the mean of the batch off."""

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        from bad_layers import Batchwise

        super().quantize_weights(model, data, bits)
        layer = model.layers["conv_in"]
        layer.replace(Batchwise(layer.weight, layer.bits.weights))


class SetsTheSeed(Good):
    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        import torch

        torch.manual_seed(0)
        super().quantize_weights(model, data, bits)


class SetsTheType(Good):
    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        import torch

        super().quantize_activations(model, data, bits)
        torch.set_default_dtype(torch.float64)


class InfiniteBias(Good):
    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        super().quantize_weights(model, data, bits)
        model.layers["conv_out"].bias.data.fill_(float("inf"))
