from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.quant import (
    ActivationRanges,
    AffineGrid,
    CalibrationData,
    DynamicGrid,
    Grid,
    MSESearch,
    Percentile,
    QuantModel,
    RunningAverage,
    SplitGrid,
    StepGrid,
    WeightRanges,
    grid_from_range,
    min_max_per_channel,
    mse_per_channel,
    set_input_grids,
    set_weight_grids,
)

SYMMETRIC = pytest.mark.parametrize("symmetric", [False, True])
ESTIMATORS = ("min-max", "running-average", "percentile", "mse")
PER_CHANNEL = {"min-max": min_max_per_channel, "mse": mse_per_channel}
STRUCTURE = Structure(boundary_layers=("first", "last"), splits={"shortcut": 4})


class Net(nn.Module):
    """Attention, a concatenation with its shortcut, and what a UNet has around them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.time = nn.Linear(1, 4)
        self.attn = Attention(4, heads=2, dim_head=3, residual_connection=True)
        self.shortcut = nn.Conv2d(4 + 2, 4, 1)
        self.last = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        h = self.first(x) + self.time(timestep[:, None] / 1000)[:, :, None, None]
        return (self.last(torch.relu(self.shortcut(torch.cat([self.attn(h), 20 * x], dim=1)))),)


def make(bits: str = "W3A8", boundary_bits: int | None = None) -> QuantModel:
    return QuantModel(Net().eval().requires_grad_(False), STRUCTURE, BitWidth.parse(bits), boundary_bits)


def rows(count: int = 12, **changes: Any) -> CalibrationData:
    x, steps = torch.randn(count, 2, 5, 5, generator=torch.Generator().manual_seed(1)), torch.arange(count) % 4
    values: dict[str, Any] = {"batch_size": 5, "report": lambda done: None}
    return CalibrationData(x, 999 - 300 * steps, steps, **(values | changes))


def inputs_of(model: QuantModel, data: CalibrationData) -> dict[str, Tensor]:
    """Everything that passes each tap, in the order of the rows."""
    seen: dict[str, list[Tensor]] = {name: [] for name in model.taps}
    with model.observing(lambda name: seen[name].append):
        data.run_through(model)
    return {name: torch.cat(parts) for name, parts in seen.items()}


def estimate(x: Tensor, estimator: str, bits: int, symmetric: bool) -> AffineGrid:
    """The grid that an estimator finds for all of the data at once."""
    if estimator in ("min-max", "running-average"):
        return grid_from_range(x.min(), x.max(), bits, symmetric)
    ends = x.min(), x.max()
    found = Percentile(ends) if estimator == "percentile" else MSESearch(ends, bits, symmetric)
    found(x)
    return found.grid(bits, symmetric)


def same(first: Grid | None, second: Grid | None) -> bool:
    """Whether two grids are of one kind and have the same values to the bit."""
    assert first is not None
    assert second is not None
    pairs = zip(first.tensors().values(), second.tensors().values(), strict=True)
    return first.config() == second.config() and all(torch.equal(one, other) for one, other in pairs)


@SYMMETRIC
@pytest.mark.parametrize("estimator", PER_CHANNEL)
def test_each_weight_has_the_grid_of_its_estimator(estimator: str, symmetric: bool) -> None:
    model = make()
    set_weight_grids(model, WeightRanges(estimator=estimator, symmetric=symmetric))
    for layer in model.layers.values():
        assert same(layer.weight_grid, PER_CHANNEL[estimator](layer.weight, 3, symmetric))
        assert torch.equal(layer.rounded, layer.weight_grid(layer.weight))
    assert all(tap.grid is None for tap in model.taps.values())


@SYMMETRIC
@pytest.mark.parametrize("estimator", PER_CHANNEL)
def test_halves_of_a_shortcuts_weight_have_grids_of_their_own(estimator: str, symmetric: bool) -> None:
    model, plain = make(), make()
    ranges = WeightRanges(estimator=estimator, symmetric=symmetric)
    set_weight_grids(model, ranges, split=True)
    set_weight_grids(plain, ranges)
    for name, layer in model.layers.items():
        assert same(layer.weight_grid, plain.layers[name].weight_grid) == (name != "shortcut")
    layer = model.layers["shortcut"]
    grid = layer.weight_grid
    assert isinstance(grid, SplitGrid)
    assert grid.index == 4
    assert same(grid.first, PER_CHANNEL[estimator](layer.weight[:, :4], 3, symmetric))
    assert same(grid.second, PER_CHANNEL[estimator](layer.weight[:, 4:], 3, symmetric))


def test_weights_get_the_bits_of_their_layer() -> None:
    model = make("W4A8", boundary_bits=8)
    set_weight_grids(model, WeightRanges())
    bits = {name: layer.weight_grid.bits for name, layer in model.layers.items()}
    assert {name for name, each in bits.items() if each == 8} == {"first", "last"}
    assert set(bits.values()) == {4, 8}
    untouched = make("W32A8")
    set_weight_grids(untouched, WeightRanges())
    assert all(layer.weight_grid is None for layer in untouched.layers.values())


@SYMMETRIC
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_each_activation_has_the_grid_of_its_estimator(estimator: str, symmetric: bool) -> None:
    """In one batch: there a running average is the extremes, and no estimator sums parts."""
    model, data = make("W4A6S8"), rows(batch_size=100)
    set_weight_grids(model, WeightRanges())
    inputs = inputs_of(model, data)
    set_input_grids(model, data, ActivationRanges(estimator=estimator, symmetric=symmetric))
    assert model.left_out() == []
    for name, tap in model.taps.items():
        is_softmax = name == "attn.softmax"
        assert tap.grid.bits == (8 if is_softmax else 6)
        wanted = estimate(inputs[name], estimator, tap.bits, symmetric and not is_softmax)
        if estimator == "running-average":  # it takes the rows in another order
            torch.testing.assert_close(tap.grid.scale, wanted.scale, rtol=1e-5, atol=0)
        else:
            assert same(tap.grid, wanted)
        if is_softmax or symmetric:
            assert float(tap.grid.zero_point) == (0 if is_softmax else 32)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_halves_of_a_shortcuts_input_have_grids_of_their_own(estimator: str) -> None:
    model, plain, data = make("W4A6"), make("W4A6"), rows(batch_size=100)
    x = inputs_of(model, data)["shortcut"]
    ranges = ActivationRanges(estimator=estimator)
    set_input_grids(model, data, ranges, split=True)
    set_input_grids(plain, data, ranges)
    for name, tap in model.taps.items():
        assert same(tap.grid, plain.taps[name].grid) == (name != "shortcut")
    grid = model.taps["shortcut"].grid
    assert isinstance(grid, SplitGrid)
    assert grid.index == 4
    assert float(grid.second.scale) > 3 * float(grid.first.scale)
    for half, part in ((grid.first, x[:, :4]), (grid.second, x[:, 4:])):
        wanted = estimate(part, estimator, 6, False)
        torch.testing.assert_close(half.scale, wanted.scale, rtol=1e-5, atol=0)
        torch.testing.assert_close(half.zero_point, wanted.zero_point, rtol=0, atol=0)


def test_a_moving_average_does_not_follow_the_order_of_the_steps() -> None:
    """Rows come sorted by step; drawn at random, each batch has some of all."""
    data = rows(640)
    data.x[:] *= torch.linspace(1, 20, 640)[:, None, None, None]
    rising, falling, other = data, data.rows(torch.arange(639, -1, -1)), replace(data, seed=1)
    found = []
    for given in (rising, falling, other):
        model = make("W4A8")
        set_input_grids(model, given, ActivationRanges(estimator="running-average", momentum=0.5))
        found.append(float(model.taps["first"].grid.scale) * 255)
    first, last = (float(part.max() - part.min()) for part in (data.x[:64], data.x[-64:]))
    assert first < 0.3 * last
    assert len(set(found)) == 3
    assert 0.75 * last < min(found) < max(found) < 0.95 * last


def test_a_moving_average_is_taken_over_64_rows_at_a_time() -> None:
    data = rows(200, batch_size=7, seed=3)
    ranges = ActivationRanges(estimator="running-average", momentum=0.5, samples=150)
    drawn = data.x[torch.randperm(200, generator=torch.Generator().manual_seed(3))[:150]]
    seen = RunningAverage(0.5)
    for batch in drawn.split(64):
        seen(batch)
    model = make("W4A8")
    set_input_grids(model, data, ranges)
    assert same(model.taps["first"].grid, seen.grid(8))


@pytest.mark.parametrize("granularity", ["tensor", "step"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_ranges_do_not_depend_on_the_batch_size(estimator: str, granularity: str) -> None:
    models, ranges = (make("W4A6"), make("W4A6")), ActivationRanges(estimator=estimator, granularity=granularity)
    for model, batch_size in zip(models, (11, 66), strict=True):
        set_input_grids(model, rows(66, batch_size=batch_size), ranges)
    for one, other in zip(models[0].taps.values(), models[1].taps.values(), strict=True):
        torch.testing.assert_close(one.grid.scale, other.grid.scale, rtol=1e-5, atol=0)  # a layer's last bits may


@pytest.mark.parametrize(
    ("estimator", "symmetric"), [("min-max", False), ("running-average", True), ("percentile", True), ("mse", False)]
)
def test_each_step_has_the_grid_of_its_rows(estimator: str, symmetric: bool) -> None:
    model, data = make("W4A6"), rows(batch_size=100)
    ranges = ActivationRanges(estimator=estimator, symmetric=symmetric, granularity="step")
    set_input_grids(model, data, ranges)
    for step in range(4):
        alone = make("W4A6")
        at_step = data.rows((data.step_indices == step).nonzero().squeeze(1))
        set_input_grids(alone, at_step, ranges.model_copy(update={"granularity": "tensor"}))
        for name, tap in model.taps.items():
            assert isinstance(tap.grid, StepGrid)
            assert tap.grid.scale.shape == (4,)
            torch.testing.assert_close(tap.grid.scale[step], alone.taps[name].grid.scale, rtol=1e-5, atol=0)
    assert model.taps["attn.softmax"].grid.zero_point.tolist() == [0, 0, 0, 0]
    assert len(model.taps["shortcut"].grid.scale.unique()) == 4


def test_a_step_that_was_not_calibrated_has_the_grid_of_the_nearest_one() -> None:
    model, spread, data = make("W4A6"), make("W4A6"), rows()
    set_input_grids(model, data, ActivationRanges(granularity="step"))
    given = replace(data, step_indices=torch.tensor([1, 4, 6, 9])[data.step_indices])
    set_input_grids(spread, given, ActivationRanges(granularity="step"))
    for name, tap in spread.taps.items():
        calibrated = model.taps[name].grid
        assert torch.equal(tap.grid.scale, calibrated.scale[[0, 0, 0, 1, 1, 1, 2, 2, 3, 3]])
        assert torch.equal(tap.grid.zero_point, calibrated.zero_point[[0, 0, 0, 1, 1, 1, 2, 2, 3, 3]])


def test_each_token_has_a_range_of_its_own() -> None:
    model, data = make("W4A6S16"), rows()
    set_input_grids(model, data, ActivationRanges(granularity="token"))
    of_an_image = {"first", "shortcut", "last"}
    for name, tap in model.taps.items():
        assert tap.grid == DynamicGrid(16 if name == "attn.softmax" else 6, 3 if name in of_an_image else 1)
    with torch.inference_mode():
        alone = model(data.x, data.timesteps)[:4]
        data.x[4:] *= 50
        assert torch.equal(model(data.x, data.timesteps)[:4], alone)


def test_ranges_are_those_of_the_network_with_quantized_weights() -> None:
    plain, rounded = make("W2A8"), make("W2A8")
    set_weight_grids(rounded, WeightRanges())
    for model in (plain, rounded):
        set_input_grids(model, rows(), ActivationRanges())
    differ = {name for name, tap in plain.taps.items() if not same(tap.grid, rounded.taps[name].grid)}
    assert differ == set(plain.taps) - {"first", "time", "shortcut"}  # the outermost values there are the image's


def test_the_only_candidate_is_the_whole_range() -> None:
    data = rows(20)
    single, whole = make("W4A6"), make("W4A6")
    for model, ranges in ((single, {"estimator": "mse", "candidates": 1}), (whole, {"estimator": "min-max"})):
        set_weight_grids(model, WeightRanges(**ranges))
        set_input_grids(model, data, ActivationRanges(**ranges))
    assert all(same(layer.weight_grid, whole.layers[name].weight_grid) for name, layer in single.layers.items())
    assert all(same(tap.grid, whole.taps[name].grid) for name, tap in single.taps.items())


@pytest.mark.parametrize("granularity", ["tensor", "step"])
def test_activations_are_not_quantized_while_they_are_observed(granularity: str) -> None:
    """Whatever grids there are already: they stay where no other takes their place."""
    once, twice = make("W32A2"), make("W32A2")
    ranges = ActivationRanges(granularity=granularity)
    set_input_grids(once, rows(), ranges)
    first_half = set(list(twice.taps)[::2])
    for chosen in (first_half, twice.taps.keys() - first_half, first_half):
        kept = {name: tap.grid for name, tap in twice.taps.items() if name not in chosen}
        set_input_grids(twice, rows(), ranges, chosen=chosen.__contains__)
        assert all(twice.taps[name].grid is grid for name, grid in kept.items())
    assert all(same(tap.grid, once.taps[name].grid) for name, tap in twice.taps.items())


@pytest.mark.parametrize(("bits", "granularity"), [("W4A8", "token"), ("W4A32", "tensor"), ("W4A32", "step")])
def test_what_takes_no_time_is_reported_as_done(bits: str, granularity: str) -> None:
    reported: list[float] = []
    set_input_grids(make(bits), rows(report=reported.append), ActivationRanges(granularity=granularity))
    assert reported == [1.0]


@pytest.mark.parametrize("granularity", ["tensor", "step"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_work_reported_makes_one_and_no_observer_stays(estimator: str, granularity: str) -> None:
    reported: list[float] = []
    model, ranges = make("W4A8"), ActivationRanges(estimator=estimator, granularity=granularity)
    set_input_grids(model, rows(report=reported.append), ranges)
    assert sum(reported) == pytest.approx(1)
    assert min(reported) > 0
    assert all(tap.observer is None for tap in model.taps.values())


@pytest.mark.parametrize("estimator", ["min-max", "percentile"])
def test_a_sample_of_the_rows_is_drawn_by_the_datas_seed(estimator: str) -> None:
    def found(seed: int, samples: int = 3) -> tuple[list[float], Tensor]:
        model, seen = make("W4A8"), []
        model.layers["first"].register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
        set_input_grids(model, rows(seed=seed), ActivationRanges(estimator=estimator, samples=samples))
        return [float(tap.grid.scale) for tap in model.taps.values()], torch.cat(seen).unique(dim=0)

    scales, drawn = found(seed=1)
    assert len(drawn) == 3
    assert all(any(torch.equal(row, given) for given in rows().x) for row in drawn)
    assert found(seed=1)[0] == scales
    assert found(seed=2)[0] != scales
    assert not torch.equal(found(seed=2)[1], drawn)
    assert torch.equal(found(seed=2, samples=99)[1], rows().x.unique(dim=0))


@pytest.mark.parametrize("granularity", ["tensor", "step", "token"])
def test_only_chosen_taps_get_a_grid(granularity: str) -> None:
    model, everything = make("W4A8"), make("W4A8")
    chosen = {"last", "attn.q", "time"}
    set_input_grids(model, rows(), ActivationRanges(granularity=granularity), chosen=chosen.__contains__)
    set_input_grids(everything, rows(), ActivationRanges(granularity=granularity))
    assert {name for name, tap in model.taps.items() if tap.grid is not None} == chosen
    assert all(same(model.taps[name].grid, everything.taps[name].grid) for name in chosen)


@pytest.mark.parametrize("granularity", ["tensor", "step", "token"])
@pytest.mark.parametrize("bits", ["W4A32", "W4A32S8", "W4A8S32"])
def test_only_activations_of_low_bits_get_a_grid(bits: str, granularity: str) -> None:
    model = make(bits)
    set_input_grids(model, rows(), ActivationRanges(granularity=granularity))
    wanted = {"W4A32": set(), "W4A32S8": {"attn.softmax"}, "W4A8S32": model.taps.keys() - {"attn.softmax"}}[bits]
    assert {name for name, tap in model.taps.items() if tap.grid is not None} == wanted


@pytest.mark.parametrize("kind", ["image", "text"])
def test_all_of_a_unet_gets_its_grids(small_model, small_data, kind: str) -> None:
    model = small_model(kind, "W4A8")
    set_weight_grids(model, WeightRanges(), split=True)
    set_input_grids(model, small_data(kind), ActivationRanges(), split=True)
    assert model.left_out() == []
    splits = {name for name, layer in model.layers.items() if isinstance(layer.weight_grid, SplitGrid)}
    assert splits == {name for name, tap in model.taps.items() if isinstance(tap.grid, SplitGrid)}
    assert splits == model.structure.splits.keys()
