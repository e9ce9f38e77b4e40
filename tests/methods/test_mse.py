from collections.abc import Callable
from typing import Any

import pytest
import torch

from qbench.bits import BitWidth
from qbench.method import UniformSteps
from qbench.plugins import METHODS
from qbench.quant import ActivationRanges, mse_per_channel, set_input_grids
from qbench.settings import merged, validate
from qbench_methods.linear import Linear
from qbench_methods.mse import MSE, MSESettings

Run = Callable[..., Any]
PUBLISHED = {
    "calibration": {"kind": "uniform-steps", "steps": 20, "per_step": 256},
    "weights": {"estimator": "mse", "symmetric": False, "candidates": 80},
    "activations": {
        "estimator": "mse",
        "symmetric": False,
        "granularity": "tensor",
        "samples": 64,
        "candidates": 80,
        "momentum": 0.95,
        "percent": 99.99,
    },
}


def test_defaults_are_what_reconstruction_starts_from() -> None:
    assert MSESettings().model_dump(mode="json") == PUBLISHED


def test_presets_are_parts_of_its_settings() -> None:
    defaults = MSESettings().model_dump(mode="json")
    found = {name: validate(MSESettings, merged(defaults, preset), str) for name, preset in MSE.presets.items()}
    assert found == {"strict": MSESettings(), "fast": MSESettings(calibration=UniformSteps(per_step=25))}


def test_everything_is_quantized_and_nothing_left_out(end_to_end: Run, create: Run) -> None:
    outcome = end_to_end(create(MSE))
    assert outcome.model.left_out() == []
    assert sum(outcome.shares["activations"]) == pytest.approx(1)
    bits = {tap.grid.bits for name, tap in outcome.model.taps.items() if name.endswith(".softmax")}
    assert bits == {16}


def test_weights_are_rounded_to_nearest_on_the_grid_of_least_error(end_to_end: Run, create: Run) -> None:
    outcome = end_to_end(create(MSE))
    for name, integers in outcome.integers().items():
        layer = outcome.model.layers[name]
        grid = mse_per_channel(layer.weight, 8 if name in ("conv_in", "conv_out") else 3)
        assert torch.equal(layer.weight_grid.scale, grid.scale)
        assert torch.equal(layer.weight_grid.zero_point, grid.zero_point)
        assert torch.equal(integers, grid.quantize(layer.weight))


def test_weights_err_less_than_between_their_extremes(end_to_end: Run, create: Run) -> None:
    errors = {}
    for method in (MSE, Linear):
        layers = end_to_end(create(method)).model.layers.values()
        errors[method] = [float((layer.rounded - layer.weight).abs().pow(2.4).sum()) for layer in layers]
    assert all(found <= extremes for found, extremes in zip(errors[MSE], errors[Linear], strict=True))
    assert sum(errors[MSE]) < 0.95 * sum(errors[Linear])


def test_activations_are_ranged_by_least_error_over_64_rows(end_to_end: Run, create: Run, small_data: Run) -> None:
    outcome = end_to_end(create(MSE))
    other = outcome.with_weights_only()
    for samples, is_same in ((64, True), (None, False)):
        set_input_grids(other, small_data(), ActivationRanges(estimator="mse", samples=samples))
        taps = [(outcome.model.taps[name].grid, tap.grid) for name, tap in other.taps.items()]
        assert all(torch.equal(found.scale, grid.scale) for found, grid in taps) is is_same


def test_weights_of_32_bits_are_left_alone(end_to_end: Run, create: Run) -> None:
    model = end_to_end(create(MSE, weights={"estimator": "min-max"}), "W4A32", 32).model
    assert [name for name, layer in model.layers.items() if layer.weight_grid is None] == ["conv_in", "conv_out"]


def test_only_activations_need_data(create: Run, small_model: Run) -> None:
    method = create(MSE, calibration={"steps": 5, "per_step": 8})
    assert method.calibration("weights") is None
    assert method.calibration("activations") == UniformSteps(steps=5, per_step=8)
    with pytest.raises(ValueError, match="needs calibration data"):
        method.quantize_activations(small_model(), None, BitWidth(4, 8))


def test_weights_do_not_depend_on_the_bits_of_activations(weights_digests: Run) -> None:
    w4a32, w4a8, w3a8 = weights_digests("mse", ["W4A32", "W4A8", "W3A8"])
    assert w4a32 == w4a8 != w3a8


@pytest.mark.parametrize("bits", ["W4A8", "W2A2", "W4A32", "W32A8", "W4A8S8", "W4A8S16", "W4A8S32"])
def test_it_takes_all_bits_that_are_offered(create: Run, bits: str) -> None:
    assert create(MSE).refusal(BitWidth.parse(bits)) is None


def test_it_is_installed_under_its_name() -> None:
    assert METHODS.load("mse") is MSE
