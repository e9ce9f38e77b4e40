"""SQuant: roundings flipped until their errors cancel in each kernel and each output channel."""

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
from qbench.quant.recipes import ActivationRanges

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant import AffineGrid, QuantModel


class SQuantSettings(Settings):
    """Settings of SQuant."""

    calibration: Annotated[CalibrationRequest, Field(description="what activation ranges are taken from")] = (
        UniformSteps()
    )
    activations: Annotated[ActivationRanges, Field(description="how grids of activations are chosen")] = (
        ActivationRanges()
    )


class SQuant(Method):
    """Weights on the min-max grid of their channel, some of them rounded the other way so that errors cancel out.

    Weights need no data; the range is each output channel's extremes, as in the authors' code. Activations do need
    data here: the paper derives their ranges from batch norm, which denoisers do not have, so they get the extremes
    over all calibration steps in the network whose weights are already quantized, as in linear quantization.
    """

    settings_class = SQuantSettings
    title = "SQuant: data-free flips of roundings, per-channel min-max weights, per-tensor min-max activations"
    paper = "Guo et al. 2022 (ICLR), arXiv 2202.07471"
    presets: ClassVar = {"strict": {}, "fast": {"calibration": {"per_step": 25}}}
    softmax_bits = SOFTMAX_BITS
    settings: SQuantSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return the calibration request: only activations need one."""
        return self.settings.calibration if target == "activations" else None

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Put each layer's weight on the grid of its channels' extremes, at the integers that SQuant chooses."""
        for layer in model.layers.values():
            if layer.bits.weights < FULL_PRECISION_BITS:
                grid = quant.min_max_per_channel(layer.weight, layer.bits.weights)
                layer.adopt(grid, squant_integers(layer.weight, grid))

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Give each activation the grid of what it met in calibration."""
        quant.set_input_grids(model, needed(data), self.settings.activations)


def squant_integers(weight: Tensor, grid: AffineGrid) -> Tensor:
    """Return the integers that SQuant chooses for a weight, as floats in the shape of ``weight``.

    Errors are integer - zero point - weight / scale. From round to nearest, each kernel flips its largest errors until
    their sum is within 0.5 (SQuant-K); then each output channel flips at most one more element of each kernel until
    the sum over the channel is within 0.5 (SQuant-C). In the end |error| <= 1 for every element, |sum| <= 1 for every
    kernel and |sum| <= 0.5 for every channel. Where kernels have one element (linear layers, 1x1 convolutions), the
    first level has nothing to do.

    A flip is admissible if it changes the sign of its element's error and stays on the grid; so what was clamped to
    the grid never flips, but its error counts. Where too few flips are admissible to keep a bound, all of them are
    made. That is rare on a grid of extremes, which clamps nothing.

    Source: SQuant (arXiv 2202.07471), section 3, flips and their candidates as in the authors' code.

    Args:
        weight: [out channels, in channels of a group, ...].
        grid: a scalar one, or one for each output channel.
    """
    weight = weight.detach()
    integers = grid.quantize(weight)
    errors = integers - grid.zero_point - weight / grid.scale
    kernels = (*weight.shape[:2], -1)
    integers, errors = integers.reshape(kernels), errors.reshape(kernels)
    steps, spare = _kernel_steps(integers, errors, grid.levels)
    steps += _channel_steps(errors + steps, spare)
    return (integers + steps).view(weight.shape)


def _kernel_steps(integers: Tensor, errors: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Return SQuant-K's steps of all elements, and the one step of each kernel that is left for its channel to take.

    That step carries the kernel's sum across 0: the next flip if the sum has not got there yet, the last one taken
    back if it has.
    """
    sums = errors.sum(2, keepdim=True)
    direction = -sums.sign()
    stepped = integers + direction
    admissible = (errors * direction < 0) & (stepped >= 0) & (stepped < levels)
    rank, count = _largest(errors.abs() * admissible, sums)
    remainder = sums + direction * count
    crossed = remainder * direction > 0
    candidate = (rank == count - crossed.to(count)) & admissible
    return direction * (rank < count), -remainder.sign() * candidate


def _channel_steps(errors: Tensor, spare: Tensor) -> Tensor:
    """Return SQuant-C's steps: those spare ones that bring each channel's sum nearest to 0, largest errors first."""
    sums = errors.sum((1, 2)).unsqueeze(1)
    useful = spare * sums.sign().unsqueeze(2) < 0
    rank, count = _largest((errors.abs() * useful).amax(2), sums)
    return spare * (rank < count).unsqueeze(2)


def _largest(sizes: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rank of each size in the last dimension, and how many steps of 1 bring sums nearest to 0.

    A size of 0 stands for a step that cannot be taken. Of equal sizes the first ranks first.
    """
    rank = sizes.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    count = sums.abs().round().minimum((sizes > 0).sum(-1, keepdim=True))
    return rank, count
