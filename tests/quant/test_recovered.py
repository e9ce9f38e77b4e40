import pytest
import torch
from torch import Tensor

from qbench.quant import AffineGrid, min_max_per_channel, mse_per_channel, recovered_grid


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(6, 40), (6, 5, 3, 3)])
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("make", [min_max_per_channel, mse_per_channel])
def test_a_rounded_weight_is_on_a_grid_of_its_bits(make, bits: int, shape: tuple[int, ...]) -> None:
    weight = random(*shape)
    rounded = make(weight, bits)(weight)
    grid = recovered_grid(rounded, bits)
    assert grid is not None
    assert (grid.bits, grid.scale.shape) == (bits, (6, *[1] * (len(shape) - 1)))
    torch.testing.assert_close(grid.dequantize(grid.quantize(rounded)), rounded, rtol=1e-5, atol=1e-6)
    assert grid.fault(weight.shape) is None


def test_symmetric_grids_without_a_zero_point_are_found_too() -> None:
    integers = torch.tensor([[-7.0, -3, 0, 1, 7], [-2, -1, 0, 1, 2]])
    grid = recovered_grid(integers * torch.tensor([[0.5], [0.03]]), 4)
    assert grid is not None
    torch.testing.assert_close(grid.scale.flatten(), torch.tensor([0.5, 0.03]))


@pytest.mark.parametrize("stored_as", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_half_precision_is_forgiven(bits: int, stored_as: torch.dtype) -> None:
    weight = random(6, 5, 3, 3)
    grid = min_max_per_channel(weight, bits)
    stored = grid(weight).to(stored_as).float()
    assert bits == 2 or recovered_grid(stored, bits) is None
    found = recovered_grid(stored, bits, stored_as)
    assert found is not None
    assert torch.equal(found.quantize(stored), grid.quantize(weight))


def test_eight_bits_in_float16_are_found() -> None:
    weight = random(6, 400)
    grid = min_max_per_channel(weight, 8)
    stored = grid(weight).half().float()
    found = recovered_grid(stored, 8, torch.float16)
    assert found is not None
    assert (found.quantize(stored) - grid.quantize(weight)).abs().max() <= 1


@pytest.mark.parametrize("stored_as", [torch.float32, torch.float16])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_weight_that_nobody_rounded_is_on_none_in_any_type(bits: int, stored_as: torch.dtype) -> None:
    assert recovered_grid(random(6, 400).to(stored_as).float(), bits, stored_as) is None


def test_channels_of_few_weights_are_found_though_no_two_are_one_step_apart() -> None:
    integers = torch.tensor([[0.0, 15, 4, 6, 10, 12, 8, 2, 13]])
    found = recovered_grid((integers - 6) * 0.037, 4)
    assert found is not None
    torch.testing.assert_close(found.scale.flatten(), torch.tensor([0.037]))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_weight_that_nobody_rounded_is_on_none(bits: int) -> None:
    assert recovered_grid(random(6, 400), bits) is None


def test_more_bits_are_not_found_on_fewer() -> None:
    weight = random(6, 400)
    assert recovered_grid(min_max_per_channel(weight, 5)(weight), 4) is None


def test_one_channel_that_is_on_none_is_enough() -> None:
    weight = random(6, 400)
    rounded = min_max_per_channel(weight, 4)(weight)
    rounded[3, 7] += 0.3 * (rounded[3].max() - rounded[3].min()) / 15
    assert recovered_grid(rounded, 4) is None


def test_levels_that_are_not_evenly_spaced_are_no_uniform_grid() -> None:
    assert recovered_grid(torch.tensor([[-8.0, -4.0, -2.0, -1.3, 0.0, 1.3, 2.0, 4.0, 8.0]]), 4) is None


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_a_constant_channel_comes_back(value: float) -> None:
    weight = torch.full((1, 9), value)
    grid = recovered_grid(weight, 3)
    assert grid is not None
    torch.testing.assert_close(grid(weight), weight)


def test_rounding_errors_of_other_programs_are_forgiven() -> None:
    weight = random(6, 400)
    grid = min_max_per_channel(weight, 4)
    half = grid(weight).double() * (1 + 1e-6 * random(6, 400, seed=1))
    found = recovered_grid(half.float(), 4)
    assert isinstance(found, AffineGrid)
    torch.testing.assert_close(found.scale, grid.scale, rtol=1e-5, atol=0)
