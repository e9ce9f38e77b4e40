from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.method import CalibrationData, UniformSteps
from qbench.plugins import METHODS, Entry
from qbench.quant.grid import AffineGrid
from qbench.quant.model import QuantModel
from qbench.quant.ranges import min_max_per_channel
from qbench.settings import merged, validate
from qbench_methods.linear import Linear, LinearSettings
from qbench_methods.squant import SQuant, SQuantSettings, squant_integers

CLOSE = 1e-4
SHAPES = st.sampled_from(
    [(3, 5, 3, 3), (2, 40, 3, 3), (4, 1, 3, 3), (3, 7, 5, 5), (3, 8, 1, 1), (3, 1, 1, 1), (2, 6, 4), (3, 300), (5, 1)]
)
SEEDS = st.integers(0, 2**32)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit_grid(bits: int = 8) -> AffineGrid:
    """A grid of the scale 1 with 0 in the middle, so that a weight is its own multiple of the scale."""
    return AffineGrid(bits, torch.tensor(1.0), torch.tensor(float(2 ** (bits - 1))))


def errors_of(integers: Tensor, weight: Tensor, grid: AffineGrid) -> Tensor:
    """Errors in units of the scale, [out channels, kernels, elements of a kernel]."""
    errors = (integers - grid.zero_point).double() - (weight / grid.scale).double()
    return errors.reshape(*weight.shape[:2], -1)


def as_kernel(*weights: float) -> Tensor:
    return torch.tensor(weights).view(1, 1, -1)


@settings(deadline=None, max_examples=150)
@given(SHAPES, SEEDS, st.floats(0.1, 20))
def test_errors_and_their_sums_are_within_bounds_where_the_grid_is_wide(
    shape: tuple[int, ...], seed: int, spread: float
) -> None:
    weight, grid = random(*shape, seed=seed) * spread, unit_grid()
    errors = errors_of(squant_integers(weight, grid), weight, grid)
    assert float(errors.abs().max()) <= 1
    assert float(errors.sum(2).abs().max()) <= 1 + CLOSE
    assert float(errors.sum((1, 2)).abs().max()) <= 0.5 + CLOSE


@settings(deadline=None, max_examples=150)
@given(SHAPES, SEEDS, st.sampled_from((2, 3, 4, 8)), st.floats(0.2, 1))
def test_no_flip_leaves_the_grid_or_makes_a_kernels_sum_worse(
    shape: tuple[int, ...], seed: int, bits: int, narrowed: float
) -> None:
    """Also on a grid that covers only a part of the range, where many weights are clamped."""
    weight = random(*shape, seed=seed)
    whole = min_max_per_channel(weight, bits)
    grid = AffineGrid(bits, whole.scale * narrowed, whole.zero_point)
    nearest, found = grid.quantize(weight), squant_integers(weight, grid)
    assert found.shape == weight.shape
    assert torch.equal(found, found.round())
    assert float(found.min()) >= 0
    assert float(found.max()) <= grid.levels - 1
    before, after = errors_of(nearest, weight, grid), errors_of(found, weight, grid)
    flipped = after != before
    assert bool((before.abs() <= 0.5)[flipped].all())
    assert bool((before * after < 0)[flipped].all())
    assert bool((after.abs() <= 1)[flipped].all())
    assert bool((after.sum(2).abs() <= before.sum(2).abs().clamp(min=1) + CLOSE).all())


def test_the_largest_errors_of_the_sums_sign_are_flipped() -> None:
    weight = as_kernel(0.1, 0.45, 2.4, -0.2, 0.3)  # rounds to 0, 0, 2, 0, 0: the errors' sum is -1.05
    assert (squant_integers(weight, unit_grid()) - 128).flatten().tolist() == [0, 1, 2, 0, 0]


def test_the_first_of_equal_errors_are_flipped() -> None:
    weight = as_kernel(0.25, -0.25, 1.25, 0.25, -0.75)  # the errors are -1, 1, -1, -1, -1 quarters
    assert (squant_integers(weight, unit_grid()) - 128).flatten().tolist() == [1, 0, 1, 0, -1]
    many = torch.full((1, 4000), 0.25)
    assert (squant_integers(many, unit_grid()) - 128).flatten().tolist() == [1] * 1000 + [0] * 3000


def test_a_channel_takes_back_the_last_flip_of_a_kernel_that_went_too_far() -> None:
    """Each kernel flips its 0.4 or 0.39, and its sum goes from -0.7 to 0.3: together that is 0.6, one flip too many.

    Of the two, the one with the larger error returns; in the first channel they are equal, and the first one does.
    """
    weight = torch.tensor([[[0.4, 0.3], [0.3, 0.4]], [[0.3, 0.4], [0.39, 0.31]]])
    assert (squant_integers(weight, unit_grid()) - 128).tolist() == [[[0, 0], [0, 1]], [[0, 1], [0, 0]]]


def test_a_channel_flips_one_more_of_a_kernel_that_stopped_short() -> None:
    """Sums of -0.4, -0.45 and 0.1 are left alone by the first level and make -0.75 together."""
    weight = torch.tensor([[[0.3, 0.1], [0.2, 0.25], [-0.05, -0.05]]])
    assert (squant_integers(weight, unit_grid()) - 128).tolist() == [[[1, 0], [0, 0], [0, 0]]]


@pytest.mark.parametrize("shape", [(6, 50), (6, 50, 1, 1), (6, 50, 1)])
def test_kernels_of_one_element_know_the_channel_only(shape: tuple[int, ...]) -> None:
    weight, grid = random(*shape) * 5, unit_grid()
    nearest = grid.quantize(weight)
    expected = nearest.clone()
    for channel, errors in enumerate(errors_of(nearest, weight, grid).flatten(1)):
        total = float(errors.sum())
        sign = 1 if total > 0 else -1
        largest = sorted(range(50), key=lambda index, errors=errors, sign=sign: -sign * float(errors[index]))
        for index in largest[: round(abs(total))]:
            expected[channel].view(-1)[index] -= sign
    assert not torch.equal(expected, nearest)
    assert torch.equal(squant_integers(weight, grid), expected)


def test_the_authors_code_gives_the_same() -> None:
    """clevercool/SQuant at 9cc77fc, 3 bits; each level flips, and channels both add a flip and take one back."""
    weight = torch.tensor(
        [
            [[-104, 92, -130, -111], [-122, 117, -106, -12], [-91, 35, -57, -24], [101, -75, -22, -43]],
            [[-151, -46, -85, 53], [3, -5, 107, 89], [46, -50, 13, 276], [14, 112, 32, 175]],
        ]
    ).view(2, 4, 2, 2)
    expected = [
        [[1, 7, 0, 1], [0, 7, 1, 4], [2, 5, 2, 3], [7, 2, 3, 3]],
        [[0, 1, 1, 3], [2, 2, 4, 3], [3, 1, 2, 7], [2, 4, 2, 5]],
    ]
    found = squant_integers(weight / 100, min_max_per_channel(weight / 100, 3))
    assert found.flatten(2).tolist() == expected


def best_by_trying_all(weight: Tensor, grid: AffineGrid) -> tuple[float, int, float]:
    """Try every set of flips that change the sign of an error and stay on the grid, for one channel.

    Of those that leave each kernel's sum within 1 (or as near to 0 as it can be), take the smallest sum of the channel,
    then the fewest kernels that are not as near to 0 as they can be, then the smallest squared error. Return the three.
    """
    nearest = grid.quantize(weight).flatten().double()
    errors = errors_of(grid.quantize(weight), weight, grid)[0].flatten()
    steps = -errors.sign()
    inside = (nearest + steps >= 0) & (nearest + steps < grid.levels)
    choices = [(0.0, float(step)) if may else (0.0,) for step, may in zip(steps, inside, strict=True)]
    tried = errors + torch.tensor(list(product(*choices)), dtype=torch.float64)
    sums = tried.view(len(tried), weight.shape[1], -1).sum(2)
    least = sums.abs().amin(0)
    allowed = (sums.abs() <= least.clamp(min=1) + CLOSE).all(1)
    tried, sums = tried[allowed], sums[allowed]
    smallest = sums.sum(1).abs() <= sums.sum(1).abs().min() + CLOSE
    moved = (sums > least + CLOSE).logical_or(sums < -least - CLOSE).sum(1)
    fewest = smallest & (moved == moved[smallest].min())
    return float(sums.sum(1).abs().min()), int(moved[fewest][0]), float((tried[fewest] ** 2).sum(1).min())


@pytest.mark.parametrize("bits", [2, 8], ids=["clamped", "wide"])
@pytest.mark.parametrize("shape", [(1, 2, 2, 2), (1, 1, 3, 3), (1, 3, 3), (1, 9)])
def test_no_other_flips_do_better(shape: tuple[int, ...], bits: int) -> None:
    for seed in range(40):
        weight, grid = random(*shape, seed=seed) * 1.5, unit_grid(bits)
        smallest, fewest, least = best_by_trying_all(weight, grid)
        errors = errors_of(squant_integers(weight, grid), weight, grid)[0]
        one_kernel = [as_kernel(*kernel.flatten().tolist()) for kernel in weight[0]]
        alone = [errors_of(squant_integers(kernel, grid), kernel, grid).sum() for kernel in one_kernel]
        moved = sum(abs(float(kernel.sum() - before)) > CLOSE for kernel, before in zip(errors, alone, strict=True))
        assert abs(float(errors.sum())) == pytest.approx(smallest, abs=CLOSE)
        assert moved == fewest
        assert float((errors**2).sum()) == pytest.approx(least, abs=CLOSE)


def one_by_one(weight: Tensor, grid: AffineGrid) -> Tensor:
    """SQuant told element by element."""
    integers = grid.quantize(weight).reshape(*weight.shape[:2], -1)
    errors = errors_of(integers.view(weight.shape), weight, grid)

    def flip(channel: int, kernel: int, element: int, step: int) -> None:
        integers[channel, kernel, element] += step
        errors[channel, kernel, element] += step

    for channel in range(len(integers)):
        candidates = []
        for kernel, row in enumerate(errors[channel]):
            total = float(row.sum())
            step = -1 if total > 0 else 1
            order = [
                element
                for element in sorted(range(len(row)), key=lambda element, row=row: -abs(float(row[element])))
                if float(row[element]) * step < 0 and 0 <= integers[channel, kernel, element] + step < grid.levels
            ]
            count = min(round(abs(total)), len(order))
            for element in order[:count]:
                flip(channel, kernel, element, step)
            if count > abs(total):
                candidates.append((kernel, order[count - 1], -step))
            elif count < len(order):
                candidates.append((kernel, order[count], step))
        total = float(errors[channel].sum())
        useful = [candidate for candidate in candidates if candidate[2] * total < 0]
        useful.sort(key=lambda candidate, channel=channel: -abs(float(errors[channel, candidate[0], candidate[1]])))
        for candidate in useful[: round(abs(total))]:
            flip(channel, *candidate)
    return integers.view(weight.shape)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("narrowed", [1.0, 0.6])
@pytest.mark.parametrize("shape", [(4, 16, 3, 3), (5, 1, 3, 3), (3, 9, 5), (4, 60), (4, 30, 1, 1)])
def test_it_agrees_with_a_loop_over_elements(shape: tuple[int, ...], narrowed: float, bits: int) -> None:
    for seed in range(3):
        weight = random(*shape, seed=seed)
        whole = min_max_per_channel(weight, bits)
        grid = AffineGrid(bits, whole.scale * narrowed, whole.zero_point)
        assert torch.equal(squant_integers(weight, grid), one_by_one(weight, grid))


@pytest.mark.parametrize("weights", [(15.2, 15.3, 15.4, 16.4, 19.0), (-0.2, -0.3, -0.4, -0.5, -7.0)])
def test_nothing_flips_outwards_at_the_edge(weights: tuple[float, ...]) -> None:
    weight, grid = as_kernel(*weights), AffineGrid(4, torch.tensor(1.0), torch.tensor(0.0))
    assert torch.equal(squant_integers(weight, grid), grid.quantize(weight))


def test_flips_make_up_for_what_is_clamped_as_far_as_they_can() -> None:
    """Errors of -3.4, -0.2, -0.1 and 0.3: the two small negative ones flip, and nothing else may."""
    weight, grid = as_kernel(18.4, 3.2, 3.1, 2.7), AffineGrid(4, torch.tensor(1.0), torch.tensor(0.0))
    assert squant_integers(weight, grid).flatten().tolist() == [15, 4, 4, 3]


def test_a_sum_of_one_half_cannot_be_improved() -> None:
    weight, grid = as_kernel(0.25, 0.25, 3.0), unit_grid()
    assert torch.equal(squant_integers(weight, grid), grid.quantize(weight))


@pytest.mark.parametrize("shape", [(4, 8, 3, 3), (4, 8), (4, 1, 3, 3)])
@pytest.mark.parametrize("value", [0.0, 0.37, -0.37])
def test_constant_channels_stay_as_they_are(shape: tuple[int, ...], value: float) -> None:
    weight = torch.full(shape, value)
    weight[1] = random(*shape[1:])
    grid = min_max_per_channel(weight, 4)
    found, nearest = squant_integers(weight, grid), grid.quantize(weight)
    assert torch.equal(found[[0, 2, 3]], nearest[[0, 2, 3]])
    torch.testing.assert_close(grid.dequantize(found)[[0, 2, 3]], weight[[0, 2, 3]])


def test_the_unit_of_the_weights_changes_nothing() -> None:
    weight = random(8, 16, 3, 3)
    grid = min_max_per_channel(weight, 4)
    scaled = AffineGrid(4, grid.scale * 0.125, grid.zero_point)
    assert torch.equal(squant_integers(weight * 0.125, scaled), squant_integers(weight, grid))


def test_the_mirror_image_gets_the_mirror_image() -> None:
    weight = random(8, 16, 3, 3)
    grid = min_max_per_channel(weight, 4)
    mirrored = AffineGrid(4, grid.scale, 15 - grid.zero_point)
    assert torch.equal(15 - squant_integers(-weight, mirrored), squant_integers(weight, grid))


def test_the_order_of_channels_and_kernels_changes_nothing() -> None:
    weight = random(8, 16, 3, 3)
    grid = min_max_per_channel(weight, 4)
    outs, ins = torch.randperm(8), torch.randperm(16)
    shuffled = AffineGrid(4, grid.scale[outs], grid.zero_point[outs])
    assert torch.equal(squant_integers(weight[outs][:, ins], shuffled), squant_integers(weight, grid)[outs][:, ins])


def test_a_part_of_a_weight_is_a_weight() -> None:
    weight = random(8, 16, 3, 3)
    for part in (weight[:, :6], weight[:, 6:], weight.transpose(2, 3)):
        grid = min_max_per_channel(part, 4)
        assert torch.equal(squant_integers(part, grid), squant_integers(part.contiguous(), grid))


def test_the_weight_is_not_changed() -> None:
    weight = nn.Parameter(random(4, 4, 3, 3))
    before = weight.detach().clone()
    found = squant_integers(weight, min_max_per_channel(weight, 4))
    assert torch.equal(weight, before)
    assert not found.requires_grad


def test_sums_shrink_though_single_errors_grow() -> None:
    weight = random(32, 64, 3, 3)
    grid = min_max_per_channel(weight, 4)
    nearest = errors_of(grid.quantize(weight), weight, grid)
    found = errors_of(squant_integers(weight, grid), weight, grid)
    assert float(found.sum((1, 2)).abs().max()) <= 0.5 + CLOSE
    assert float(found.sum((1, 2)).abs().mean()) < 0.1 * float(nearest.sum((1, 2)).abs().mean())
    assert float(found.sum(2).abs().mean()) < 0.5 * float(nearest.sum(2).abs().mean())
    assert float((found**2).mean()) > float((nearest**2).mean())


class Net(nn.Module):
    """Four layers; the last but one is grouped."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        hidden = torch.relu(self.first(x)) + timestep[:, None, None, None] / 500 - 1
        hidden = torch.relu(self.grouped(torch.relu(self.middle(hidden))))
        return (self.last(hidden.movedim(1, -1)).movedim(-1, 1),)


def make(bits: str = "W4A8", boundary_bits: int | None = None) -> QuantModel:
    structure = Structure(boundary_layers=("first", "last"))
    return QuantModel(Net().requires_grad_(False), structure, BitWidth.parse(bits), boundary_bits)


def data() -> CalibrationData:
    steps = torch.arange(32) % 4
    return CalibrationData(random(32, 2, 6, 6, seed=1), 999 - 300 * steps, steps, 5, lambda rows: None)


@pytest.fixture
def squant() -> SQuant:
    return SQuant(Entry("squant", "qbench", "0", "here:there"), SQuantSettings())


@pytest.mark.parametrize("bits", ["W2A32", "W4A8", "W8A8"])
def test_each_layer_gets_its_integers_on_its_min_max_grid(squant: SQuant, bits: str) -> None:
    model = make(bits)
    original = {name: layer.weight.clone() for name, layer in model.layers.items()}
    squant.quantize_weights(model, None, model.bits)
    model.freeze()
    for name, layer in model.layers.items():
        grid = min_max_per_channel(original[name], model.bits.weights)
        assert isinstance(layer.weight_grid, AffineGrid)
        assert torch.equal(layer.weight_grid.scale, grid.scale)
        assert torch.equal(layer.weight_grid.zero_point, grid.zero_point)
        integers = squant_integers(original[name], grid)
        assert torch.equal(layer.weight, grid.dequantize(integers))
        assert torch.equal(grid.quantize(layer.weight), integers)


def test_a_constant_input_meets_channels_that_are_off_by_half_a_step_at_most(squant: SQuant) -> None:
    linear = Linear(Entry("linear", "qbench", "0", "here:there"), LinearSettings())
    original, worst = Net().grouped.weight.detach(), {}
    for method in (linear, squant):
        model = make("W3A32")
        method.quantize_weights(model, None, model.bits)
        model.freeze()
        layer = model.layers["grouped"]
        scale = min_max_per_channel(original, 3).scale.flatten()
        off = nn.functional.conv2d(torch.ones(1, 8, 3, 3), layer.weight - original, groups=4).flatten() / scale
        worst[method.name] = float(off.abs().max())
    assert worst["squant"] <= 0.5 + CLOSE < worst["linear"]


def test_weights_get_the_bits_of_their_layer(squant: SQuant) -> None:
    model = make("W4A8", boundary_bits=8)
    squant.quantize_weights(model, None, model.bits)
    grids = {name: layer.weight_grid for name, layer in model.layers.items()}
    assert {name: grid and grid.bits for name, grid in grids.items()} == {
        "first": 8,
        "middle": 4,
        "grouped": 4,
        "last": 8,
    }


def test_weights_of_32_bits_are_left_alone(squant: SQuant) -> None:
    model = make("W32A8")
    squant.quantize_weights(model, None, model.bits)
    assert all(layer.weight_grid is None for layer in model.layers.values())
    model = make("W4A8", boundary_bits=32)
    squant.quantize_weights(model, None, model.bits)
    assert [name for name, layer in model.layers.items() if layer.weight_grid is None] == ["first", "last"]


def test_it_runs_from_weights_to_an_output(squant: SQuant) -> None:
    model, given_data = make("W4A8"), data()
    exact = model(given_data.x, given_data.timesteps)
    squant.quantize_weights(model, None, model.bits)
    model.freeze()
    squant.quantize_activations(model, given_data, model.bits)
    assert model.left_out() == []
    found = model(given_data.x, given_data.timesteps)
    difference = float((found - exact).pow(2).mean() / exact.var())
    assert 1e-6 < difference < 0.1


def test_inputs_are_ranged_as_in_linear_quantization(squant: SQuant) -> None:
    """The same weights, so that both see the same inputs."""
    linear = Linear(Entry("linear", "qbench", "0", "here:there"), LinearSettings())
    grids = []
    for method in (linear, squant):
        model = make("W32A8")
        method.quantize_activations(model, data(), model.bits)
        grids.append({name: layer.input_grid for name, layer in model.layers.items()})
    for name, grid in grids[0].items():
        assert isinstance(grid, AffineGrid)
        assert isinstance(grids[1][name], AffineGrid)
        assert (grid.bits, grid.scale, grid.zero_point) == (8, grids[1][name].scale, grids[1][name].zero_point)


def test_inputs_of_32_bits_are_left_alone(squant: SQuant) -> None:
    model = make("W4A32")
    squant.quantize_activations(model, data(), model.bits)
    assert all(layer.input_grid is None for layer in model.layers.values())


def test_only_activations_need_data(squant: SQuant) -> None:
    assert squant.calibration("weights") is None
    assert squant.calibration("activations") == UniformSteps()
    with pytest.raises(ValueError, match="needs calibration data"):
        squant.quantize_activations(make(), None, BitWidth(4, 8))


def test_the_request_is_that_of_the_settings() -> None:
    given_settings = SQuantSettings(calibration=UniformSteps(steps=5, per_step=8))
    found = SQuant(Entry("squant", "qbench", "0", "here:there"), given_settings).calibration("activations")
    assert found == UniformSteps(steps=5, per_step=8)


def test_presets_are_parts_of_its_settings() -> None:
    defaults = SQuantSettings().model_dump(mode="json")
    found = {name: validate(SQuantSettings, merged(defaults, preset), str) for name, preset in SQuant.presets.items()}
    assert found == {"strict": SQuantSettings(), "fast": SQuantSettings(calibration=UniformSteps(per_step=25))}


def test_it_is_installed_under_its_name() -> None:
    assert METHODS.load("squant") is SQuant
