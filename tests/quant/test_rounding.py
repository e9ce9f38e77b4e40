from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Segment, State, Structure
from qbench.errors import StageError
from qbench.quant import (
    AffineGrid,
    CalibrationData,
    QuantModel,
    RoundingRecipe,
    SplitGrid,
    WeightRanges,
    learn_rounding,
    min_max_per_channel,
    mse_per_channel,
    set_weight_grids,
)
from qbench.quant.recipes import FAST_ROUNDING
from qbench.quant.reconstruction import fit_rounding
from qbench.quant.rounding import SoftRounding, annealed
from qbench.quant.units import Granularity, Walk

INPUTS, OUTPUTS, ROWS = 8, 4, 256


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def narrow(weight: Tensor, bits: int = 3) -> AffineGrid:
    """A grid that leaves both ends of every channel outside."""
    grid = min_max_per_channel(0.6 * weight, bits)
    assert ((weight / grid.scale).round() + grid.zero_point > 2**bits - 1).any()
    assert ((weight / grid.scale).round() + grid.zero_point < 0).any()
    return grid


def clamped(weight: Tensor, grid: AffineGrid) -> Tensor:
    low, high = -grid.zero_point * grid.scale, (2**grid.bits - 1 - grid.zero_point) * grid.scale
    return weight.maximum(low).minimum(high)


class TestSoftRounding:
    @pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (4, 6, 3, 3)])
    @pytest.mark.parametrize("bits", [2, 4, 8])
    def test_it_starts_at_the_weight(self, shape: tuple[int, ...], bits: int) -> None:
        weight = random(*shape)
        grid = min_max_per_channel(weight, bits)
        inside = clamped(weight, grid) == weight  # an end of the range may not be, as the zero point is rounded
        assert inside.float().mean() > 0.5
        found = SoftRounding(weight, grid).weight().detach()
        torch.testing.assert_close(found[inside], weight[inside], rtol=1e-4, atol=1e-6)

    def test_it_starts_at_the_ends_of_the_grid_where_the_weight_lies_outside(self) -> None:
        weight = 3 * random(4, 6, 3, 3)
        grid = narrow(weight)
        torch.testing.assert_close(
            SoftRounding(weight, grid).weight().detach(), clamped(weight, grid), rtol=1e-4, atol=1e-5
        )

    def test_weights_on_the_grid_start_there(self) -> None:
        grid = AffineGrid(3, torch.tensor(0.25), torch.tensor(4.0))
        weight = grid.dequantize(torch.arange(8.0)).view(2, 4)
        rounding = SoftRounding(weight, grid)
        torch.testing.assert_close(rounding.weight().detach(), weight, rtol=0, atol=1e-6)
        assert torch.equal(grid.dequantize(rounding.integers()), weight)

    @pytest.mark.parametrize("make", [min_max_per_channel, mse_per_channel, narrow])
    def test_hardened_at_once_it_is_round_to_nearest(self, make: Callable[[Tensor, int], AffineGrid]) -> None:
        weight = random(4, 6, 3, 3)
        grid = make(weight, 3)
        assert torch.equal(SoftRounding(weight, grid).integers(), grid.quantize(weight))

    def test_each_half_of_a_split_weight_has_its_own_steps(self) -> None:
        weight = torch.cat([random(4, 3, 1, 1), 20 * random(4, 5, 1, 1, seed=1)], dim=1)
        halves = [min_max_per_channel(part, 3) for part in (weight[:, :3], weight[:, 3:])]
        rounding = SoftRounding(weight, SplitGrid(3, *halves))
        alone = [SoftRounding(part, grid) for part, grid in zip((weight[:, :3], weight[:, 3:]), halves, strict=True)]
        assert torch.equal(rounding.weight(), torch.cat([each.weight() for each in alone], dim=1))
        assert torch.equal(rounding.integers(), torch.cat([each.integers() for each in alone], dim=1))

    def test_a_weight_behind_an_end_of_the_grid_stays_there(self) -> None:
        weight = random(4, 6, 3, 3)
        grid = narrow(weight)
        rounding = SoftRounding(weight, grid)
        below, above = weight / grid.scale + grid.zero_point < 0, weight / grid.scale + grid.zero_point >= 7
        ends = clamped(weight, grid)[below | above]
        optimizer = torch.optim.Adam([rounding.alpha], lr=0.1)
        for _ in range(20):
            (rounding.weight() * random(*weight.shape, seed=1)).sum().backward()
            rounding.back_propagate(0.1, 2.0)
            optimizer.step()
        torch.testing.assert_close(rounding.weight().detach()[below | above], ends, rtol=1e-6, atol=1e-6)
        assert set(rounding.integers()[below].tolist()) == {0.0}
        assert set(rounding.integers()[above].tolist()) == {7.0}

    def test_whatever_is_learned_each_integer_is_floor_or_ceiling(self) -> None:
        weight = random(4, 6, 3, 3)
        grid = narrow(weight)
        rounding = SoftRounding(weight, grid)
        floor = (weight / grid.scale).floor() + grid.zero_point
        inside = (floor >= 0) & (floor < 7)
        rounding.alpha.detach()[inside] = 10 * random(*weight.shape, seed=1)[inside]
        integers, raised = rounding.integers(), rounding.alpha >= 0
        assert torch.equal(integers, torch.where(inside, floor + raised, floor.clamp(0, 7)))
        assert 0.2 < raised.float().mean() < 0.8
        rounding.alpha.detach().mul_(1e3)  # every h is 0 or 1: soft and hard are one
        assert set(rounding.soft().unique().tolist()) == {0.0, 1.0}
        torch.testing.assert_close(rounding.weight().detach(), grid.dequantize(integers), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(("strength", "beta"), [(0.0, None), (0.0, 4.0), (0.3, None), (0.3, 2.0), (0.3, 7.5)])
    def test_the_gradient_is_that_of_the_rectified_sigmoid_and_the_push(
        self, strength: float, beta: float | None
    ) -> None:
        weight = random(4, 6)
        grid = narrow(weight)
        rounding = SoftRounding(weight, grid)
        floor = (weight / grid.scale).floor() + grid.zero_point
        inside = (floor >= 0) & (floor < 7)
        rounding.alpha.detach()[inside] = 3 * random(4, 6, seed=1)[inside]
        alpha, upstream = rounding.alpha.detach().double(), random(4, 6, seed=2)
        (rounding.weight() * upstream).sum().backward()
        rounding.back_propagate(strength, beta)
        sigmoid = 1 / (1 + (-alpha).exp())
        h = 1.2 * sigmoid - 0.1
        moves = (h > 0) & (h < 1)
        of_h = (grid.scale * upstream).double()
        if beta is not None:
            of_h += strength * -2 * beta * (2 * h - 1).sign() * (2 * h - 1).abs() ** (beta - 1)
        expected = torch.where(moves, 1.2 * sigmoid * (1 - sigmoid) * of_h, 0.0)
        assert 0.2 < moves[inside].float().mean() < 0.9
        assert not moves[~inside].any()
        torch.testing.assert_close(rounding.alpha.grad, expected.float(), rtol=1e-4, atol=1e-6)

    def test_a_weight_in_the_middle_is_pushed_nowhere(self) -> None:
        rounding = SoftRounding(torch.full((1, 3), 0.5), AffineGrid(4, torch.tensor(1.0), torch.tensor(8.0)))
        rounding.weight().sum().mul(0).backward()
        rounding.back_propagate(1.0, 2.5)
        assert rounding.alpha.grad is not None
        assert rounding.alpha.grad.tolist() == [[0.0, 0.0, 0.0]]

    def test_each_iteration_begins_without_the_gradient_of_the_one_before(self) -> None:
        weight = random(4, 6)
        found = []
        rounding = SoftRounding(weight, min_max_per_channel(weight, 3))
        for _ in range(2):
            rounding.weight().square().sum().backward()
            rounding.back_propagate(0.1, 3.0)
            assert rounding.alpha.grad is not None
            found.append(rounding.alpha.grad.clone())
        assert torch.equal(*found)


class TestRegularizer:
    @pytest.mark.parametrize(("iterations", "warm_up", "first"), [(100, 0.2, 19), (20, 0.2, 3), (250, 0.2, 49)])
    def test_nothing_is_pushed_during_the_warm_up(self, iterations: int, warm_up: float, first: int) -> None:
        """The authors' code counts from 1 and pushes from the count on that is the warm-up's share."""
        found = [annealed(iteration, iterations, warm_up, 20.0, 2.0) for iteration in range(iterations)]
        assert found[:first] == [None] * first
        assert found[first] == 20.0
        assert None not in found[first:]

    @pytest.mark.parametrize("iterations", [7, 100, 20_000])
    @pytest.mark.parametrize(("warm_up", "start", "end"), [(0.2, 20.0, 2.0), (0.0, 14.0, 2.0), (0.5, 3.0, 8.0)])
    def test_the_exponent_is_that_of_the_authors(
        self, iterations: int, warm_up: float, start: float, end: float
    ) -> None:
        """LossFunction and LinearTempDecay of BRECQ and Q-Diffusion, by their own names."""
        t_max, rel_start_decay, loss_start = iterations, warm_up, iterations * warm_up
        start_decay = rel_start_decay * t_max
        for t in range(1, t_max + 1):
            rel_t = (t - start_decay) / (t_max - start_decay)
            b = start if t < start_decay else end + (start - end) * max(0.0, (1 - rel_t))
            wanted = None if t < loss_start else pytest.approx(b, rel=1e-12)
            assert annealed(t - 1, iterations, warm_up, start, end) == wanted

    def test_the_exponent_falls_evenly_and_reaches_its_end(self) -> None:
        found = torch.tensor([annealed(iteration, 1000, 0.2, 20.0, 2.0) for iteration in range(199, 1000)])
        assert (float(found[0]), float(found[-1])) == (20.0, 2.0)
        torch.testing.assert_close(found.diff(), torch.full((800,), -18 / 800), rtol=2e-3, atol=1e-5)

    def test_without_a_warm_up_it_starts_at_once(self) -> None:
        assert [annealed(iteration, 10, 0.0, 20.0, 2.0) for iteration in (0, 9)] == [pytest.approx(18.2), 2.0]


class Line(nn.Module):
    """One layer, called as diffusers' denoisers are."""

    def __init__(self, line: nn.Module) -> None:
        super().__init__()
        self.line = line
        for seed, parameter in ((0, line.weight), (3, line.bias)):
            parameter.data = random(*parameter.shape, seed=seed)

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (self.line(x),)


def line_model(line: nn.Module | None = None, calls: int = 1) -> QuantModel:
    def run(module: nn.Module, state: State) -> State:
        for _ in range(calls):
            state = replace(state, h=module.line(state.h))
        return state

    segment = Segment("line", "residual", ("line",), run)
    structure = Structure(boundary_layers=("line", "line"), segments=(segment,))
    module = Line(line or nn.Linear(INPUTS, OUTPUTS))
    model = QuantModel(module.requires_grad_(False), structure, BitWidth(3, 32))
    set_weight_grids(model, WeightRanges())
    return model


def correlated() -> CalibrationData:
    """Inputs with a common part, so that errors of one weight can make up for those of another."""
    x = random(ROWS, INPUTS, seed=1) + 0.8 * random(ROWS, 1, seed=2)
    steps = torch.zeros(ROWS, dtype=torch.int64)
    return CalibrationData(x, steps, steps, ROWS, lambda done: None)


def losses(x: Tensor, weight: Tensor, candidates: Tensor) -> Tensor:
    """Mean squared error of candidates [n, inputs] for one output channel's weight [inputs]."""
    return ((candidates - weight) @ x.T).square().mean(1)


RECIPES = {
    "published": RoundingRecipe(iterations=400, batch_size=64, learning_rate=0.03, regularizer=0.1),
    "relative": RoundingRecipe(iterations=400, batch_size=64, learning_rate=0.1, regularizer=0.1, loss="relative"),
}


@pytest.mark.parametrize("granularity", ["block", "layer"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_it_finds_the_best_of_all_roundings_or_nearly(recipe: str, granularity: Granularity) -> None:
    model, data = line_model(), correlated()
    learn_rounding(model, data, RECIPES[recipe], granularity)
    layer = model.layers["line"]
    grid = layer.weight_grid
    assert isinstance(grid, AffineGrid)
    flips = torch.tensor(list(product((0, 1), repeat=INPUTS)))
    found = nearest = best = 0.0
    for channel, weight in enumerate(layer.weight):
        scale, zero_point = grid.scale[channel], grid.zero_point[channel]
        integers = ((weight / scale).floor() + flips + zero_point).clamp(0, 7)
        found += float(losses(data.x, weight, layer.rounded[channel][None]))
        nearest += float(losses(data.x, weight, grid.dequantize(grid.quantize(layer.weight))[channel][None]))
        best += float(losses(data.x, weight, (integers - zero_point) * scale).min())
    assert nearest > 1.5 * best
    assert found < 1.1 * best
    assert found > 0.9999 * best


def test_a_push_that_outweighs_everything_gives_round_to_nearest() -> None:
    """Each h goes to the nearer of 0 and 1, if it is pushed from the first iteration on."""
    recipe = RoundingRecipe(iterations=100, learning_rate=0.1, regularizer=1e6, warm_up=0.0, beta_start=2.0)
    model = line_model()
    learn_rounding(model, correlated(), recipe, "layer")
    layer = model.layers["line"]
    assert layer.weight_grid is not None
    assert torch.equal(layer.rounded, layer.weight_grid(layer.weight))


def test_nothing_is_pushed_in_learning_either_until_the_warm_up_is_over() -> None:
    recipe = RoundingRecipe(iterations=20, learning_rate=0.1, regularizer=0.0)
    learned = []
    for changes in ({}, {"regularizer": 1e6, "warm_up": 0.99}, {"regularizer": 1e6}):
        model = line_model()
        learn_rounding(model, correlated(), recipe.model_copy(update=changes), "layer")
        learned.append(model.layers["line"].rounded)
    assert torch.equal(learned[0], learned[1])
    assert not torch.equal(learned[0], learned[2])


def fitted(recipe: RoundingRecipe, data: CalibrationData, weights: Tensor | None = None) -> tuple[Tensor, list[float]]:
    """Fit the one unit of the line by itself; return its rounded weight and its losses."""
    model, losses = line_model(), list[float]()
    layer = model.layers["line"]
    assert layer.weight_grid is not None
    (unit,) = Walk(model, data, "layer", "quantized")
    rounding = SoftRounding(layer.weight, layer.weight_grid)

    def listen(name: str, iteration: int, loss: Tensor) -> None:
        assert (name, iteration) == ("line", len(losses))
        losses.append(float(loss))

    fit_rounding(unit, {"line": rounding}, data, recipe, weights, listen)
    assert layer.learned is None
    assert torch.equal(layer.rounded, layer.weight_grid.dequantize(rounding.integers()))
    return layer.rounded, losses


QUICK = RoundingRecipe(iterations=60, batch_size=64, learning_rate=0.1, regularizer=1.0, loss="relative")


def test_one_unit_can_be_fitted_by_itself() -> None:
    model, shares = line_model(), list[float]()
    learn_rounding(model, correlated(), QUICK, "layer")
    found, losses = fitted(QUICK, replace(correlated(), report=shares.append))
    assert torch.equal(found, model.layers["line"].rounded)
    assert len(losses) == len(shares) == 60
    assert sum(shares) == pytest.approx(1)


def test_outputs_of_no_weight_are_left_to_round_to_nearest() -> None:
    weights = torch.ones(ROWS, OUTPUTS)
    weights[:, 1] = 0
    model, recipe = line_model(), QUICK.model_copy(update={"regularizer": 0.0})
    all_count, some_count = fitted(recipe, correlated())[0], fitted(recipe, correlated(), weights)[0]
    nearest = model.layers["line"].rounded
    assert torch.equal(some_count[1], nearest[1])
    assert not torch.equal(all_count[1], nearest[1])
    assert not torch.equal(some_count[[0, 2, 3]], nearest[[0, 2, 3]])


@pytest.mark.parametrize("batch_size", [ROWS, 100, 1])
def test_a_relative_loss_is_a_share_of_the_error_of_round_to_nearest(batch_size: int) -> None:
    """Over all rows, whatever the batch that they are looked at in."""
    model, data = line_model(), replace(correlated(), batch_size=batch_size)
    layer = model.layers["line"]
    assert layer.weight_grid is not None
    low, high = -layer.weight_grid.zero_point, 7 - layer.weight_grid.zero_point
    at_first = layer.weight.maximum(low * layer.weight_grid.scale).minimum(high * layer.weight_grid.scale)
    errors = [((weight - layer.weight) @ data.x.T).square().mean() for weight in (at_first, layer.rounded)]
    recipe = RoundingRecipe(iterations=1, batch_size=ROWS, loss="relative")
    assert fitted(recipe, data)[1] == pytest.approx([float(errors[0] / errors[1])], rel=1e-4)


def test_a_unit_without_an_error_has_nothing_to_learn() -> None:
    model = line_model()
    layer = model.layers["line"]
    assert layer.weight_grid is not None
    layer.weight.copy_(layer.rounded)
    learn_rounding(model, correlated(), QUICK, "layer")
    assert torch.equal(layer.rounded, layer.weight)


def test_it_ends_at_0_or_1_because_it_is_pushed_there() -> None:
    """By the end of the schedule every h is 0 or 1, so that hardening changes nothing; unpushed, most are between."""
    ends = {}
    for regularizer in (FAST_ROUNDING["regularizer"], 0.0):
        model = line_model()
        layer = model.layers["line"]
        assert layer.weight_grid is not None
        (unit,) = Walk(model, correlated(), "layer", "quantized")
        rounding = SoftRounding(layer.weight, layer.weight_grid)
        recipe = RoundingRecipe(**{**FAST_ROUNDING, "regularizer": regularizer})
        fit_rounding(unit, {"line": rounding}, correlated(), recipe)
        ends[regularizer > 0] = rounding.soft()
        if regularizer:
            torch.testing.assert_close(rounding.weight().detach(), layer.rounded, rtol=0, atol=1e-6)
    assert set(ends[True].unique().tolist()) == {0.0, 1.0}
    assert ((ends[False] > 0) & (ends[False] < 1)).float().mean() > 0.25


@pytest.mark.parametrize(("make", "shape"), [(lambda: nn.Conv1d(3, 4, 1), (3, 50)), (lambda: nn.Linear(3, 4), (50, 3))])
def test_the_published_loss_sums_over_channels_wherever_they_are(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    """Squared errors, summed over the output's channels and averaged over the rest."""
    model, x, steps = line_model(make()), random(8, *shape, seed=1), torch.zeros(8, dtype=torch.int64)
    data = CalibrationData(x, steps, steps, 8, lambda done: None)
    layer, losses = model.layers["line"], list[float]()
    assert isinstance(layer.weight_grid, AffineGrid)
    rounding = SoftRounding(layer.weight, layer.weight_grid)
    with model.full_precision():
        target = layer(x)
    layer.learned = rounding.weight().detach().clone()
    errors = (layer(x) - target).square()
    (unit,) = Walk(model, data, "layer", "quantized")
    recipe = RoundingRecipe(iterations=1, batch_size=8)
    fit_rounding(unit, {"line": rounding}, data, recipe, listen=lambda *heard: losses.append(float(heard[2])))
    assert losses == pytest.approx([float(errors.sum(1 if layer.weight.dim() == 3 else 2).mean())], rel=1e-3)


def test_a_layer_that_is_called_twice_cannot_be_reconstructed_alone() -> None:
    model = line_model(nn.Linear(INPUTS, INPUTS), calls=2)
    with pytest.raises(StageError, match="the layer 'line' is called more than once"):
        learn_rounding(model, correlated(), QUICK, "layer")
