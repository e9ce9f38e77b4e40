"""A grid with a factor for each input channel: what it rounds to, and how it is stored and loaded."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.errors import DataError
from qbench.quant import ActivationRanges, ChannelScaledGrid, QuantModel, StepSizeRecipe, learn_step_sizes
from qbench.quant.grid import AffineGrid, Grid, grid_from_range
from qbench.quant.grid_kinds import DynamicGrid, SplitGrid, StepGrid, grid_from_parts
from qbench.quant.integer import refusal
from qbench.quant.packing import (
    input_grid_fault,
    load_input_grids,
    load_weights,
    save_input_grids,
    save_weights,
)
from qbench.quant.ranges import min_max_per_channel
from qbench.quant.round_to_nearest import set_input_grids

Make = Callable[..., Any]
CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def factors(*shape: int) -> Tensor:
    return random(*shape, seed=7).exp()


SHAPES = [
    pytest.param((5, 7, 3, 3), (7, 1, 1), id="convolution"),
    pytest.param((5, 7, 3), (7, 1), id="1-D convolution"),
    pytest.param((5, 7), (7,), id="linear"),
]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("shape", "of_factor"), SHAPES)
def test_a_weights_channels_are_rounded_at_their_own_scales(
    shape: tuple[int, ...], of_factor: tuple[int, ...], bits: int
) -> None:
    weight, factor = random(*shape), factors(*of_factor)
    grid = ChannelScaledGrid(min_max_per_channel(weight / factor, bits), factor)
    assert (grid.bits, grid.fault(shape)) == (bits, None)
    for channel in range(shape[1]):
        value = float(factor.flatten()[channel])
        assert torch.equal(grid(weight)[:, channel], grid.inner(weight / factor)[:, channel] * value)
    integers = grid.quantize(weight)
    assert torch.equal(integers, integers.round().clamp(0, 2**bits - 1))
    assert torch.equal(grid.dequantize(integers), grid(weight))
    assert torch.equal(grid.quantize(grid(weight)), integers)
    dense = grid.dense(shape)
    torch.testing.assert_close(dense.dequantize(integers), grid(weight), rtol=1e-6, atol=0)
    assert torch.equal(dense.zero_point.expand(shape), grid.inner.zero_point.expand(shape))


STEPS = torch.tensor([0, 2])
INNER: list[Any] = [
    pytest.param(AffineGrid(4, torch.tensor(0.3), torch.tensor(6.0)), id="static"),
    pytest.param(StepGrid(4, torch.tensor([0.1, 0.3, 0.5]), torch.tensor([6.0, 8.0, 3.0])), id="steps"),
    pytest.param(DynamicGrid(4, 1), id="dynamic"),
]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize(
    ("shape", "of_factor"), [((2, 7, 4, 4), (7, 1, 1)), ((2, 3, 7), (7,)), ((2, 7), (7,))], ids=["image", "tokens", "1"]
)
def test_an_input_is_divided_rounded_and_multiplied(
    inner: Any, shape: tuple[int, ...], of_factor: tuple[int, ...]
) -> None:
    x, grid = random(*shape), ChannelScaledGrid(inner, factors(*of_factor))
    before = x.clone()
    assert torch.equal(grid(x, STEPS), inner(x / grid.factor, STEPS) * grid.factor)
    assert torch.equal(x, before)
    alone = torch.cat([grid(x[:1], STEPS[:1]), grid(x[1:], STEPS[1:])])
    assert torch.equal(alone, grid(x, STEPS)), "an image depends on its neighbours"


@pytest.mark.parametrize("inner", INNER)
def test_its_parts_make_it_again(inner: Any) -> None:
    grid = ChannelScaledGrid(inner, factors(7)).to(CPU)
    assert grid.fault(None) is None
    config = json.loads(json.dumps(grid.config()))
    again = grid_from_parts(config, grid.tensors())
    assert type(again) is ChannelScaledGrid
    assert type(again.inner) is type(inner)
    assert again.config() == grid.config()
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in grid.tensors().items())


STATIC = AffineGrid(4, torch.tensor(0.3), torch.tensor(6.0))


@pytest.mark.parametrize(
    ("factor", "inner", "weight_shape", "fault"),
    [
        (torch.ones(3), STATIC, (2, 7), r"with factors of shape \(3,\), where one for each input channel is due"),
        (torch.ones(7), STATIC, (2, 7, 3, 3), r"with factors of shape \(7,\)"),
        (torch.ones(7, 1, 1), STATIC, (2, 7), r"with factors of shape \(7, 1, 1\)"),
        (torch.tensor(1.0), STATIC, None, r"with factors of shape \(\)"),
        (torch.ones(1, 7, 1, 1), STATIC, None, r"with factors of shape \(1, 7, 1, 1\)"),
        (torch.tensor([1.0, 0.0]), STATIC, None, "with a factor that is not positive and finite"),
        (torch.tensor([1.0, -2.0]), STATIC, None, "with a factor that is not positive and finite"),
        (torch.tensor([1.0, float("nan")]), STATIC, None, "with a factor that is not positive and finite"),
        (torch.tensor([1.0, float("inf")]), STATIC, None, "with a factor that is not positive and finite"),
        (torch.ones(7), DynamicGrid(4), (2, 7), "that changes with its input"),
        (torch.ones(7), AffineGrid(4, torch.tensor(-0.3), torch.tensor(6.0)), None, "a scale that is not positive"),
    ],
)
def test_what_could_not_be_loaded_again_is_told(factor: Tensor, inner: Any, weight_shape: Any, fault: str) -> None:
    assert re.search(fault, str(ChannelScaledGrid(inner, factor).fault(weight_shape)))


@pytest.mark.parametrize(
    ("config", "changes", "reason"),
    [
        ({}, {"factor": None}, "incomplete: 'factor'"),
        ({"inner": None}, {}, "incomplete"),
        ({"inner": {"kind": "affine"}}, {}, "incomplete: 'bits'"),
        ({"inner": {"kind": "affine", "bits": 3}}, {}, "of 3 bits, where 4 are due"),
        ({"inner": {"kind": "channel-scaled", "bits": 4, "inner": {}}}, {}, "incomplete: 'factor'"),
        ({"inner": {"kind": "round", "bits": 4}}, {}, "its kind 'round' is not known"),
        ({}, {"factor": torch.ones(7, dtype=torch.float64)}, "its factors are torch.float64, not float32"),
        ({"kind": "affine"}, {}, "it has factors, which it cannot use"),
    ],
)
def test_parts_of_something_else_are_refused(config: Any, changes: Any, reason: str) -> None:
    grid = ChannelScaledGrid(STATIC, torch.ones(7))
    tensors = {name: tensor for name, tensor in (grid.tensors() | changes).items() if tensor is not None}
    with pytest.raises(ValueError, match=reason):
        grid_from_parts(grid.config() | config, tensors)


def test_a_split_grid_has_no_factors() -> None:
    config = {"kind": "channel-scaled", "bits": 4, "inner": {"kind": "split", "bits": 4, "index": 3}}
    both = {"scale": torch.ones(2), "zero_point": torch.zeros(2), "factor": torch.ones(7)}
    with pytest.raises(ValueError, match="its inner grid is a SplitGrid of 4 bits"):
        grid_from_parts(config, both)


def test_where_the_inner_grid_changes_integers_stand_for_nothing() -> None:
    with pytest.raises(ValueError, match="a DynamicGrid changes, so its integers alone stand for nothing"):
        ChannelScaledGrid(DynamicGrid(4), torch.ones(7)).quantize(random(2, 7))


def in_factors(model: QuantModel) -> dict[str, Tensor]:
    sizes = {name: (layer.weight.shape[1], *(1,) * (layer.weight.dim() - 2)) for name, layer in model.layers.items()}
    return {name: factors(*size) for name, size in sizes.items()}


def scaled(model: QuantModel, data: Any, granularity: str) -> QuantModel:
    """Put such grids onto all weights and inputs."""
    given = in_factors(model)
    for name, layer in model.layers.items():
        inner = min_max_per_channel(layer.weight * given[name], layer.bits.weights)
        layer.weight_grid = ChannelScaledGrid(inner, 1 / given[name])
    set_input_grids(model, data, ActivationRanges(granularity=granularity), factors=given)
    return model


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("granularity", ["tensor", "step", "token"])
def test_it_is_stored_and_loaded_to_the_bit(
    small_model: Make, small_data: Make, kind: str, granularity: str, tmp_path: Path
) -> None:
    data = small_data(kind)
    model, again = scaled(small_model(kind, "W4A8"), data, granularity), small_model(kind, "W4A8")
    save_weights(model, tmp_path / "weights")
    save_input_grids(model, tmp_path / "inputs")
    load_weights(again, tmp_path / "weights")
    load_input_grids(again, tmp_path / "inputs")
    for name, layer in model.layers.items():
        assert isinstance(again.layers[name].weight_grid, ChannelScaledGrid)
        assert isinstance(again.layers[name].input_grid, ChannelScaledGrid)
        assert torch.equal(again.layers[name].rounded, layer.rounded)
    given = (data.x, data.timesteps, data.context, data.step_indices)
    with torch.no_grad():
        expected = model(*given)
        assert torch.equal(again(*given), expected)
        again.freeze()
        assert torch.equal(again(*given), expected)


def test_factors_of_other_channels_are_refused(small_model: Make, small_data: Make, tmp_path: Path) -> None:
    model = scaled(small_model(bits="W4A8"), small_data(), "tensor")
    grid = ChannelScaledGrid(STATIC, torch.ones(5, 1, 1))
    assert "factors of shape (5, 1, 1)" in str(input_grid_fault(model, "conv_in", grid))
    assert "factors of shape (5, 1, 1)" in str(input_grid_fault(model, "mid_block.attentions.0.q", grid))
    model.layers["conv_in"].input_grid = grid
    save_input_grids(model, tmp_path / "inputs")
    with pytest.raises(DataError, match=r"holds a grid of 'conv_in' with factors of shape \(5, 1, 1\)"):
        load_input_grids(small_model(bits="W4A8"), tmp_path / "inputs")


def test_ranges_are_those_of_divided_inputs(small_model: Make, small_data: Make) -> None:
    model, seen = small_model(bits="W32A8"), []
    given = in_factors(model)
    set_input_grids(model, small_data(), ActivationRanges(), factors=given)
    found = model.layers["conv_out"].input_grid
    tap = model.layers["conv_out"].tap
    with model.full_precision():
        tap.observer = seen.append
        small_data().run_through(model)
    x = torch.cat(seen) / given["conv_out"]
    wanted = grid_from_range(x.min(), x.max(), 8)
    assert torch.equal(found.inner.scale, wanted.scale)
    assert torch.equal(found.inner.zero_point, wanted.zero_point)


def test_a_split_layer_with_factors_is_not_split(small_model: Make, small_data: Make) -> None:
    model = small_model(bits="W4A8")
    first, second = [name for name, layer in model.layers.items() if layer.split][:2]
    set_input_grids(model, small_data(), ActivationRanges(), split=True, factors={first: in_factors(model)[first]})
    assert isinstance(model.layers[first].input_grid, ChannelScaledGrid)
    assert isinstance(model.layers[second].input_grid, SplitGrid)


def test_its_step_size_is_learned_and_its_factors_stay(small_model: Make, small_data: Make) -> None:
    model = scaled(small_model(bits="W4A4"), small_data(), "tensor")
    before: dict[str, Grid] = {name: layer.input_grid for name, layer in model.layers.items()}
    learn_step_sizes(model, small_data(), StepSizeRecipe(iterations=3, batch_size=4, learning_rate=0.01), "block")
    moved = 0
    for name, layer in model.layers.items():
        assert torch.equal(layer.input_grid.factor, before[name].factor)
        moved += not torch.equal(layer.input_grid.inner.scale, before[name].inner.scale)
    assert moved > 10


def test_a_layer_with_factors_stays_simulated(small_model: Make, small_data: Make) -> None:
    model = scaled(small_model(bits="W8A8"), small_data(), "tensor")
    assert {refusal(layer) for layer in model.layers.values()} == {"has a ChannelScaledGrid of 8 bits"}
