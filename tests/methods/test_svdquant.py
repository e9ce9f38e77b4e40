"""SVDQuant: the branch takes what is hard to round, and what is stored is what was computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.method import Method
from qbench.quant import (
    AffineGrid,
    CalibrationData,
    LayerBits,
    QuantLayer,
    QuantModel,
    WeightRanges,
    min_max_per_channel,
)
from qbench.quant.packing import load_weights, save_weights
from qbench.stages.inspection import inspect
from qbench_methods.low_rank_layer import LowRankLayer, split
from qbench_methods.smoothquant import SmoothQuant
from qbench_methods.svdquant import SVDQuant

Create = Callable[..., Method]
SmallModel = Callable[..., QuantModel]
SmallData = Callable[..., CalibrationData]


def hard(out: int = 24, into: int = 40) -> Tensor:
    """A weight with three strong directions, on small noise."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(out, 3, generator=generator), torch.randn(3, into, generator=generator)
    return left @ right + 0.05 * torch.randn(out, into, generator=generator)


def test_the_first_branch_is_the_best_approximation_of_its_rank() -> None:
    weight = hard()
    parts = split(weight, 2, 1, 8, WeightRanges())
    left_over = weight - parts.up.float() @ parts.down.float()
    sizes = torch.linalg.svdvals(weight)
    assert float(left_over.norm()) == pytest.approx(float(sizes[2:].norm()), rel=1e-3)
    assert parts.up.shape == (24, 2)
    assert parts.down.shape == (2, 40)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_weight_of_low_rank_is_rounded_with_far_less_error(bits: int) -> None:
    weight = hard()
    plain = min_max_per_channel(weight, bits)
    error = float((weight - plain.dequantize(plain.quantize(weight))).square().sum())
    assert split(weight, 3, 1, bits, WeightRanges()).error < 0.02 * error
    assert split(weight, 1, 1, bits, WeightRanges()).error < error


@pytest.mark.parametrize("ranges", [WeightRanges(), WeightRanges(estimator="mse"), WeightRanges(symmetric=True)])
def test_more_branches_never_make_it_worse(ranges: WeightRanges) -> None:
    errors = [split(hard(), 2, iterations, 3, ranges).error for iterations in (1, 2, 5, 100)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def layer_of(original: nn.Module, bits: int = 4) -> QuantLayer:
    return QuantLayer(original.requires_grad_(False).eval(), LayerBits(bits, 32))


@pytest.mark.parametrize(
    ("original", "shape"),
    [
        (nn.Linear(12, 10), (2, 5, 12)),
        (nn.Linear(12, 10), (3, 12)),
        (nn.Conv2d(6, 10, 3, padding=1, stride=2), (2, 6, 8, 8)),
        (nn.Conv2d(6, 10, 1), (2, 6, 4, 4)),
        (nn.Conv1d(6, 10, 3), (2, 6, 9)),
    ],
)
def test_both_branches_make_the_layer(original: nn.Module, shape: tuple[int, ...]) -> None:
    """With the residual as good as exact, what is left of the difference is that of its 8 bits."""
    layer = layer_of(original, 8)
    factor = torch.rand(layer.weight.shape[1], *(1,) * (layer.weight.dim() - 2)) + 0.5
    parts = split(layer.weight * factor, 4, 1, 8, WeightRanges())
    x = torch.randn(shape)
    expected = layer(x)
    layer.replace(LowRankLayer(layer, parts, factor))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0.05)
    dense = (parts.up.float() @ parts.down.float()).view_as(layer.weight) + parts.grid.dequantize(parts.integers)
    exact = layer.operation(x, dense / factor, layer.bias)
    torch.testing.assert_close(layer(x), exact, rtol=0, atol=1e-4)


@pytest.fixture
def quantized(
    small_model: SmallModel, small_data: SmallData, create: Create, one_thread: None
) -> Callable[..., tuple[QuantModel, Method]]:
    """Return a function that quantizes a small UNet with a method, as its stages do."""

    def run(method: type[Method], bits: str, hard: bool = False, **settings: Any) -> tuple[QuantModel, Method]:
        if method is SVDQuant:
            settings = {"rank": 1} | settings
        made, model = create(method, **settings), small_model(bits=bits)
        for layer in model.layers.values() if hard else ():
            flat, generator = layer.weight.flatten(1), torch.Generator().manual_seed(3)
            left, right = (torch.randn(*shape, generator=generator) for shape in ((len(flat), 1), (1, flat.shape[1])))
            layer.weight.data += (2 * flat.std() * left @ right).view_as(layer.weight)
        width = BitWidth.parse(bits)
        made.quantize_weights(model, small_data(), width)
        if width.quantizes_activations:
            made.quantize_activations(model, small_data(), width)
        inspect(model, made)
        return model, made

    return run


Quantized = Callable[..., tuple[QuantModel, Method]]


def estimate(model: QuantModel, rows: slice = slice(None)) -> Tensor:
    x = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(5))[rows]
    with torch.inference_mode():
        return model(x, torch.tensor([10, 500, 900])[rows])


def error(model: QuantModel) -> float:
    with model.full_precision():
        exact = estimate(model)
    return float((estimate(model) - exact).square().mean())


def test_layers_that_a_branch_would_hold_whole_get_none(quantized: Quantized) -> None:
    model, _ = quantized(SVDQuant, "W4A4", rank=3)
    branched = {name for name, layer in model.layers.items() if layer.replacement is not None}
    wide = {name for name, layer in model.layers.items() if min(layer.weight.flatten(1).shape) >= 6}
    assert branched == wide
    assert "conv_out" not in branched  # two channels
    assert model.left_out() == []


@pytest.mark.parametrize("method", [SmoothQuant, SVDQuant])
@pytest.mark.parametrize("bits", ["W4A32", "W8A8"])
@pytest.mark.parametrize("groups", [2, 6])
def test_convolutions_in_groups_are_rounded_as_they_are(
    small_model: SmallModel, small_data: SmallData, create: Create, method: type[Method], bits: str, groups: int
) -> None:
    """With padding in words too, of which a layer keeps no geometry."""
    name = "down_blocks.0.resnets.0.conv2"
    grouped = nn.Conv2d(6, 6, 3, padding="same", groups=groups)
    model = small_model(bits=bits, change=lambda unet: unet.set_submodule(name, grouped))
    made = create(method, **({"rank": 1} if method is SVDQuant else {}))
    made.quantize_weights(model, small_data(), model.bits)
    if model.bits.quantizes_activations:
        made.quantize_activations(model, small_data(), model.bits)
    layer = model.layers[name]
    assert layer.replacement is None
    assert isinstance(layer.weight_grid, AffineGrid)
    assert bool(estimate(model).isfinite().all())


@pytest.mark.parametrize("bits", ["W3A32", "W3A8", "W4A4"])
def test_the_branch_takes_up_a_strong_direction_of_the_weights(quantized: Quantized, bits: str) -> None:
    plain, branched = (quantized(method, bits, hard=True)[0] for method in (SmoothQuant, SVDQuant))
    assert error(branched) < 0.5 * error(plain)


def test_activations_see_the_smoothed_input(quantized: Quantized, small_data: SmallData) -> None:
    model, _ = quantized(SVDQuant, "W4A8")
    name = "down_blocks.0.resnets.0.conv1"
    module = model.layers[name].replacement
    assert isinstance(module, LowRankLayer)
    seen: list[Tensor] = []
    raw: list[Tensor] = []
    hook = model.layers[name].register_forward_hook(lambda _, given, __: raw.append(given[0]))
    with model.observing(lambda tap: seen.append if tap == name else lambda x: None):
        estimate(model)
    hook.remove()
    assert torch.equal(seen[0], raw[0] / module.factor)
    assert float(module.factor.std()) > 0


def test_without_quantized_activations_nothing_is_smoothed(quantized: Quantized) -> None:
    model, _ = quantized(SVDQuant, "W4A32")
    modules = [layer.replacement for layer in model.layers.values() if isinstance(layer.replacement, LowRankLayer)]
    assert modules
    assert all(bool((module.factor == 1).all()) for module in modules)


@pytest.mark.parametrize("bits", ["W4A32", "W3A4", "W8A8"])
def test_it_comes_back_from_a_file_to_the_bit(
    quantized: Quantized, small_model: SmallModel, bits: str, tmp_path: Path
) -> None:
    model, _ = quantized(SVDQuant, bits, rank=2)
    loaded = small_model(bits=bits)
    save_weights(model, tmp_path / "weights.safetensors")
    load_weights(loaded, tmp_path / "weights.safetensors")
    for name, tap in model.taps.items():
        loaded.taps[name].grid = tap.grid
    assert torch.equal(estimate(loaded), estimate(model))
    save_weights(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "weights.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"up": torch.zeros(3, 2, dtype=torch.float16)}, "its branch is that of another layer"),
        ({"down": torch.zeros(2, 5)}, "of other types"),
        ({"extra": torch.zeros(1)}, "it has other tensors"),
        ({"packed": torch.zeros(1, dtype=torch.uint8)}, "it holds no integers of 4 bits"),
        ({"scale": torch.zeros(10, 1)}, "it has a grid with a scale that is not positive"),
        ({"up": torch.zeros(10, dtype=torch.float16)}, "its branch is no matrix"),
        ({"factor": torch.zeros(12)}, "it has a factor that is not positive"),
        ({"factor": torch.full((12,), float("inf"))}, "its branch or its factors are not finite"),
        ({"up": torch.full((10, 2), float("nan"), dtype=torch.float16)}, "its branch or its factors are not finite"),
    ],
)
def test_what_is_another_layers_is_refused(change: dict[str, Tensor], told: str) -> None:
    layer = layer_of(nn.Linear(12, 10))
    module = LowRankLayer(layer, split(layer.weight, 2, 1, 4, WeightRanges()), torch.ones(12))
    with pytest.raises(ValueError, match=told):
        LowRankLayer.from_tensors(module.config(), module.tensors() | change, layer)
    assert torch.equal(LowRankLayer.from_tensors(module.config(), module.tensors(), layer).residual, module.residual)


def test_an_image_does_not_depend_on_its_neighbours(quantized: Quantized) -> None:
    model, _ = quantized(SVDQuant, "W4A32", rank=2)
    torch.testing.assert_close(estimate(model)[:1], estimate(model, slice(0, 1)), rtol=0, atol=1e-5)
