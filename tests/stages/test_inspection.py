"""What a method leaves on a model is looked at before it is stored."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.errors import StageError
from qbench.plugins import METHODS
from qbench.quant import AffineGrid, DynamicGrid, QuantModel, SplitGrid, StepGrid, WeightRanges, set_weight_grids
from qbench.stages.inspection import inspect
from qbench_methods.linear import Linear, LinearSettings


def grid(bits: int = 4, scale: float = 0.1) -> AffineGrid:
    return AffineGrid(bits, torch.tensor(scale), torch.tensor(3.0))


def quantized(bits: str = "W4A4") -> QuantModel:
    module = nn.Sequential(nn.Conv2d(4, 6, 1), nn.Linear(6, 2)).requires_grad_(False)
    model = QuantModel(module, Structure(("0", "1")), BitWidth.parse(bits))
    set_weight_grids(model, WeightRanges())
    return model


def check(model: QuantModel) -> None:
    inspect(model, Linear(METHODS.entry("linear"), LinearSettings()))


def test_what_fits_is_taken() -> None:
    model = quantized()
    model.taps["0"].grid, model.taps["1"].grid = SplitGrid(2, grid(), grid()), DynamicGrid(4)
    check(model)
    check(quantized("W32A32"))


@pytest.mark.parametrize(
    ("put", "told"),
    [
        (lambda model: setattr(model.taps["0"], "grid", grid(8)), "gave the input of '0' 8 bits where 4 are due"),
        (lambda model: setattr(model.layers["1"], "weight_grid", grid(5)), "the weight of '1' 5 bits where 4 are due"),
        (lambda model: setattr(model.taps["1"], "grid", grid(4, -1.0)), "a grid with a scale that is not positive"),
        (
            lambda model: setattr(model.taps["0"], "grid", SplitGrid(4, grid(), grid())),
            "gave the input of '0' a grid split at 4, where there is no such channel",
        ),
        (
            lambda model: setattr(model.layers["0"], "_grid", StepGrid(4, torch.ones(2), torch.zeros(2))),
            "that changes with the step",
        ),
        (lambda model: setattr(model.layers["1"], "_rounded", torch.full((2, 6), torch.nan)), "'1' is not finite"),
    ],
)
def test_what_could_not_be_stored_or_is_too_much_is_refused(put: Callable[[QuantModel], None], told: str) -> None:
    model = quantized()
    put(model)
    with pytest.raises(StageError, match=re.escape(told)):
        check(model)


def test_bits_where_none_are_due_are_refused() -> None:
    model = quantized("W4A32")
    model.taps["0"].grid = grid()
    with pytest.raises(StageError, match="gave the input of '0' 4 bits where 32 are due"):
        check(model)


@pytest.mark.usefixtures("fake_plugins")
def test_a_replaced_layer_is_looked_at_too() -> None:
    from micro_layers import Stranger, table

    model = quantized("W4A32")
    layer = model.layers["0"]
    layer.replace(table(layer, 4))
    check(model)
    layer.replace(table(layer, 8))
    with pytest.raises(StageError, match="gave the weight of '0' 8 bits where 4 are due"):
        check(model)
    layer.replace(table(layer, 4))
    assert layer.replacement is not None
    layer.replacement.input_bits = 8
    with pytest.raises(StageError, match="gave the input of '0' 8 bits where 32 are due"):
        check(model)
    layer.replace(table(layer, 4, Stranger))
    with pytest.raises(StageError, match=r"replaced '0' by a Stranger whose kind 'micro-table' is that of .*Table"):
        check(model)
    layer.replace(table(layer, 4))
    assert layer.replacement is not None
    layer.replacement.extra = nn.Parameter(torch.zeros(1), requires_grad=False)
    with pytest.raises(StageError, match="whose extra is a parameter, where a buffer is due"):
        check(model)
    layer.replace(table(layer, 4))
    assert layer.replacement is not None
    layer.replacement.scale.fill_(float("nan"))
    with pytest.raises(StageError, match="whose scale is not finite"):
        check(model)
