"""Layers in 8-bit integers: against exact arithmetic in float64, and against what they stand in for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.quant import AffineGrid, DynamicGrid, QuantModel, SplitGrid, StepGrid, min_max_per_channel, take_census
from qbench.quant import integer as module
from qbench.quant.grid import grid_from_range
from qbench.quant.integer import IntegerLayer, IntegerModel, refusal, to_integers, unavailable
from qbench.quant.layers import LayerBits, QuantLayer

CPU = torch.device("cpu")
EIGHT = LayerBits(8, 8)
SCALE, ZERO_POINT = 0.25, 5
INPUT = AffineGrid(4, torch.tensor(SCALE), torch.tensor(float(ZERO_POINT)))
"""Integers of 4 bits: two products with 8-bit weights never leave 16 bits, so that every CPU computes them exactly."""

pytestmark = pytest.mark.skipif(unavailable(CPU) is not None, reason=str(unavailable(CPU)))


def layer_of(original: nn.Module, zero_point: float | None = None, frozen: bool = True) -> QuantLayer:
    """Return a quantized layer whose weights take up all 256 integers of each output channel."""
    layer = QuantLayer(original, EIGHT)
    outputs, count = len(layer.weight), layer.weight[0].numel()
    generator = torch.Generator().manual_seed(count)
    integers = torch.randint(0, 256, layer.weight.shape, generator=generator).float()
    integers.view(outputs, -1)[:, 0], integers.view(outputs, -1)[:, 1] = 0, 255
    shape = (outputs, *(1,) * (layer.weight.dim() - 1))
    zero_points = torch.randint(60, 200, shape, generator=generator).float()
    zero_points = zero_points if zero_point is None else torch.full(shape, zero_point)
    layer.adopt(AffineGrid(8, 2.0 ** -torch.arange(3, 3 + outputs).view(shape), zero_points), integers)
    layer.input_grid = INPUT
    if frozen:
        layer.fold()
    return layer


def example(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def exact(layer: QuantLayer, original: nn.Module, x: Tensor) -> Tensor:
    """Return the output from the integers themselves, in float64, which holds every sum of them exactly."""
    grid = layer.weight_grid
    assert isinstance(grid, AffineGrid)
    weights = (layer.rounded / grid.scale).round().double()
    integers = (x / SCALE).round().clamp(-ZERO_POINT, 15 - ZERO_POINT).double()
    of_output = grid.scale.double().flatten() * SCALE
    copy = original.double()
    copy.weight.data, bias = weights, copy.bias
    copy.bias = None
    sums = copy(integers)
    axis = (1, -1, 1, 1) if x.dim() == 4 else (-1,)
    return sums * of_output.view(axis) + (0 if bias is None else bias.view(axis))


@pytest.mark.parametrize(
    ("options", "side"),
    [
        ({"padding": 1}, 7),
        ({"padding": 1, "stride": 2}, 8),
        ({"padding": (0, 2), "stride": (1, 2)}, 9),
        ({"padding": 2, "dilation": 2}, 8),
        ({"padding": 1, "groups": 2}, 7),
        ({"padding": 1, "groups": 6, "out": 6}, 7),
        ({"bias": False}, 5),
        ({"kernel": 1}, 5),
        ({"kernel": 4, "padding": 1, "out": 1}, 6),
    ],
)
@pytest.mark.parametrize("zero_point", [None, 128.0, 0.0, 255.0])
def test_a_convolution_is_exact(options: dict[str, Any], side: int, zero_point: float | None):
    keywords = dict(options)
    original = nn.Conv2d(6, keywords.pop("out", 4), keywords.pop("kernel", 3), **keywords).requires_grad_(False)
    layer, x = layer_of(original, zero_point), example(2, 6, side, side)
    found = IntegerLayer(layer, x.shape)(x)
    expected = exact(layer, original, x)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 10), (2, 5, 10), (1, 1, 10)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_linear_layer_is_exact(shape: tuple[int, ...], has_bias: bool):
    original = nn.Linear(10, 7, bias=has_bias).requires_grad_(False)
    layer, x = layer_of(original), example(*shape)
    torch.testing.assert_close(IntegerLayer(layer, shape)(x).double(), exact(layer, original, x), rtol=1e-5, atol=1e-5)


def test_a_layer_that_is_not_frozen_computes_the_same():
    frozen, free = (layer_of(nn.Linear(10, 7, bias=False), frozen=frozen) for frozen in (True, False))
    x = example(4, 10)
    assert torch.equal(IntegerLayer(frozen, x.shape)(x), IntegerLayer(free, x.shape)(x))


@pytest.mark.parametrize("splits", ["input", "weight", "both"])
def test_halves_with_grids_of_their_own_are_added(splits: str):
    layer = QuantLayer(nn.Conv2d(5, 3, 1).requires_grad_(False), EIGHT, split=2)
    below, beside = layer.weight[:, :2], layer.weight[:, 2:]
    whole = min_max_per_channel(layer.weight, 8)
    halves = min_max_per_channel(below, 8), min_max_per_channel(beside, 8)
    layer.weight_grid = whole if splits == "input" else SplitGrid(2, *halves)
    layer.input_grid = INPUT if splits == "weight" else SplitGrid(2, INPUT, replace(INPUT, scale=torch.tensor(0.5)))
    x = example(2, 5, 4, 4)
    torch.testing.assert_close(IntegerLayer(layer, x.shape)(x), layer(x))


def test_another_batch_than_it_was_made_for_is_taken():
    original = nn.Conv2d(6, 4, 3, padding=1).requires_grad_(False)
    layer = layer_of(original)
    made, x = IntegerLayer(layer, (2, 6, 8, 8)), example(3, 6, 5, 7)
    torch.testing.assert_close(made(x).double(), exact(layer, original, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("zero_point", [0.0, 1.0, 7.0, 128.0, 254.0, 255.0])
def test_inputs_are_rounded_to_the_very_integers_of_the_grid(zero_point: float):
    grid = AffineGrid(8, torch.tensor(0.1), torch.tensor(zero_point))
    halves = (torch.arange(-600, 600) / 2) * 0.1  # ties, which go to the even one
    x = torch.cat([halves, torch.randn(10_000) * 20, torch.tensor([0.0, 1e30, -1e30, float("inf"), -float("inf")])])
    assert torch.equal(to_integers(x, grid).float(), grid.quantize(x))


def test_fewer_bits_end_where_they_end():
    x = torch.tensor([-100.0, 0.0, 100.0])
    assert to_integers(x, INPUT).tolist() == [0, ZERO_POINT, 15]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layer: setattr(layer, "input_grid", None), "is not quantized"),
        (lambda layer: setattr(layer, "input_grid", DynamicGrid(8)), "has a DynamicGrid of 8 bits"),
        (lambda layer: setattr(layer, "input_grid", StepGrid(8, torch.ones(2), torch.ones(2))), "has a StepGrid"),
        (
            lambda layer: setattr(layer, "input_grid", AffineGrid(16, torch.tensor(1.0), torch.tensor(0.0))),
            "has a AffineGrid of 16 bits",
        ),
    ],
)
def test_what_the_kernels_do_not_take_stays_simulated(change: Callable[[QuantLayer], None], reason: str):
    layer = layer_of(nn.Conv2d(6, 4, 3))
    assert refusal(layer) is None
    change(layer)
    assert str(refusal(layer)).startswith(reason)


@pytest.mark.parametrize(
    "original", [nn.Conv1d(6, 4, 3), nn.Conv2d(6, 4, 3, padding="same"), nn.Conv2d(6, 4, 3, dtype=torch.float64)]
)
def test_layers_that_the_kernels_do_not_know_stay_simulated(original: nn.Module):
    assert refusal(layer_of(original)) is not None


class TestModel:
    @pytest.fixture
    def quantized(self, small_model: Callable[..., QuantModel]) -> QuantModel:
        """A small UNet at W8A8 whose inputs have 5 bits, frozen."""
        model = small_model(bits="W8A8")
        for layer in model.layers.values():
            layer.weight_grid = min_max_per_channel(layer.weight, 8)
        ranges: dict[str, tuple[Tensor, Tensor]] = {}
        with model.observing(lambda name: lambda x: ranges.update({name: (x.min(), x.max())})):
            self.call(model)
        for name, tap in model.taps.items():
            tap.grid = grid_from_range(*ranges[name], 5)
        model.freeze()
        return model

    def call(self, model: QuantModel) -> Tensor:
        return model(example(2, 2, 8, 8), torch.tensor([3, 500]))

    def shapes(self, model: QuantModel) -> dict[str, Sequence[int]]:
        found: dict[str, Sequence[int]] = {}
        with model.observing(lambda name: lambda x: found.update({name: x.shape})):
            self.call(model)
        return found

    def test_every_layer_computes_what_is_simulated(self, quantized: QuantModel):
        integer = IntegerModel(quantized, self.shapes(quantized))
        pairs = {}
        for name, layer in integer.layers.items():
            simulated = quantized.layers[name]
            layer.register_forward_hook(
                lambda _, given, found, name=name, simulated=simulated: pairs.update(
                    {name: (found, simulated(given[0]))}
                )
            )
        with integer.in_place():
            self.call(quantized)
        assert (pairs.keys(), integer.simulated) == (quantized.layers.keys(), {})
        for found, expected in pairs.values():
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    def test_the_model_is_close_to_what_is_simulated(self, quantized: QuantModel):
        expected = self.call(quantized)
        with IntegerModel(quantized, self.shapes(quantized)).in_place():
            found = self.call(quantized)
        # A sum in another order rounds an input here and there the other way, by a whole step of the coarse grid.
        assert 0 < float((found - expected).square().sum() / expected.square().sum()) < 0.02

    def test_the_simulation_is_back_afterwards(self, quantized: QuantModel):
        expected = self.call(quantized)
        with pytest.raises(KeyboardInterrupt), IntegerModel(quantized, self.shapes(quantized)).in_place():
            raise KeyboardInterrupt
        assert torch.equal(self.call(quantized), expected)

    def test_the_share_of_macs_leaves_out_what_stays_simulated(
        self, quantized: QuantModel, small_unet: Callable[..., Any]
    ):
        quantized.layers["conv_in"].input_grid = None
        plain = small_unet("image")
        census = take_census(plain, quantized.structure, torch.zeros(1, 2, 8, 8), torch.zeros(1, dtype=torch.int64))
        integer = IntegerModel(quantized, self.shapes(quantized))
        macs = {count.name: count.macs for count in census}
        products = sum(macs[name] for name in macs if name.endswith((".qk", ".sv")))
        assert integer.simulated == {"conv_in": "is not quantized"}
        assert products > 0
        assert integer.share(census) == pytest.approx(1 - (macs["conv_in"] + products) / sum(macs.values()))


class TestAvailability:
    @pytest.fixture(autouse=True)
    def _ask_anew(self) -> Any:
        unavailable.cache_clear()
        yield
        unavailable.cache_clear()

    def test_other_devices_are_told(self):
        assert "CPUs only, not on cuda" in str(unavailable(torch.device("cuda")))

    def test_a_kernel_that_takes_other_arguments_is_told(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(module, "_FLOAT_OUTPUT", (1.0, 0))
        assert "no such kernel of oneDNN" in str(unavailable(CPU))

    def test_a_kernel_that_computes_something_else_is_told(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(module, "_FLOAT_OUTPUT", (1.0, 0, torch.float32, "relu", [], ""))
        assert "computes something else here" in str(unavailable(CPU))
