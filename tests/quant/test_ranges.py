from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qbench.quant import ranges
from qbench.quant.grid import AffineGrid, grid_from_range
from qbench.quant.ranges import (
    MSESearch,
    Percentile,
    RangeEstimator,
    RunningAverage,
    RunningMinMax,
    min_max_per_channel,
    mse_per_channel,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 7), (3, 2, 5), (3, 2, 3, 3), (1, 1)])
def test_each_output_channel_has_the_grid_of_its_extremes(shape: tuple[int, ...]) -> None:
    weight = random(*shape)
    grid = min_max_per_channel(weight, 4)
    assert grid.bits == 4
    assert grid.scale.shape == grid.zero_point.shape == (shape[0], *(1,) * (len(shape) - 1))
    for channel in range(shape[0]):
        low, high = min(0.0, float(weight[channel].min())), max(0.0, float(weight[channel].max()))
        scale = (high - low) / 15
        assert float(grid.scale[channel]) == pytest.approx(scale, rel=1e-6)
        assert float(grid.zero_point[channel]) == round(-low / scale)


def test_channels_do_not_see_each_other() -> None:
    weight = random(3, 2, 3, 3)
    louder = weight.clone()
    louder[1] *= 100
    first, second = min_max_per_channel(weight, 4), min_max_per_channel(louder, 4)
    assert torch.equal(first.scale[[0, 2]], second.scale[[0, 2]])
    assert torch.equal(first(weight)[[0, 2]], second(louder)[[0, 2]])


def test_a_weight_with_gradients_is_only_looked_at() -> None:
    weight = torch.nn.Parameter(random(3, 4))
    assert not min_max_per_channel(weight, 4).scale.requires_grad


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_extremes_do_not_depend_on_partition_or_order(batch_size: int) -> None:
    data = random(64, 2, 4)
    whole = grid_from_range(data.min(), data.max(), 8)
    for rows in (data, data.flip(0)):
        seen = RunningMinMax()
        for start in range(0, len(rows), batch_size):
            seen(rows[start : start + batch_size])
        assert (seen.low, seen.high) == (data.min(), data.max())
        grid = seen.grid(8)
        assert torch.equal(grid.scale, whole.scale)
        assert torch.equal(grid.zero_point, whole.zero_point)


def heavy_tailed(*shape: int, seed: int = 0) -> Tensor:
    """Values of which a few are far out, so that it pays to shrink the range."""
    return random(*shape, seed=seed) ** 3


def extremes_of(data: Tensor) -> tuple[Tensor, Tensor]:
    return data.min(), data.max()


def candidate(low: float, high: float, bits: int, symmetric: bool) -> tuple[float, int, int]:
    """Return scale, zero point and last integer of a range, as the definition has it."""
    low, high, last = min(low, 0.0), max(high, 0.0), 2**bits - 1
    if symmetric:
        return max(-low, high) / (2 ** (bits - 1) - 1), 2 ** (bits - 1), last
    scale = (high - low) / last
    return scale, min(max(round(-low / scale), 0), last), last


def errors_of_candidates(values: Tensor, bits: int, symmetric: bool) -> dict[float, float]:
    """Return the sum of |error|^2.4 for the scale of each of 80 ranges, each another hundredth narrower."""
    x = values.flatten().double()
    low, high = float(x.min()), float(x.max())
    found = {}
    for index in range(80):
        share = (100 - index) / 100
        scale, zero_point, last = candidate(low * share, high * share, bits, symmetric)
        rounded = ((x / scale).round() + zero_point).clamp(0, last).sub(zero_point).mul(scale)
        found[scale] = float((rounded - x).abs().pow(2.4).sum())
    return found


def check_least(grid: AffineGrid, values: Tensor, symmetric: bool) -> None:
    """Check that a grid is one of the 80, and that none has a smaller error."""
    errors = errors_of_candidates(values, grid.bits, symmetric)
    scale = min(errors, key=lambda each: abs(each - float(grid.scale)))
    assert float(grid.scale) == pytest.approx(scale, rel=1e-6)
    assert errors[scale] <= min(errors.values()) * (1 + 1e-5)
    if symmetric:
        assert float(grid.zero_point) == 2 ** (grid.bits - 1)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(4, 60), (4, 5, 12), (4, 7, 3, 3)])
def test_no_range_of_a_channel_has_a_smaller_error(shape: tuple[int, ...], bits: int, symmetric: bool) -> None:
    weight = heavy_tailed(*shape)
    weight[1] = weight[1].abs()
    weight[2] = -weight[2].abs()
    grid = mse_per_channel(weight, bits, symmetric)
    assert grid.scale.shape == grid.zero_point.shape == (shape[0], *(1,) * (len(shape) - 1))
    for channel in range(shape[0]):
        alone = AffineGrid(bits, grid.scale[channel].squeeze(), grid.zero_point[channel].squeeze())
        check_least(alone, weight[channel], symmetric)
    narrower = grid.scale < min_max_per_channel(weight, bits, symmetric).scale
    assert bool(narrower.any()) or bits == 8


@given(seed=st.integers(0, 2**32), bits=st.sampled_from((2, 3, 4, 8)), symmetric=st.booleans(), power=st.integers(1, 4))
@settings(deadline=None, max_examples=30, derandomize=True)
def test_in_its_own_error_it_is_never_worse_than_the_extremes(
    seed: int, bits: int, symmetric: bool, power: int
) -> None:
    weight = random(3, 50, seed=seed) ** power
    best, widest = mse_per_channel(weight, bits, symmetric), min_max_per_channel(weight, bits, symmetric)

    def error(grid: AffineGrid) -> Tensor:
        return (grid(weight) - weight).double().abs().pow(2.4).sum(1)

    assert bool((error(best) <= error(widest) * (1 + 1e-5)).all())


def test_an_all_zero_channel_and_a_constant_one_survive_the_search() -> None:
    weight = torch.tensor([[0.0, 0.0], [0.3, 0.3], [-0.3, -0.3]])
    for symmetric in (False, True):
        grid = mse_per_channel(weight, 4, symmetric)
        assert grid.scale[0] == 1
        torch.testing.assert_close(grid(weight), weight, rtol=1e-6, atol=0)


def test_one_candidate_is_the_unshrunken_range() -> None:
    weight = heavy_tailed(3, 50)
    found, wanted = mse_per_channel(weight, 3, candidates=1), min_max_per_channel(weight, 3)
    assert torch.equal(found.scale, wanted.scale)
    assert torch.equal(found.zero_point, wanted.zero_point)


def test_the_narrowest_range_is_a_fifth_of_the_widest() -> None:
    """On its four points lie all values but one, so that any wider range is worse."""
    values = torch.tensor([0.07, 0.14, 0.21]).repeat(2000)
    data = torch.cat([values, torch.ones(1)])
    search = MSESearch(extremes_of(data), 2)
    search(data)
    for grid in (mse_per_channel(data[None], 2), search.grid(2)):
        assert float(grid.scale) == pytest.approx(0.21 / 3, rel=1e-5)
        check_least(grid, data, symmetric=False)


@pytest.mark.parametrize("candidates", [0, -1, 101])
def test_candidates_that_would_leave_no_range_are_refused(candidates: int) -> None:
    with pytest.raises(ValueError, match=f"{candidates} candidates cannot"):
        mse_per_channel(random(3, 4), 4, candidates=candidates)
    with pytest.raises(ValueError, match=f"{candidates} candidates cannot"):
        MSESearch((torch.tensor(0.0), torch.tensor(1.0)), 4, candidates=candidates)


@pytest.mark.parametrize("estimate", [min_max_per_channel, mse_per_channel])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_refused(estimate, broken: float) -> None:
    weight = random(3, 4)
    weight[1, 2] = broken
    with pytest.raises(ValueError, match="not finite"):
        estimate(weight, 4)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("sign", [None, 1, -1])
def test_no_range_of_all_data_has_a_smaller_error(bits: int, symmetric: bool, sign: int | None) -> None:
    data = heavy_tailed(24, 3, 10) if sign is None else sign * heavy_tailed(24, 3, 10).abs()
    grids = []
    for batch_size in (7, 24):
        search = MSESearch(extremes_of(data), bits, symmetric)
        for rows in data.split(batch_size):
            search(rows)
        grids.append(search.grid(bits, symmetric))
        assert grids[-1].scale.shape == ()
        check_least(grids[-1], data, symmetric)
    assert len({(float(grid.scale), float(grid.zero_point)) for grid in grids}) == 1


@pytest.mark.parametrize("percent", [100.0, 99.0, 95.0, 80.0])
@pytest.mark.parametrize("kind", ["two-sided", "one-sided", "skewed"])
def test_an_equal_share_of_the_values_is_left_out_at_either_end(kind: str, percent: float) -> None:
    data = random(400, 50)
    data = {"two-sided": data, "one-sided": data.abs(), "skewed": data.exp() - 2}[kind]
    seen = Percentile(extremes_of(data), percent)
    for rows in data.split(64):
        seen(rows)
    grid = seen.grid(16)  # fine enough to tell the range from the grid
    low, high = -float(grid.zero_point * grid.scale), float((grid.levels - 1 - grid.zero_point) * grid.scale)
    ends = torch.tensor([(1 - percent / 100) / 2, 1 - (1 - percent / 100) / 2], dtype=torch.float64)
    wanted = torch.quantile(data.flatten().double(), ends)
    resolution = 1.5 * float(data.max() - data.min()) / 2048
    assert low == pytest.approx(min(0.0, float(wanted[0])), abs=resolution)
    assert high == pytest.approx(float(wanted[1]), abs=resolution)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_percentile_does_not_depend_on_partition_or_order(symmetric: bool) -> None:
    data, scales = random(64, 20), set()
    for rows in (data, data.flip(0)):
        for batch_size in (1, 10, 64):
            seen = Percentile(extremes_of(data), 99.0)
            for batch in rows.split(batch_size):
                seen(batch)
            grid = seen.grid(8, symmetric)
            scales.add((float(grid.scale), float(grid.zero_point)))
    assert len(scales) == 1


def test_a_percentile_does_not_depend_on_how_many_values_are_counted_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    data, scales = random(50, 21), set()
    for values in (ranges.HISTOGRAM_VALUES, 1050, 1049, 64, 1):
        monkeypatch.setattr(ranges, "HISTOGRAM_VALUES", values)
        seen = Percentile(extremes_of(data), 90.0)
        seen(data)
        seen(data[:0])  # nothing is no harm
        grid = seen.grid(8)
        scales.add((float(grid.scale), float(grid.zero_point)))
    assert len(scales) == 1


def test_one_value_may_come_more_often_than_float32_can_count() -> None:
    """torch.histc counts in float32, where 2^24 + 1 is 2^24."""
    data = torch.cat([torch.zeros(20_000_000), torch.linspace(0, 1, 2_000_000)])
    seen = Percentile(extremes_of(data), 95.0)
    seen(data)
    high = float(seen.grid(16).scale) * 65535
    assert high == pytest.approx(1 - 0.025 * 22_000_000 / 2_000_000, abs=1 / 2048)


@pytest.mark.parametrize("value", [0.0, 0.7, -0.7])
def test_a_percentile_of_one_value_is_that_value(value: float) -> None:
    data = torch.full((5, 4), value)
    seen = Percentile(extremes_of(data), 99.0)
    seen(data)
    torch.testing.assert_close(seen.grid(8)(data), data, rtol=1e-6, atol=0)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95])
def test_extremes_are_averaged_with_falling_weights(momentum: float) -> None:
    batches = random(6, 4, 5)
    seen = RunningAverage(momentum)
    for batch in batches:
        seen(batch)
    weights = [momentum**5, *((1 - momentum) * momentum ** (5 - index) for index in range(1, 6))]
    assert sum(weights) == pytest.approx(1)
    lows, highs = ([float(each) for each in ends] for ends in (batches.amin((1, 2)), batches.amax((1, 2))))
    low, high = seen.extremes()
    assert float(low) == pytest.approx(sum(w * each for w, each in zip(weights, lows, strict=True)), rel=1e-5)
    assert float(high) == pytest.approx(sum(w * each for w, each in zip(weights, highs, strict=True)), rel=1e-5)
    assert torch.equal(seen.grid(8).scale, grid_from_range(low, high, 8).scale)


def test_one_batch_has_its_own_extremes() -> None:
    seen = RunningAverage(0.95)
    seen(random(10))
    assert seen.extremes() == extremes_of(random(10))


ESTIMATORS = {
    "min-max": RunningMinMax,
    "running-average": RunningAverage,
    "percentile": lambda: Percentile((torch.tensor(-1.0), torch.tensor(1.0))),
    "mse": lambda: MSESearch((torch.tensor(-1.0), torch.tensor(1.0)), 8),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_layer_that_saw_nothing_has_no_range(estimator: str) -> None:
    with pytest.raises(ValueError, match="no calibration data reached this layer"):
        ESTIMATORS[estimator]().grid(8)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_is_observed_is_left_as_it_is(estimator: str) -> None:
    x = random(50).clamp(-1, 1).requires_grad_()
    before = x.detach().clone()
    seen = ESTIMATORS[estimator]()
    seen(x)
    assert torch.equal(x, before)
    assert not seen.grid(8).scale.requires_grad


@pytest.mark.parametrize("estimator", ["min-max", "running-average"])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_what_is_not_finite_is_not_forgotten(estimator: str, broken: float, position: int) -> None:
    seen = ESTIMATORS[estimator]()
    for batch in range(3):
        x = random(4)
        if batch == position:
            x[2] = broken
        seen(x)
    with pytest.raises(ValueError, match="not finite"):
        seen.grid(8)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("make", [lambda extremes: MSESearch(extremes, 8), Percentile])
def test_extremes_that_are_not_finite_are_refused(
    make: Callable[[tuple[Tensor, Tensor]], RangeEstimator], broken: float
) -> None:
    for extremes in ((torch.tensor(broken), torch.tensor(1.0)), (torch.tensor(-1.0), torch.tensor(broken))):
        with pytest.raises(ValueError, match="a range to quantize is not finite"):
            make(extremes)
