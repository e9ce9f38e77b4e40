import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from qbench.quant.grid import AffineGrid, grid_from_range

BITS = (2, 3, 4, 5, 6, 7, 8, 16)
BOUND = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
SHAPES = [(5, 30), (5, 3, 4), (5, 3, 2, 2)]


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def per_channel_grid(x: Tensor, bits: int, symmetric: bool = False, share: float = 1.0) -> AffineGrid:
    """The grid of a share of each first-axis slice's extremes."""
    broadcast = (-1, *(1,) * (x.dim() - 1))
    low, high = x.flatten(1).amin(1).view(broadcast), x.flatten(1).amax(1).view(broadcast)
    return grid_from_range(low * share, high * share, bits, symmetric)


def off_half_steps(x: Tensor, grid: AffineGrid) -> Tensor:
    """Move what lies near a half step: torch multiplies by the inverse scale, and may round it to the other side."""
    position = x / grid.scale
    distance = (position - position.floor() - 0.5).abs()
    return torch.where(distance < 1e-4 + 3e-7 * grid.levels, x + 0.1 * grid.scale, x)


def test_closed_form_of_an_asymmetric_range() -> None:
    grid = grid_from_range(scalar(-1.0), scalar(2.0), 2)
    assert (grid.levels, float(grid.scale), float(grid.zero_point)) == (4, 1.0, 1.0)
    x = torch.tensor([-3.0, -1.0, -0.4, 0.4, 0.6, 1.4, 1.6, 2.0, 9.0])
    assert grid.quantize(x).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert grid(x).tolist() == [-1, -1, 0, 0, 1, 1, 2, 2, 2]


def test_closed_form_of_a_symmetric_range() -> None:
    grid = grid_from_range(scalar(-0.5), scalar(3.0), 3, symmetric=True)
    assert (grid.levels, float(grid.scale), float(grid.zero_point)) == (8, 1.0, 4.0)
    x = torch.tensor([-9.0, -4.0, -3.6, -0.4, 0.6, 2.4, 3.0, 3.6])
    assert grid.quantize(x).tolist() == [0, 0, 0, 4, 5, 6, 7, 7]
    assert grid(x).tolist() == [-4, -4, -4, 0, 1, 2, 3, 3]


def test_closed_form_of_eight_bits() -> None:
    grid = grid_from_range(scalar(-0.2), scalar(0.8), 8)
    assert float(grid.scale) == pytest.approx(1 / 255)
    assert float(grid.zero_point) == 51
    assert float(grid(scalar(0.3))) == pytest.approx(76 / 255)


def test_half_steps_go_to_the_even_neighbour() -> None:
    grid = AffineGrid(4, scalar(1.0), scalar(5.0))
    assert grid(torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])).tolist() == [-2, 0, 0, 2, 2]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-3.0, 0.5), (0.0, 2.0), (-2.0, -1.0)])
def test_a_symmetric_grid_has_zero_in_the_middle(bits: int, low: float, high: float) -> None:
    grid = grid_from_range(scalar(low), scalar(high), bits, symmetric=True)
    half = 2 ** (bits - 1)
    assert float(grid.zero_point) == half
    assert float(grid.scale) == pytest.approx(max(-low, high) / (half - 1))
    ends = torch.tensor([-1e9, 1e9])
    assert (grid.quantize(ends) - grid.zero_point).tolist() == [-half, half - 1]
    assert torch.equal(grid(ends), torch.tensor([-half, half - 1]) * grid.scale)


@pytest.mark.parametrize(
    ("low", "high", "zero_point", "scale"), [(1.0, 3.0, 0, 3 / 15), (-3.0, -1.0, 15, 3 / 15), (0.0, 1.5, 0, 0.1)]
)
def test_a_range_is_widened_to_contain_zero(low: float, high: float, zero_point: int, scale: float) -> None:
    grid = grid_from_range(scalar(low), scalar(high), 4)
    assert float(grid.zero_point) == zero_point
    assert float(grid.scale) == pytest.approx(scale)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_there_are_two_to_the_bits_values(bits: int, symmetric: bool) -> None:
    grid = grid_from_range(scalar(-0.37), scalar(1.11), bits, symmetric)
    integers = grid.quantize(torch.linspace(-2, 2, 200_000))
    assert integers.unique().tolist() == list(range(2**bits))


@given(low=BOUND, high=BOUND, bits=st.sampled_from(BITS), shares=st.lists(st.floats(0, 1, width=32), min_size=1))
@settings(deadline=None, max_examples=150, derandomize=True)
def test_within_the_range_the_error_is_half_a_step_and_zero_is_exact(
    low: float, high: float, bits: int, shares: list[float]
) -> None:
    low, high = min(low, high), max(low, high)
    assume(max(abs(low), abs(high)) > 1e-30)
    for symmetric in (False, True):
        grid = grid_from_range(scalar(low), scalar(high), bits, symmetric)
        x = scalar(low) + torch.tensor(shares) * (scalar(high) - scalar(low))
        x = torch.cat([x, torch.tensor([low, high])]).clamp(low, high)
        slack = 1e-5 * max(abs(low), abs(high))  # the rounding of float32 itself
        assert float((grid(x) - x).abs().max()) <= float(grid.scale) / 2 + slack
        assert float(grid(scalar(0.0))) == 0.0
        assert float(grid.zero_point) == round(float(grid.zero_point))
        assert 0 <= float(grid.zero_point) <= grid.levels - 1


@given(low=BOUND, high=BOUND, bits=st.sampled_from(BITS), values=st.lists(BOUND, min_size=1), symmetric=st.booleans())
@settings(deadline=None, max_examples=100, derandomize=True)
def test_rounding_to_the_grid_once_is_enough(
    low: float, high: float, bits: int, values: list[float], symmetric: bool
) -> None:
    grid = grid_from_range(scalar(min(low, high)), scalar(max(low, high)), bits, symmetric)
    x = torch.tensor(values)
    once = grid(x)
    assert torch.equal(grid(once), once)
    integers = grid.quantize(x)
    assert torch.equal(integers, integers.round().clamp(0, grid.levels - 1))
    assert torch.equal(grid.dequantize(integers), once)
    assert torch.equal(grid.quantize(once), integers)


def test_values_outside_are_clamped_to_the_ends() -> None:
    grid = grid_from_range(scalar(-1.0), scalar(1.0), 4)
    ends = grid(torch.tensor([-1e9, 1e9]))
    assert torch.equal(ends, grid.dequantize(torch.tensor([0.0, 15.0])))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_per_tensor_agrees_with_torch_forward_and_backward(bits: int, symmetric: bool) -> None:
    grid = grid_from_range(scalar(-2.1), scalar(3.3), bits, symmetric)
    x = off_half_steps(3 * random(4, 500), grid)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = grid(ours)
    wanted = torch.fake_quantize_per_tensor_affine(theirs, float(grid.scale), int(grid.zero_point), 0, grid.levels - 1)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, x)
    upstream = random(4, 500, seed=1)
    found.backward(upstream)
    wanted.backward(upstream)
    assert torch.equal(ours.grad, theirs.grad)
    assert 0 < int((ours.grad == 0).sum()) < x.numel()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_per_channel_agrees_with_torch_forward_and_backward(bits: int, shape: tuple[int, ...], symmetric: bool) -> None:
    x = random(*shape) * torch.arange(1.0, 6.0).view(5, *(1,) * (len(shape) - 1))
    grid = per_channel_grid(x, bits, symmetric, share=0.4)
    x = off_half_steps(x, grid)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = grid(ours)
    wanted = torch.fake_quantize_per_channel_affine(
        theirs, grid.scale.flatten(), grid.zero_point.flatten().to(torch.int32), 0, 0, grid.levels - 1
    )
    assert torch.equal(found, wanted)
    upstream = random(*shape, seed=1)
    found.backward(upstream)
    wanted.backward(upstream)
    assert torch.equal(ours.grad, theirs.grad)
    assert 0 < int((ours.grad == 0).sum()) < x.numel()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_scale_has_the_gradient_of_learned_step_sizes(bits: int, per_channel: bool, symmetric: bool) -> None:
    """LSQ (arXiv 1902.08153), equation 3: round(v) - v inside, the bound outside; each times the upstream gradient."""
    x = random(5, 40) * 2
    grid = per_channel_grid(x if per_channel else x.view(1, -1), bits, symmetric, share=0.6)
    if not per_channel:
        grid = AffineGrid(bits, grid.scale.view(()), grid.zero_point.view(()))
    upstream = random(5, 40, seed=1)
    scale = grid.scale.clone().requires_grad_()
    AffineGrid(bits, scale, grid.zero_point)(x).backward(upstream)
    v = x.double() / grid.scale
    low, high = -grid.zero_point.double(), grid.levels - 1 - grid.zero_point.double()
    inside = (v.round() >= low) & (v.round() <= high)
    each = torch.where(inside, v.round() - v, v.round().clamp(low, high)) * upstream
    wanted = each.sum(1, keepdim=True) if per_channel else each.sum()
    assert 0 < int(inside.sum()) < x.numel()
    torch.testing.assert_close(scale.grad.double(), wanted, rtol=2e-4, atol=2e-5 * 2**bits)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_with_gradients_the_values_are_the_same_to_the_bit(bits: int, per_channel: bool) -> None:
    x = random(5, 400) * 3
    grid = per_channel_grid(x, bits, share=0.8) if per_channel else grid_from_range(scalar(-2.0), scalar(3.0), bits)
    with torch.no_grad():
        wanted = grid(x).view(torch.int32)
    through_x = grid(x.clone().requires_grad_()).detach()
    through_scale = AffineGrid(bits, grid.scale.clone().requires_grad_(), grid.zero_point)(x).detach()
    with torch.no_grad():
        asked_for_nothing = grid(x.clone().requires_grad_())
    for found in (through_x, through_scale, asked_for_nothing, grid(x)):
        assert torch.equal(found.view(torch.int32), wanted)


def test_one_zero_point_as_a_scalar_or_for_each_channel_is_the_same() -> None:
    """Bounds are numbers in the first case and tensors in the second."""
    one = grid_from_range(scalar(-1.0), scalar(2.0), 4)
    many = AffineGrid(4, one.scale.expand(5, 1), one.zero_point.expand(5, 1))
    assert torch.equal(one(random(5, 100) * 2), many(random(5, 100) * 2))


@pytest.mark.parametrize("zero_point", [scalar(2), torch.full((1,), 2.0)], ids=["number bounds", "tensor bounds"])
def test_the_outermost_points_count_as_inside(zero_point: Tensor) -> None:
    """Integers go from -2 to 1: gradients reach x there, and the scale's is round(v) - v there, not the bound."""
    x = torch.tensor([-3.0, -2.2, -1.8, 0.1, 0.8, 1.2, 3.0], requires_grad=True)
    scale = torch.ones_like(zero_point).requires_grad_()
    AffineGrid(2, scale, zero_point)(x).sum().backward()
    theirs = x.detach().clone().requires_grad_()
    torch.fake_quantize_per_tensor_affine(theirs, 1.0, 2, 0, 3).sum().backward()
    assert x.grad.tolist() == theirs.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert float(scale.grad) == pytest.approx(-2 + 0.2 - 0.2 - 0.1 + 0.2 - 0.2 + 1)


@pytest.mark.parametrize("symmetric", [False, True])
def test_an_all_zero_channel_stays_exact(symmetric: bool) -> None:
    low, high = torch.tensor([[0.0], [-1.0]]), torch.tensor([[0.0], [1.0]])
    grid = grid_from_range(low, high, 4, symmetric)
    assert grid.scale[0] == 1
    assert torch.equal(grid(torch.zeros(2, 5)), torch.zeros(2, 5))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("value", [0.7, -0.7, 1e-20, -1e-20, 1e20])
@pytest.mark.parametrize("bits", BITS)
def test_a_constant_channel_is_met_to_rounding(value: float, bits: int, symmetric: bool) -> None:
    """Its value is the grid's outermost point."""
    grid = grid_from_range(scalar(value), scalar(value), bits, symmetric)
    assert float(grid(scalar(value))) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("bits", [0, 1, 9, 15, 17, 32, -4, 4.0, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_bits_that_are_not_offered_are_refused(bits: int, symmetric: bool) -> None:
    message = rf"a grid of {bits} bits is not offered: use one of 2, 3, 4, 5, 6, 7, 8, 16$"
    with pytest.raises(ValueError, match=message):
        AffineGrid(bits, scalar(1.0), scalar(0.0))
    with pytest.raises(ValueError, match=message):
        grid_from_range(scalar(-1.0), scalar(1.0), bits, symmetric)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", ["low", "high"])
def test_a_range_that_is_not_finite_is_refused(broken: float, side: str, symmetric: bool) -> None:
    bounds = {"low": torch.tensor([-1.0, -1.0]), "high": torch.tensor([1.0, 1.0])}
    bounds[side][1] = broken
    with pytest.raises(ValueError, match="is not finite: weights or activations hold NaN or infinity"):
        grid_from_range(bounds["low"], bounds["high"], 4, symmetric)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bound", [1e38, 1.7e38, 3e38, 3.4e38])
def test_a_range_as_wide_as_float32_is_right_or_refused(bound: float, symmetric: bool) -> None:
    """A symmetric range needs no difference of its bounds, so all of them will do."""
    if 2 * bound > torch.finfo(torch.float32).max and not symmetric:
        with pytest.raises(ValueError, match="wider than float32 can tell"):
            grid_from_range(scalar(-bound), scalar(bound), 8)
        return
    grid = grid_from_range(scalar(-bound), scalar(bound), 8, symmetric)
    x = torch.tensor([-bound, 0.0, 0.3 * bound, bound])
    assert float((grid(x) - x).abs().max()) <= 0.51 * float(grid.scale)


def test_infinity_saturates_and_nan_stays() -> None:
    """As integer arithmetic has it; what is not finite in calibration or in the output is refused there."""
    found = AffineGrid(4, torch.tensor(0.5), torch.tensor(3.0))(torch.tensor([torch.inf, -torch.inf, torch.nan]))
    assert found[:2].tolist() == [6.0, -1.5]
    assert found[2].isnan()


def test_what_is_quantized_is_left_as_it_is() -> None:
    x = torch.tensor([-9.0, 0.3, 9.0])
    grid = grid_from_range(scalar(-1.0), scalar(1.0), 4)
    grid(x)
    grid.quantize(x)
    assert torch.equal(x, torch.tensor([-9.0, 0.3, 9.0]))


def test_a_grid_moves_as_a_whole() -> None:
    grid = AffineGrid(4, scalar(0.1), scalar(3.0)).to(torch.device("meta"))
    assert (grid.bits, grid.scale.device.type, grid.zero_point.device.type) == (4, "meta", "meta")


@pytest.mark.parametrize(
    ("scale", "zero_point", "weight_shape", "fault"),
    [
        (scalar(0.1), scalar(3.0), None, None),
        (scalar(0.1), scalar(3.0), (4, 2), None),
        (torch.full((4, 1), 0.1), torch.zeros(4, 1), (4, 2), None),
        (torch.full((4, 1, 1, 1), 0.1), torch.zeros(4, 1, 1, 1), (4, 2, 3, 3), None),
        (torch.full((4, 1), 0.1), torch.zeros(4, 1), None, "of shape"),
        (torch.full((1,), 0.1), torch.zeros(1), None, "of shape"),
        (torch.full((3, 1), 0.1), torch.zeros(3, 1), (4, 2), "of shape"),
        (torch.full((4,), 0.1), torch.zeros(4), (4, 2), "of shape"),
        (torch.full((4, 1), 0.1), torch.zeros(4, 1, 1), (4, 2), "of shape"),
        (scalar(float("nan")), scalar(3.0), None, "not finite"),
        (scalar(0.1), scalar(float("inf")), None, "not finite"),
        (scalar(0.0), scalar(3.0), None, "scale that is not positive"),
        (scalar(-0.1), scalar(3.0), None, "scale that is not positive"),
        (scalar(0.1), scalar(-1.0), None, "no integer from 0 to 15"),
        (scalar(0.1), scalar(16.0), None, "no integer from 0 to 15"),
        (scalar(0.1), scalar(2.5), None, "no integer from 0 to 15"),
    ],
)
def test_it_says_what_keeps_it_from_being_stored(
    scale: Tensor, zero_point: Tensor, weight_shape: tuple[int, ...] | None, fault: str | None
) -> None:
    found = AffineGrid(4, scale, zero_point).fault(weight_shape)
    assert found is None if fault is None else found is not None and fault in found


def test_sixteen_bits_are_for_activations_only() -> None:
    grid = AffineGrid(16, scalar(0.1), scalar(3.0))
    assert grid.fault(None) is None
    assert grid.fault((4, 2)) == "of 16 bits, where a weight has 8 at most"
