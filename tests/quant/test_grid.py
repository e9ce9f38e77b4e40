import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qbench.quant.grid import AffineGrid, grid_from_range

BITS = (2, 3, 4, 5, 6, 7, 8)
BOUND = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_closed_form_of_an_asymmetric_range() -> None:
    grid = grid_from_range(scalar(-1.0), scalar(2.0), 2)
    assert (grid.levels, float(grid.scale), float(grid.zero_point)) == (4, 1.0, 1.0)
    x = torch.tensor([-3.0, -1.0, -0.4, 0.4, 0.6, 1.4, 1.6, 2.0, 9.0])
    assert grid.quantize(x).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert grid(x).tolist() == [-1, -1, 0, 0, 1, 1, 2, 2, 2]


def test_closed_form_of_eight_bits() -> None:
    grid = grid_from_range(scalar(-0.2), scalar(0.8), 8)
    assert float(grid.scale) == pytest.approx(1 / 255)
    assert float(grid.zero_point) == 51
    assert float(grid(scalar(0.3))) == pytest.approx(76 / 255)


@pytest.mark.parametrize(
    ("low", "high", "zero_point", "scale"), [(1.0, 3.0, 0, 3 / 15), (-3.0, -1.0, 15, 3 / 15), (0.0, 1.5, 0, 0.1)]
)
def test_a_range_is_widened_to_contain_zero(low: float, high: float, zero_point: int, scale: float) -> None:
    grid = grid_from_range(scalar(low), scalar(high), 4)
    assert float(grid.zero_point) == zero_point
    assert float(grid.scale) == pytest.approx(scale)


@pytest.mark.parametrize("bits", BITS)
def test_there_are_two_to_the_bits_values(bits: int) -> None:
    grid = grid_from_range(scalar(-0.37), scalar(1.11), bits)
    integers = grid.quantize(torch.linspace(-2, 2, 10_000))
    assert integers.unique().tolist() == list(range(2**bits))


@given(low=BOUND, high=BOUND, bits=st.sampled_from(BITS), shares=st.lists(st.floats(0, 1, width=32), min_size=1))
@settings(deadline=None, max_examples=150, derandomize=True)
def test_within_the_range_the_error_is_half_a_step_and_zero_is_exact(
    low: float, high: float, bits: int, shares: list[float]
) -> None:
    low, high = min(low, high), max(low, high)
    assume(max(abs(low), abs(high)) > 1e-30)
    grid = grid_from_range(scalar(low), scalar(high), bits)
    x = scalar(low) + torch.tensor(shares) * (scalar(high) - scalar(low))
    x = torch.cat([x, torch.tensor([low, high])]).clamp(low, high)
    slack = 1e-5 * max(abs(low), abs(high))  # the rounding of float32 itself
    assert float((grid(x) - x).abs().max()) <= float(grid.scale) / 2 + slack
    assert float(grid(scalar(0.0))) == 0.0
    assert float(grid.zero_point) == round(float(grid.zero_point))
    assert 0 <= float(grid.zero_point) <= grid.levels - 1


@given(low=BOUND, high=BOUND, bits=st.sampled_from(BITS), values=st.lists(BOUND, min_size=1))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_rounding_to_the_grid_once_is_enough(low: float, high: float, bits: int, values: list[float]) -> None:
    grid = grid_from_range(scalar(min(low, high)), scalar(max(low, high)), bits)
    once = grid(torch.tensor(values))
    assert torch.equal(grid(once), once)
    integers = grid.quantize(torch.tensor(values))
    assert torch.equal(integers, integers.round().clamp(0, grid.levels - 1))


def test_values_outside_are_clamped_to_the_ends() -> None:
    grid = grid_from_range(scalar(-1.0), scalar(1.0), 4)
    ends = grid(torch.tensor([-1e9, 1e9]))
    assert torch.equal(ends, grid.dequantize(torch.tensor([0.0, 15.0])))


@pytest.mark.parametrize("bits", BITS)
def test_per_tensor_agrees_with_torch(bits: int) -> None:
    x = random(4, 500) * 1.5
    grid = grid_from_range(scalar(-2.1), scalar(3.3), bits)
    position = x / grid.scale
    x = x[(position - position.floor() - 0.5).abs() > 1e-3]  # at exact halves the two may round to different sides
    theirs = torch.fake_quantize_per_tensor_affine(x, float(grid.scale), int(grid.zero_point), 0, grid.levels - 1)
    torch.testing.assert_close(grid(x), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(5, 30), (5, 3, 4), (5, 3, 2, 2)])
def test_per_channel_agrees_with_torch(bits: int, shape: tuple[int, ...]) -> None:
    x = random(*shape) * torch.arange(1.0, 6.0).view(5, *(1,) * (len(shape) - 1))
    broadcast = (-1, *(1,) * (len(shape) - 1))
    flat = x.flatten(1)
    grid = grid_from_range(flat.amin(1).view(broadcast), flat.amax(1).view(broadcast), bits)
    x = x + (x / grid.scale % 1 - 0.5).abs().lt(1e-3) * grid.scale * 0.01
    theirs = torch.fake_quantize_per_channel_affine(
        x, grid.scale.flatten(), grid.zero_point.flatten().to(torch.int32), 0, 0, grid.levels - 1
    )
    torch.testing.assert_close(grid(x), theirs, rtol=1e-6, atol=1e-6)


def test_an_all_zero_channel_stays_exact() -> None:
    low, high = torch.tensor([[0.0], [-1.0]]), torch.tensor([[0.0], [1.0]])
    grid = grid_from_range(low, high, 4)
    assert grid.scale[0] == 1
    assert torch.equal(grid(torch.zeros(2, 5)), torch.zeros(2, 5))


@pytest.mark.parametrize("value", [0.7, -0.7, 1e-20, 1e20])
@pytest.mark.parametrize("bits", BITS)
def test_a_constant_channel_is_met_to_rounding(value: float, bits: int) -> None:
    grid = grid_from_range(scalar(value), scalar(value), bits)
    assert float(grid(scalar(value))) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", ["low", "high"])
def test_a_range_that_is_not_finite_is_refused(broken: float, side: str) -> None:
    bounds = {"low": torch.tensor([-1.0, -1.0]), "high": torch.tensor([1.0, 1.0])}
    bounds[side][1] = broken
    with pytest.raises(ValueError, match="not finite"):
        grid_from_range(bounds["low"], bounds["high"], 4)


def test_what_is_quantized_is_left_as_it_is() -> None:
    x = torch.tensor([-9.0, 0.3, 9.0])
    grid_from_range(scalar(-1.0), scalar(1.0), 4)(x)
    assert torch.equal(x, torch.tensor([-9.0, 0.3, 9.0]))


def test_a_grid_moves_as_a_whole() -> None:
    grid = AffineGrid(4, scalar(0.1), scalar(3.0)).to(torch.device("meta"))
    assert (grid.bits, grid.scale.device.type, grid.zero_point.device.type) == (4, "meta", "meta")
