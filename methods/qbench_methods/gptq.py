"""GPTQ: each rounding's error is made up for by the weights that are not rounded yet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from qbench import quant
from qbench.bits import SOFTMAX_BITS
from qbench.errors import StageError
from qbench.method import (
    BitWidth,
    CalibrationData,
    CalibrationRequest,
    MemoryProfile,
    Method,
    Settings,
    Target,
    UniformSteps,
    needed,
)
from qbench.quant.recipes import FAST_RANGE_ROWS, FAST_SAMPLES, ActivationRanges, WeightRanges

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant import AffineGrid, QuantModel, WeightGrid


class GPTQSettings(Settings):
    """Settings of GPTQ."""

    calibration: Annotated[CalibrationRequest, Field(description="what it is calibrated on")] = UniformSteps()
    weights: Annotated[WeightRanges, Field(description="how grids of weights are chosen")] = WeightRanges()
    damping: Annotated[float, Field(ge=0, description="what is added to the Hessian's diagonal, by its mean")] = 0.01
    ordered: Annotated[bool, Field(description="whether columns of large diagonals come first (act-order)")] = False
    columns_at_once: Annotated[int, Field(ge=1, description="columns between updates of all; costs time only")] = 128
    granularity: Annotated[
        Literal["block", "layer"], Field(description="whether Hessians are taken block by block, or layer by layer")
    ] = "block"
    activations: Annotated[ActivationRanges, Field(description="how grids of activations are chosen")] = (
        ActivationRanges()
    )


class GPTQ(Method):
    """Weights are rounded column by column; each error is spread over the columns to come, as the Hessian says.

    The Hessian 2 X X^T is that of a layer's squared output error, over the inputs X of all calibration rows; for a
    convolution, over all its windows. As in the authors' code, inputs come from the network with the blocks before
    quantized, all layers of a block at once; grids are the extremes of each output channel and do not move.

    Columns whose input is always 0 are rounded to nearest; the authors set them to 0, which would bar the way to
    inputs that calibration did not meet. The paper quantizes weights only; activations get the extremes' range, as in
    ``linear``.
    """

    settings_class = GPTQSettings
    title = "GPTQ: second-order rounding, column by column"
    paper = "Frantar et al. 2023 (GPTQ), arXiv 2210.17323"
    presets: ClassVar = {
        "strict": {},
        "fast": {"calibration": {"per_step": FAST_SAMPLES}, "activations": {"samples": FAST_RANGE_ROWS}},
    }
    softmax_bits = SOFTMAX_BITS
    settings: GPTQSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        """Return the calibration request, for weights and activations alike."""
        return self.settings.calibration

    def memory_profile(self, target: Target) -> MemoryProfile:
        """Return what the settings say, and that Hessians are taken for weights."""
        granularity = self.settings.granularity
        return replace(super().memory_profile(target), hessians=target == "weights", granularity=granularity)

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Choose grids and round to them, in execution order."""
        how = self.settings.damping, self.settings.ordered, self.settings.columns_at_once
        quant.set_weight_grids(model, self.settings.weights)
        grids = {name: layer.weight_grid for name, layer in model.layers.items() if layer.weight_grid is not None}
        for name in grids:
            model.layers[name].weight_grid = None  # until its turn comes
        for name, hessian in quant.input_hessians(model, needed(data), self.settings.granularity):
            layer, grid = model.layers[name], grids.pop(name)
            try:
                layer.adopt(grid, gptq_integers(layer.weight, grid, hessian, *how))
            except ValueError as error:
                raise StageError(f"the weight of {name!r}: {error}") from error
        for name, grid in grids.items():
            model.layers[name].weight_grid = grid  # it is never called

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        """Give each activation the grid of what it met in calibration."""
        quant.set_input_grids(model, needed(data), self.settings.activations)


def gptq_integers(
    weight: Tensor,
    grid: WeightGrid,
    hessian: Tensor,
    damping: float = 0.01,
    ordered: bool = False,
    columns_at_once: int = 128,
) -> Tensor:
    """Return the integers that GPTQ chooses for a weight, as floats in the shape of ``weight``.

    Column after column is rounded to nearest; what is lost there, divided by the diagonal, is taken off the columns
    behind along the row of the upper Cholesky factor of the inverse Hessian.

    Source: GPTQ (arXiv 2210.17323), section 3.3, algorithm 1.

    Args:
        weight: [out channels, in channels of a group, ...].
        grid: any for that weight.
        hessian: [groups, columns, columns], as ``input_hessians`` gives it.
        damping: as a share of the mean of the diagonal.
        ordered: whether columns with large diagonals come first.
        columns_at_once: how many are rounded before all columns behind are updated.

    Raises:
        ValueError: the Hessian cannot be inverted.
    """
    if ordered:
        order = hessian.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
        hessian = hessian.take_along_dim(order[:, :, None], 1).take_along_dim(order[:, None, :], 2)
    factor = quant.inverse_factor(hessian, damping)
    dense = grid.dense(weight.shape)
    by_column = [
        each.detach().expand(weight.shape).reshape(len(factor), -1, factor.shape[1])
        for each in (weight, dense.scale, dense.zero_point)
    ]
    if ordered:
        by_column = [each.take_along_dim(order[:, None, :], 2) for each in by_column]
    rest, scale, zero_point = (each.to(factor.device) for each in by_column)
    flat = quant.AffineGrid(grid.bits, scale, zero_point)
    integers = _rounded_in_turn(rest.to(factor, copy=True), flat, factor, columns_at_once).to(weight.device)
    if ordered:
        integers = integers.take_along_dim(order.argsort(dim=1)[:, None, :], 2)
    return integers.reshape(weight.shape)


def _rounded_in_turn(rest: Tensor, grid: AffineGrid, factor: Tensor, at_once: int) -> Tensor:
    """Return the integers [groups, rows, columns] for weights, scales and zero points of the same shape."""
    integers = grid.zero_point.clone()
    for start in range(0, rest.shape[2], at_once):
        block, rows = rest[:, :, start : start + at_once], factor[:, start : start + at_once]
        errors = block.clone()
        for index in range(block.shape[2]):
            column = start + index
            own = quant.AffineGrid(grid.bits, grid.scale[:, :, column], grid.zero_point[:, :, column])
            integers[:, :, column] = own.quantize(block[:, :, index].to(own.scale))
            lost = block[:, :, index] - own.dequantize(integers[:, :, column])
            errors[:, :, index] = lost / rows[:, index, column, None]
            behind = rows[:, index, None, column + 1 : start + block.shape[2]]
            block[:, :, index + 1 :] -= errors[:, :, index, None] * behind
        rest[:, :, start + at_once :] -= errors @ rows[:, :, start + at_once :]
    return integers
