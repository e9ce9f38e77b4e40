from collections.abc import Callable
from typing import Any

import pytest
import torch

from qbench.bits import BitWidth
from qbench.method import NormalSteps, UniformSteps
from qbench.plugins import METHODS
from qbench.quant import ActivationRanges, mse_per_channel, set_input_grids
from qbench.settings import merged, validate
from qbench_methods.ptq4dm import PTQ4DM, PTQ4DMSettings

Run = Callable[..., Any]
PUBLISHED = {
    "calibration": {"kind": "normal-steps", "count": 1024, "mean": 0.4, "std": 0.4},
    "weights": {"estimator": "mse", "symmetric": True, "candidates": 100},
    "activations": {
        "estimator": "mse",
        "symmetric": True,
        "granularity": "tensor",
        "samples": None,
        "candidates": 100,
        "momentum": 0.95,
        "percent": 99.99,
    },
    "attention": True,
}
"""The settings of the authors' code, with the operands of attention quantized as well."""


def test_defaults_are_those_of_the_authors() -> None:
    assert PTQ4DMSettings().model_dump(mode="json") == PUBLISHED


def test_presets_are_parts_of_its_settings() -> None:
    defaults = PTQ4DMSettings().model_dump(mode="json")
    found = {name: validate(PTQ4DMSettings, merged(defaults, preset), str) for name, preset in PTQ4DM.presets.items()}
    assert list(found) == ["strict", "as-published", "fast"]
    assert found["strict"] == PTQ4DMSettings()
    assert found["as-published"] == PTQ4DMSettings(attention=False)
    fast = found["fast"].calibration
    assert isinstance(fast, NormalSteps)
    assert fast.count <= 500
    assert (fast.mean, fast.std) == (0.4, 0.4)
    assert found["fast"].attention


def test_everything_is_quantized_and_nothing_left_out(end_to_end: Run, create: Run) -> None:
    outcome = end_to_end(create(PTQ4DM))
    assert outcome.model.left_out() == []
    assert sum(outcome.shares["activations"]) == pytest.approx(1)
    assert outcome.shares["weights"] == []
    bits = {tap.grid.bits for name, tap in outcome.model.taps.items() if name.endswith(".softmax")}
    assert bits == {16}


def test_as_published_the_operands_of_attention_are_left_out(end_to_end: Run, create: Run) -> None:
    quick = {"weights": {"estimator": "min-max"}, "activations": {"estimator": "min-max"}}
    model = end_to_end(create(PTQ4DM, **PTQ4DM.presets["as-published"], **quick), "W3A8").model
    operands = [f"{name}.{operand}" for name in model.attentions for operand in ("q", "k", "softmax", "v")]
    assert len(operands) == 16
    assert sorted(model.left_out()) == sorted(operands)
    assert all(model.taps[name].grid is None for name in operands)
    assert all(layer.input_grid is not None for layer in model.layers.values())


def test_weights_are_rounded_to_nearest_on_the_grid_of_least_error(end_to_end: Run, create: Run) -> None:
    outcome = end_to_end(create(PTQ4DM))
    for name, integers in outcome.integers().items():
        layer = outcome.model.layers[name]
        bits = 8 if name in ("conv_in", "conv_out") else 3
        grid = mse_per_channel(layer.weight, bits, symmetric=True, candidates=100)
        assert torch.equal(layer.weight_grid.scale, grid.scale)
        assert torch.equal(integers, grid.quantize(layer.weight))


def test_activations_are_ranged_by_least_error_over_all_rows(end_to_end: Run, create: Run, small_data: Run) -> None:
    outcome = end_to_end(create(PTQ4DM))
    wanted = outcome.with_weights_only()
    set_input_grids(wanted, small_data(), ActivationRanges(estimator="mse", symmetric=True, candidates=100))
    for name, tap in outcome.model.taps.items():
        assert torch.equal(tap.grid.scale, wanted.taps[name].grid.scale)
        assert torch.equal(tap.grid.zero_point, wanted.taps[name].grid.zero_point)


def test_bits_for_a_softmax_that_is_left_out_are_refused(create: Run) -> None:
    bits = BitWidth.parse("W4A8S16")
    assert create(PTQ4DM).refusal(bits) is None
    assert create(PTQ4DM, attention=False).refusal(bits) == (
        "ptq4dm leaves attention in full precision (attention: false), so its softmax output cannot have 16 bits"
    )
    assert create(PTQ4DM, attention=False).refusal(BitWidth.parse("W4A8")) is None


def test_weights_of_32_bits_are_left_alone(end_to_end: Run, create: Run) -> None:
    model = end_to_end(create(PTQ4DM, weights={"estimator": "min-max"}), "W4A32", 32).model
    assert [name for name, layer in model.layers.items() if layer.weight_grid is None] == ["conv_in", "conv_out"]


def test_only_activations_need_data(create: Run, small_model: Run) -> None:
    method = create(PTQ4DM)
    assert method.calibration("weights") is None
    assert method.calibration("activations") == NormalSteps(count=1024, mean=0.4, std=0.4)
    with pytest.raises(ValueError, match="needs calibration data"):
        method.quantize_activations(small_model(), None, BitWidth(4, 8))


def test_another_kind_of_calibration_can_be_asked_for(create: Run) -> None:
    uniform = {"kind": "uniform-steps", "steps": 5, "per_step": 8}
    found = create(PTQ4DM, calibration=uniform).calibration("activations")
    assert found == UniformSteps(steps=5, per_step=8)


def test_weights_do_not_depend_on_the_bits_of_activations(weights_digests: Run) -> None:
    w4a32, w4a8, w3a8 = weights_digests("ptq4dm", ["W4A32", "W4A8", "W3A8"])
    assert w4a32 == w4a8 != w3a8


@pytest.mark.parametrize("bits", ["W4A8", "W2A2", "W4A32", "W32A8", "W4A8S8", "W4A8S16", "W4A8S32"])
def test_it_takes_all_bits_that_are_offered(create: Run, bits: str) -> None:
    assert create(PTQ4DM).refusal(BitWidth.parse(bits)) is None


def test_it_is_installed_under_its_name() -> None:
    assert METHODS.load("ptq4dm") is PTQ4DM
