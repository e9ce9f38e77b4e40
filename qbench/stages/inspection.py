"""What a method leaves on a model is looked at before it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from qbench.bits import FULL_PRECISION_BITS
from qbench.errors import StageError
from qbench.method import Method

if TYPE_CHECKING:
    from qbench.quant import Grid, QuantLayer, QuantModel, Replacement


def inspect(model: QuantModel, method: Method) -> None:
    """Refuse what cannot be stored and loaded to the bit, and more bits than the harness gave.

    Args:
        model: with the method's grids and replaced layers.
        method: the method.

    Raises:
        StageError: the first fault, with the method and the layer or activation.
    """
    from qbench.quant.packing import input_grid_fault

    for name, layer in model.layers.items():
        _check_replacement(name, layer, method)
        fault = None if layer.weight_grid is None else layer.weight_grid.fault(layer.weight.shape)
        _check_grid(f"the weight of {name!r}", layer.weight_grid, layer.bits.weights, method, fault)
        if not bool(layer.rounded.isfinite().all()):
            raise StageError(f"the weight of {name!r} is not finite after {method.name}")
    for name, tap in model.taps.items():
        what = "the input of" if name in model.layers else "the attention operand"
        fault = None if tap.grid is None else input_grid_fault(model, name, tap.grid)
        _check_grid(f"{what} {name!r}", tap.grid, tap.bits, method, fault)


def _check_grid(what: str, grid: Grid | None, given: int, method: Method, fault: str | None) -> None:
    if grid is None:
        return
    if given == FULL_PRECISION_BITS or grid.bits > given:
        raise StageError(f"{method.name} gave {what} {grid.bits} bits where {given} are due")
    if fault:
        raise StageError(f"{method.name} gave {what} a grid {fault}")


def _check_replacement(name: str, layer: QuantLayer, method: Method) -> None:
    module = layer.replacement
    if module is None:
        return
    for what, bits, given in (
        ("the weight of", module.weight_bits, layer.bits.weights),
        ("the input of", module.input_bits, layer.bits.activations),
    ):
        is_left = bits == FULL_PRECISION_BITS and what == "the input of"
        if not is_left and (given == FULL_PRECISION_BITS or bits > given):
            raise StageError(f"{method.name} gave {what} {name!r} {bits} bits where {given} are due")
    fault = module.fault()
    if fault is not None:
        raise StageError(f"{method.name} replaced {name!r} by a {type(module).__name__} {fault}")


def inspect_replacements(model: QuantModel, before: Mapping[str, Replacement | None], method: Method) -> None:
    """Refuse layers that were replaced while activations were quantized: nobody would store them.

    Args:
        model: with its activations quantized.
        before: what each layer was replaced by when the weights were loaded.
        method: the method.

    Raises:
        StageError: there is such a layer.
    """
    for name, layer in model.layers.items():
        if layer.replacement is not before[name]:
            raise StageError(
                f"{method.name} replaced {name!r} while it quantized activations, where it would not be stored: "
                "replace layers while weights are quantized, and say weights_depend_on_activations if they depend on "
                "the bits of activations"
            )
