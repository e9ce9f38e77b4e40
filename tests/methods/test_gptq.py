from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import DIFFUSERS_UNET
from qbench.errors import StageError
from qbench.method import UniformSteps
from qbench.plugins import METHODS
from qbench.quant import (
    ActivationRanges,
    AffineGrid,
    SplitGrid,
    WeightRanges,
    input_hessians,
    min_max_per_channel,
    mse_per_channel,
    set_input_grids,
    set_weight_grids,
)
from qbench.quant.hessians import InputHessian
from qbench.quant.layers import LayerBits, QuantLayer
from qbench.quant.recipes import FAST_RANGE_ROWS, FAST_SAMPLES
from qbench.settings import merged, validate
from qbench_methods.gptq import GPTQ, GPTQSettings, gptq_integers
from qbench_methods.qdiffusion import QDiffusionSettings

Run = Callable[..., Any]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def one_by_one(weight: Tensor, grid: AffineGrid, hessian: Tensor, damping: float) -> Tensor:
    """Optimal Brain Quantization in a fixed order, as its paper writes it: rows apart, no blocks, no Cholesky.

    Each weight is rounded, the rest makes up for it, and its row and column leave the inverse Hessian by elimination.
    """
    flat = weight.flatten(1).double()
    integers = torch.zeros_like(flat)
    hessian = hessian.double() + damping * hessian.double().diagonal().mean() * torch.eye(len(hessian))
    for row, values in enumerate(flat):
        scale, zero_point = float(grid.scale.flatten()[row]), float(grid.zero_point.flatten()[row])
        values, inverse = values.clone(), torch.linalg.inv(hessian)
        for column in range(len(values)):
            value = float(values[column])
            integer = min(max(round(value / scale) + zero_point, 0), grid.levels - 1)
            integers[row, column] = integer
            error = (value - (integer - zero_point) * scale) / inverse[column, column]
            values -= error * inverse[:, column]
            inverse = inverse - torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return integers.view(weight.shape).float()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("columns_at_once", [1, 5, 128])
def test_it_is_optimal_brain_quantization_in_order(bits: int, columns_at_once: int) -> None:
    weight, inputs = random(5, 3, 2, 2), random(12, 12, seed=1) @ random(12, 60, seed=2)
    hessian, grid = 2 * inputs @ inputs.T, min_max_per_channel(weight, bits)
    found = gptq_integers(weight, grid, hessian[None], columns_at_once=columns_at_once)
    assert torch.equal(found, one_by_one(weight, grid, hessian, 0.01))
    assert not torch.equal(found, grid.quantize(weight))


LAYERS = [
    pytest.param(lambda: nn.Linear(24, 8), (40, 24), id="linear"),
    pytest.param(lambda: nn.Conv2d(6, 8, 3, padding=1), (6, 6, 5, 5), id="convolution"),
    pytest.param(lambda: nn.Conv2d(6, 8, 3, stride=2, groups=2), (12, 6, 7, 7), id="convolution in groups"),
]


def correlated(shape: tuple[int, ...], seed: int) -> Tensor:
    """Inputs whose channels resemble each other and differ in size, as activations do."""
    channels = shape[1]
    mixing = random(channels, channels, seed=seed + 100) * random(channels, seed=seed + 200).exp()
    return torch.einsum("ij,bj...->bi...", mixing, random(*shape, seed=seed))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_a_layers_output_errs_less_than_rounded_to_nearest(
    make: Callable[[], nn.Module], shape: tuple[int, ...], bits: int, ordered: bool
) -> None:
    """The law, on the inputs that the Hessian was taken of: |W X - Q X|^2, and clearly so."""
    shares = []
    for seed in range(8):
        torch.manual_seed(seed)
        layer, x = QuantLayer(make().requires_grad_(False), LayerBits(bits, 32)), correlated(shape, seed)
        exact = layer(x)
        hessian = InputHessian("layer", layer)
        hessian(x)
        grid = min_max_per_channel(layer.weight, bits)
        layer.weight_grid = grid
        nearest = float((layer(x) - exact).pow(2).sum())
        integers = gptq_integers(layer.weight, grid, hessian.value, ordered=ordered)
        assert torch.equal(integers, integers.round())
        assert 0 <= float(integers.min()) <= float(integers.max()) <= 2**bits - 1
        layer.adopt(grid, integers)
        shares.append(float((layer(x) - exact).pow(2).sum()) / nearest)
    assert max(shares) < 1
    assert sum(shares) / len(shares) < 0.75


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_where_no_input_resembles_another_it_rounds_to_nearest(bits: int, ordered: bool) -> None:
    weight = random(6, 4, 3, 3)
    diagonal = random(36).abs()
    diagonal[[0, 7]] = 0  # inputs that are always 0 resemble none either
    for grid in (min_max_per_channel(weight, bits), mse_per_channel(weight, bits, symmetric=True)):
        found = gptq_integers(weight, grid, torch.diag(diagonal)[None], ordered=ordered, columns_at_once=7)
        assert torch.equal(found, grid.quantize(weight))


@pytest.mark.parametrize("ordered", [False, True])
def test_blocks_of_columns_change_nothing(ordered: bool) -> None:
    weight, inputs = random(8, 30, 3, 3), random(270, 900, seed=1) * random(270, 1, seed=2).exp()
    grid, hessian = min_max_per_channel(weight, 3), (2 * inputs @ inputs.T)[None]
    results = [
        gptq_integers(weight, grid, hessian, ordered=ordered, columns_at_once=size) for size in (1, 64, 128, 999)
    ]
    for each in results[1:]:
        assert torch.equal(each, results[0])


def test_groups_are_rounded_apart() -> None:
    weight, inputs = random(6, 4), random(2, 4, 50, seed=1)
    grid, hessian = min_max_per_channel(weight, 3), 2 * inputs @ inputs.transpose(1, 2)
    found = gptq_integers(weight, grid, hessian, ordered=True)
    for group, rows in enumerate((slice(0, 3), slice(3, 6))):
        own = AffineGrid(3, grid.scale[rows], grid.zero_point[rows])
        assert torch.equal(found[rows], gptq_integers(weight[rows], own, hessian[group : group + 1], ordered=True))


def test_scale_of_inputs_does_not_matter_and_neither_weight_nor_hessian_is_changed() -> None:
    weight, inputs = random(5, 8).double(), random(8, 30, seed=1)
    grid, hessian = min_max_per_channel(weight.float(), 3), (2 * inputs @ inputs.T)[None]
    before = weight.clone(), hessian.clone()
    found = gptq_integers(weight, grid, hessian)
    assert torch.equal(found, gptq_integers(weight, grid, hessian * 2**20))
    assert torch.equal(weight, before[0])
    assert torch.equal(hessian, before[1])


def test_a_split_grid_serves_too() -> None:
    weight, inputs = random(5, 8) * torch.tensor([1.0] * 3 + [50.0] * 5), correlated((30, 8), 1).T
    grid = SplitGrid(3, min_max_per_channel(weight[:, :3], 3), min_max_per_channel(weight[:, 3:], 3))
    found = grid.dequantize(gptq_integers(weight, grid, (2 * inputs @ inputs.T)[None]))
    assert float(((found - weight) @ inputs).pow(2).sum()) < float(((grid(weight) - weight) @ inputs).pow(2).sum())


def test_its_defaults_are_those_of_the_authors() -> None:
    settings = GPTQSettings()
    assert (settings.damping, settings.columns_at_once, settings.ordered, settings.granularity) == (
        0.01,
        128,
        False,
        "block",
    )
    assert (settings.weights.estimator, settings.weights.symmetric) == ("min-max", False)
    assert settings.calibration == QDiffusionSettings().calibration


def test_presets_are_parts_of_its_settings() -> None:
    defaults = GPTQSettings().model_dump(mode="json")
    found = {name: validate(GPTQSettings, merged(defaults, each), str) for name, each in GPTQ.presets.items()}
    assert list(found) == ["strict", "fast"]
    assert found["strict"] == GPTQSettings()
    calibration, activations = UniformSteps(per_step=FAST_SAMPLES), ActivationRanges(samples=FAST_RANGE_ROWS)
    assert found["fast"] == GPTQSettings(calibration=calibration, activations=activations)


def test_everything_is_quantized_on_the_grid_of_its_channels_extremes(end_to_end: Run, create: Run) -> None:
    outcome = end_to_end(create(GPTQ))
    assert outcome.model.left_out() == []
    moved = 0
    for name, found in outcome.integers().items():
        layer = outcome.model.layers[name]
        grid = min_max_per_channel(layer.weight, layer.bits.weights)
        assert torch.equal(layer.weight_grid.scale, grid.scale)
        moved += int((found != grid.quantize(layer.weight)).sum())
    assert moved > 50
    for target in ("weights", "activations"):
        assert sum(outcome.shares[target]) == pytest.approx(1)


def test_each_layer_is_rounded_by_what_it_meets_in_the_network_so_far(
    end_to_end: Run, create: Run, small_data: Run
) -> None:
    outcome = end_to_end(create(GPTQ, ordered=True, weights={"estimator": "mse"}))
    by_hand = outcome.start()
    for name, hessian in input_hessians(by_hand, small_data(), "block"):
        layer = by_hand.layers[name]
        grid = mse_per_channel(layer.weight, layer.bits.weights)
        layer.adopt(grid, gptq_integers(layer.weight, grid, hessian, ordered=True))
    for name, layer in outcome.model.layers.items():
        assert torch.equal(layer.rounded, by_hand.layers[name].rounded)


def test_the_network_errs_less_than_rounded_to_nearest(create: Run, small_model: Run, small_data: Run) -> None:
    model, nearest, data = small_model("W3A32"), small_model("W3A32"), small_data(200)
    data.x.copy_(nn.functional.avg_pool2d(data.x, 3, 1, 1) * 3)  # pixels resemble their neighbours, as in images
    with torch.no_grad():
        exact = model(data.x, data.timesteps)
        create(GPTQ).quantize_weights(model, data, model.bits)
        set_weight_grids(nearest, WeightRanges())
        found, other = (float((each(data.x, data.timesteps) - exact).pow(2).mean()) for each in (model, nearest))
    assert found < 0.85 * other


def test_activations_are_ranged_between_their_extremes(end_to_end: Run, create: Run, small_data: Run) -> None:
    outcome = end_to_end(create(GPTQ))
    wanted = outcome.with_weights_only()
    set_input_grids(wanted, small_data(), ActivationRanges())
    for name, tap in outcome.model.taps.items():
        assert torch.equal(tap.grid.scale, wanted.taps[name].grid.scale)


def test_a_layer_that_is_never_called_is_rounded_to_nearest(create: Run, small_model: Run, small_data: Run) -> None:
    model = small_model("W3A32")
    unused = model.layers["mid_block.attentions.0.to_v"]
    model.module.mid_block.attentions[0].to_v = nn.Identity()
    create(GPTQ).quantize_weights(model, small_data(), model.bits)
    grid = min_max_per_channel(unused.weight, 3)
    assert torch.equal(unused.rounded, grid(unused.weight))
    assert model.left_out() == []


def test_what_it_cannot_do_is_refused_in_a_sentence(create: Run, small_model: Run, small_data: Run) -> None:
    shapeless = small_model()
    shapeless.structure = DIFFUSERS_UNET
    with pytest.raises(StageError, match="does not say what its blocks are"):
        create(GPTQ).quantize_weights(shapeless, small_data(), BitWidth(4, 8))
    with pytest.raises(ValueError, match="needs calibration data"):
        create(GPTQ).quantize_weights(small_model(), None, BitWidth(4, 8))
    with pytest.raises(StageError, match=r"the weight of '.*': the Hessian .* more calibration data or more damping"):
        create(GPTQ, damping=0).quantize_weights(small_model(), small_data(1), BitWidth(4, 8))


def test_weights_do_not_depend_on_the_bits_of_activations(weights_digests: Run) -> None:
    w4a32, w4a8, w3a8 = weights_digests("gptq", ["W4A32", "W4A8", "W3A8"])
    assert w4a32 == w4a8 != w3a8


@pytest.mark.parametrize("bits", ["W4A8", "W2A2", "W4A32", "W32A8", "W4A8S8", "W4A8S16", "W4A8S32"])
def test_it_takes_all_bits_that_are_offered(create: Run, bits: str) -> None:
    assert create(GPTQ).refusal(BitWidth.parse(bits)) is None


def test_it_is_installed_under_its_name() -> None:
    assert METHODS.load("gptq") is GPTQ
