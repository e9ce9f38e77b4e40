import pytest
import torch

from qbench.quant.grid import grid_from_range
from qbench.quant.ranges import RunningMinMax, min_max_per_channel


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


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


def test_a_weight_that_is_not_finite_is_refused() -> None:
    weight = random(3, 4)
    weight[1, 2] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        min_max_per_channel(weight, 4)


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


def test_a_layer_that_saw_nothing_has_no_range() -> None:
    with pytest.raises(ValueError, match="no calibration data reached this layer"):
        RunningMinMax().grid(8)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_what_is_not_finite_is_not_forgotten(broken: float, position: int) -> None:
    seen = RunningMinMax()
    for batch in range(3):
        x = random(4)
        if batch == position:
            x[2] = broken
        seen(x)
    with pytest.raises(ValueError, match="not finite"):
        seen.grid(8)
