from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.method import CalibrationData, UniformSteps
from qbench.plugins import METHODS
from qbench.quant import (
    AffineGrid,
    ChannelScaledGrid,
    DynamicGrid,
    QuantModel,
    StepGrid,
    input_factors,
    min_max_per_channel,
)
from qbench.settings import merged, validate
from qbench_methods.linear import Linear
from qbench_methods.qdiffusion import QDiffusionSettings
from qbench_methods.smoothquant import SmoothQuant, SmoothQuantSettings

Run = Callable[..., Any]


def test_its_defaults_differ_from_linear_in_the_smoothing_alone() -> None:
    settings = SmoothQuantSettings().model_dump(mode="json")
    assert (settings.pop("alpha"), settings.pop("convolutions")) == (0.5, True)
    assert settings == Linear.settings_class().model_dump(mode="json")
    assert SmoothQuantSettings().calibration == QDiffusionSettings().calibration


def test_presets_are_parts_of_its_settings() -> None:
    defaults = SmoothQuantSettings().model_dump(mode="json")
    presets = SmoothQuant.presets.items()
    found = {name: validate(SmoothQuantSettings, merged(defaults, each), str) for name, each in presets}
    assert list(found) == ["strict", "as-published", "fast"]
    assert found["strict"] == SmoothQuantSettings()
    published = found["as-published"]
    assert (published.convolutions, published.weights.symmetric, published.activations.symmetric) == (False, True, True)
    assert found["fast"] == SmoothQuantSettings(calibration=UniformSteps(per_step=25))


def test_weights_and_inputs_have_factors_that_cancel(end_to_end: Run, create: Run, small_data: Run) -> None:
    outcome = end_to_end(create(SmoothQuant))
    wanted = input_factors(outcome.start(), small_data(), 0.5)
    assert outcome.model.left_out() == []
    for name, layer in outcome.model.layers.items():
        weight, given = layer.weight_grid, layer.input_grid
        assert isinstance(weight, ChannelScaledGrid)
        assert isinstance(given, ChannelScaledGrid)
        assert torch.equal(1 / weight.factor, given.factor)
        torch.testing.assert_close(given.factor, wanted[name], rtol=1e-6, atol=0)
        inner = min_max_per_channel(layer.weight * wanted[name], layer.bits.weights)
        assert torch.equal(weight.inner.scale, inner.scale)
        assert isinstance(given.inner, AffineGrid)
    for target in ("weights", "activations"):
        assert sum(outcome.shares[target]) == pytest.approx(1)


def test_operands_of_attention_are_rounded_as_they_are(end_to_end: Run, create: Run) -> None:
    model = end_to_end(create(SmoothQuant)).model
    operands = {name: tap.grid for name, tap in model.taps.items() if name not in model.layers}
    assert {type(grid) for grid in operands.values()} == {AffineGrid}
    assert {grid.bits for name, grid in operands.items() if name.endswith(".softmax")} == {16}


def test_convolutions_are_left_as_linear_has_them_if_so_set(end_to_end: Run, create: Run) -> None:
    model = end_to_end(create(SmoothQuant, convolutions=False)).model
    plain = end_to_end(create(Linear)).model
    for name, layer in model.layers.items():
        is_convolution = layer.weight.dim() == 4
        assert isinstance(layer.weight_grid, ChannelScaledGrid) is not is_convolution
        assert isinstance(layer.input_grid, ChannelScaledGrid) is not is_convolution
        assert torch.equal(layer.rounded, plain.layers[name].rounded) is is_convolution


@pytest.mark.parametrize(("granularity", "inner"), [("token", DynamicGrid), ("step", StepGrid)])
def test_ranges_may_be_dynamic_or_of_each_step(end_to_end: Run, create: Run, granularity: str, inner: type) -> None:
    model = end_to_end(create(SmoothQuant, activations={"granularity": granularity})).model
    for layer in model.layers.values():
        assert isinstance(layer.input_grid, ChannelScaledGrid)
        assert type(layer.input_grid.inner) is inner


def test_where_activations_stay_it_is_linear(end_to_end: Run, create: Run) -> None:
    found, plain = (end_to_end(create(method), "W4A32", 8).model for method in (SmoothQuant, Linear))
    for name, layer in found.layers.items():
        assert isinstance(layer.weight_grid, AffineGrid)
        assert torch.equal(layer.rounded, plain.layers[name].rounded)
    assert all(tap.grid is None for tap in found.taps.values())


@pytest.mark.parametrize(("bits", "boundary", "whole"), [("W32A8", None, None), ("W4A8", 32, ("conv_in", "conv_out"))])
def test_where_a_weight_stays_its_input_is_smoothed_alone(
    end_to_end: Run, create: Run, small_data: Run, bits: str, boundary: int | None, whole: tuple[str, ...] | None
) -> None:
    outcome = end_to_end(create(SmoothQuant), bits, boundary)
    model = outcome.model
    left = [name for name, layer in model.layers.items() if layer.weight_grid is None]
    assert left == list(whole or model.layers)
    wanted = input_factors(outcome.with_weights_only(), small_data(), 0.5)
    for name in left:
        assert torch.equal(model.layers[name].input_grid.factor, wanted[name])


class OneLayer(nn.Module):
    """A denoiser of one layer, linear over pixels or a convolution."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.is_linear = isinstance(layer, nn.Linear)

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        if self.is_linear:
            return (self.layer(x.movedim(1, -1)).movedim(-1, 1),)
        return (self.layer(x),)


def error(make: Callable[[], nn.Module], method: Any, x: Tensor) -> float:
    """The mean squared error of a layer at W8A8."""
    torch.manual_seed(0)
    module = OneLayer(make()).requires_grad_(False)
    model = QuantModel(module, Structure(boundary_layers=("layer", "layer")), BitWidth(8, 8))
    data = CalibrationData(x, torch.zeros(len(x)).long(), torch.zeros(len(x)).long(), 8, lambda done: None)
    exact = model(x, data.timesteps)
    method.quantize_weights(model, data, model.bits)
    method.quantize_activations(model, data, model.bits)
    return float((model(x, data.timesteps) - exact).pow(2).mean())


MAKERS = [
    pytest.param(lambda: nn.Linear(16, 16), id="linear"),
    pytest.param(lambda: nn.Conv2d(16, 16, 3, padding=1), id="convolution"),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("granularity", ["tensor", "token"])
def test_outlier_channels_of_the_input_do_less_harm(
    create: Run, make: Callable[[], nn.Module], granularity: str
) -> None:
    """The law: at W8A8, with a channel a hundred times as large as the others."""
    x = torch.randn(32, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    x[:, [3]] *= 100
    activations = {"granularity": granularity}
    smoothed = error(make, create(SmoothQuant, activations=activations), x)
    assert smoothed < 0.25 * error(make, create(Linear, activations=activations), x)


@pytest.mark.parametrize("make", MAKERS)
def test_without_outliers_it_does_no_harm(create: Run, make: Callable[[], nn.Module]) -> None:
    x = torch.randn(32, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    assert error(make, create(SmoothQuant), x) < 1.2 * error(make, create(Linear), x)


def test_it_needs_data(create: Run, small_model: Run) -> None:
    method = create(SmoothQuant)
    assert method.calibration("weights") == method.calibration("activations") == UniformSteps()
    for quantize in (method.quantize_weights, method.quantize_activations):
        with pytest.raises(ValueError, match="needs calibration data"):
            quantize(small_model(), None, BitWidth(4, 8))


def test_weights_depend_on_the_bits_of_activations(weights_digests: Run) -> None:
    assert len(set(weights_digests("smoothquant", ["W4A32", "W4A8", "W4A6", "W3A8"]))) == 4


@pytest.mark.parametrize("bits", ["W4A8", "W2A2", "W4A32", "W32A8", "W4A8S8", "W4A8S16", "W4A8S32"])
def test_it_takes_all_bits_that_are_offered(create: Run, bits: str) -> None:
    assert create(SmoothQuant).refusal(BitWidth.parse(bits)) is None


def test_it_is_installed_under_its_name() -> None:
    assert METHODS.load("smoothquant") is SmoothQuant
