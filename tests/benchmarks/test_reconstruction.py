"""Reconstruction must cost little more than the blocks' own forward and backward."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.quant import CalibrationData, QuantModel, RoundingRecipe, WeightRanges, set_weight_grids
from qbench.quant.reconstruction import fit_rounding
from qbench.quant.rounding import SoftRounding
from qbench.quant.units import Unit, Walk

ITERATIONS = 20


@pytest.fixture
def model(tiny_ddim: Callable[[BitWidth], QuantModel]) -> QuantModel:
    made = tiny_ddim(BitWidth(4, 32))
    set_weight_grids(made, WeightRanges())
    return made


class Reached(Exception):
    """Ends a run of the network at the block that it was for."""


def naive_loop(model: QuantModel, data: CalibrationData, names: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and targets unit by unit, as is usual: run the network from its input up to each in turn.

    They are tensors of all rows, so that any rows can be drawn from them, as from what a walk keeps.
    """
    for name in names:
        inputs, targets = [], []
        block = model.module.get_submodule(name)
        for start in range(0, len(data), data.batch_size):
            rows = slice(start, start + data.batch_size)
            for kept, what, state in ((targets, "output", model.full_precision()), (inputs, "input", nullcontext())):
                with state, stopping_at(block, kept, what), torch.no_grad():
                    model(data.x[rows], data.timesteps[rows])
        yield torch.cat(inputs), torch.cat(targets)


@contextmanager
def stopping_at(block: nn.Module, kept: list[Tensor], what: str) -> Iterator[None]:
    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept.append(inputs[0])
        raise Reached

    def behind(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append(output)
        raise Reached

    hook = block.register_forward_pre_hook(before) if what == "input" else block.register_forward_hook(behind)
    try:
        yield
    except Reached:
        pass
    finally:
        hook.remove()


def test_collecting_inputs_and_targets_of_all_units(
    model: QuantModel, data: CalibrationData, takes_at_most: Callable[..., bool]
) -> None:
    def walk() -> None:
        for unit in Walk(model, data, "block", "quantized"):
            assert unit.layers

    names = Walk(model, data, "block", "quantized").names()

    def naive() -> None:
        for inputs, targets in naive_loop(model, data, names):
            assert len(inputs) == len(targets) == len(data)

    assert takes_at_most(walk, naive, 1 / 6, "collecting all blocks' inputs and targets over a run up to each block")


def test_both_ways_of_collecting_give_the_same_targets(model: QuantModel, data: CalibrationData) -> None:
    units = list(Walk(model, data, "block", "quantized"))
    names = [unit.name for unit in units]
    for unit, (_, targets) in zip(units, naive_loop(model, data, names), strict=True):
        # Kept rows are contiguous, where attention hands its output on transposed; convolutions then add otherwise.
        torch.testing.assert_close(unit.target[slice(0, len(data))], targets, rtol=1e-4, atol=1e-4)


BLOCKS = ("down_blocks.0.resnets.0", "mid_block.resnets.0", "mid_block.attentions.0", "up_blocks.0.resnets.0")


@pytest.mark.parametrize("name", BLOCKS)
def test_an_iteration_against_the_blocks_own_forward_and_backward(
    model: QuantModel, data: CalibrationData, takes_at_most: Callable[..., bool], one_thread: None, name: str
) -> None:
    """The block's own: only the weights that are learned ask for their gradients.

    On one thread, which is what `qbench run` gives each of as many processes as there are cores. On more, what is
    compared at this size is how long threads wait for each other.
    """
    unit = next(each for each in Walk(model, data, "block", "quantized") if each.name == name)
    roundings = {
        each: SoftRounding(layer.weight, layer.weight_grid)
        for each, layer in unit.layers.items()
        if layer.weight_grid is not None
    }
    recipe = RoundingRecipe(iterations=ITERATIONS, warm_up=0.0)
    weights = [layer.weight for layer in unit.layers.values()]
    rows = torch.arange(recipe.batch_size)

    def reconstruct() -> None:
        fit_rounding(unit, roundings, data, recipe)

    def own() -> None:
        for weight in weights:
            weight.requires_grad_(True)
        with model.full_precision():
            for _ in range(ITERATIONS):
                forward_and_backward(unit, rows, weights)
        for weight in weights:
            weight.requires_grad_(False)

    compared = f"an iteration of reconstruction over the block's own forward and backward: {name}"
    assert takes_at_most(reconstruct, own, 1.3, compared)


def forward_and_backward(unit: Unit, rows: Tensor, weights: list[Tensor]) -> None:
    for weight in weights:
        weight.grad = None
    loss = (unit.forward(rows) - unit.target[rows]).square().mean()
    torch.autograd.backward(loss)
